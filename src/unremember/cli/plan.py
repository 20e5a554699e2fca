"""``plan``: what is known of a request before any training."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from unremember import api
from unremember.cli.config import RunConfig
from unremember.cli.folder import model_folder, split_of, template_of
from unremember.errors import ConfigError
from unremember.models.load import load_model, load_tokenizer
from unremember.plan.calibration import Expected, load
from unremember.plan.card import Card, plan
from unremember.report.comparison import plain

COLOURS = {"go": "green", "careful": "yellow", "stop": "red"}


def plan_run(config: RunConfig, as_json: bool) -> None:
    """Print the plan of a method on a model and a benchmark's data."""
    if not config.model:
        raise ConfigError("plan needs --model: a model folder, a run folder or a hub name")
    recipe = api.recipe_of(config.method, config.blend, config.sampling, config.selection, config.retain)
    split, folder = split_of(config.data), model_folder(config.model)
    model = load_model(folder)
    task = api.task_for(model, load_tokenizer(folder), template_of(config.template))
    name = config.method if isinstance(config.method, str) else str(config.method["name"])
    card = plan(model, task, split, recipe, config.settings, name)
    if as_json:
        print(plain(card.row()))
    else:
        show(card)


def cost_of(found: Expected) -> str:
    """The expected cost with what it rests on."""
    known = load()
    ranked = "ranked with" if known.low > 0 else "did not rank beyond chance,"
    beyond = "" if found.inside else "; this one is beyond all of them: an extrapolation"
    return (
        f"{found.cost:.2f} ({found.low:.2f} … {found.high:.2f}) of the retain answers' probability: {known.requests} requests on {known.arena}, "
        f"which hardness {ranked} ρ = {known.rho:.2f} ({known.low:.2f} … {known.high:.2f}){beyond}"
    )


def show(card: Card) -> None:
    table = Table(
        box=None, show_header=False, pad_edge=False, title=f"Plan: {card.method}", title_justify="left"
    )
    table.add_column(style="bold")
    table.add_column()
    table.add_row("advice", f"[{COLOURS[card.advice]}]{card.advice}[/]")
    for reason in card.reasons:
        table.add_row("", f"· {reason}")
    table.add_row("request", f"{card.finding.verdict} → {card.finding.action}")
    if card.hardness:
        table.add_row("hardness", f"cosine {card.hardness.cosine:.3f} ({card.hardness.advice})")
    if card.expected:
        table.add_row("expected cost", cost_of(card.expected))
    cost = (
        "–"
        if card.seconds_a_step is None
        else f"{card.steps} steps of {card.seconds_a_step:.2f} s: {card.steps * card.seconds_a_step:.0f} s"
    )
    table.add_row("cost of a step", card.cost_of_a_step)
    table.add_row("cost here", cost)
    Console().print(table)
