"""``plan``: what is known of a request before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unremember.cli.options import (
    AllowImportOption,
    BlendOption,
    ConfigOption,
    DataOption,
    JsonOption,
    KeysArgument,
    MethodOption,
    ModelOption,
    RetainLossOption,
    SamplingOption,
    SelectionOption,
)

if TYPE_CHECKING:
    from unremember.plan.calibration import ExpectedCost
    from unremember.plan.card import PlanCard

_COLOURS = {"go": "green", "careful": "yellow", "stop": "red"}


def plan_command(
    model: ModelOption = "",
    data: DataOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
    method: MethodOption = "",
    blend: BlendOption = "",
    sampling: SamplingOption = "",
    selection: SelectionOption = "",
    retain_loss: RetainLossOption = "",
    allow_import: AllowImportOption = None,
    keys: KeysArgument = None,
) -> None:
    """Say before any training what a method lacks, how hard and suspicious the request is, and its cost.

    unremember plan -m runs/original -d people --method npo epochs=8

    unremember plan -m MODEL -d tofu data.path=TOFU --method gu --json
    """
    from unremember.report.comparison import strict_json
    from unremember.runs.config import read_config
    from unremember.runs.plan import run_plan

    flags = {
        "model": model,
        "data": data,
        "method": method,
        "blend": blend,
        "sampling": sampling,
        "selection": selection,
        "retain_loss": retain_loss,
    }
    card = run_plan(read_config(config, flags, keys or [], allow_import or []))
    if as_json:
        print(strict_json(card.row()))
    else:
        print_plan(card)


def print_plan(card: PlanCard) -> None:
    """Print a plan as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=None, show_header=False, pad_edge=False, title=f"Plan: {card.method}", title_justify="left"
    )
    table.add_column(style="bold")
    table.add_column()
    table.add_row("advice", f"[{_COLOURS[card.advice]}]{card.advice}[/]")
    for reason in card.reasons:
        table.add_row("", f"· {reason}")
    table.add_row("request", f"{card.finding.verdict} → {card.finding.action}")
    if card.hardness:
        table.add_row("hardness", f"cosine {card.hardness.cosine:.3f} ({card.hardness.advice})")
    if card.expected:
        table.add_row("expected cost", expected_cost_text(card.expected))
    table.add_row("cost of a step", card.cost_of_a_step)
    table.add_row("cost here", time_text(card))
    Console().print(table)


def time_text(card: PlanCard) -> str:
    """Return what a run takes on this machine."""
    if card.seconds_a_step is None:
        return "–"
    return f"{card.steps} steps of {card.seconds_a_step:.2f} s: {card.steps * card.seconds_a_step:.0f} s"


def expected_cost_text(expected: ExpectedCost) -> str:
    """Return the expected cost with what it rests on."""
    from unremember.plan import calibration

    known = calibration.load_calibration()
    ranked = "ranked with" if known.low > 0 else "did not rank beyond chance,"
    beyond = (
        "" if expected.inside else "; this request is harder or easier than all of them: an extrapolation"
    )
    return (
        f"{expected.cost:.2f} ({expected.low:.2f} … {expected.high:.2f}) of the retain answers' probability: "
        f"{known.requests} requests on {known.arena}, which hardness {ranked} ρ = {known.rho:.2f} "
        f"({known.low:.2f} … {known.high:.2f}){beyond}"
    )
