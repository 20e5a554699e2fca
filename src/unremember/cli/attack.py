"""``attack``: what can still be brought out of a model, beside controls that are attacked alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from unremember import api
from unremember.api import Point
from unremember.audits.measurement import Measurement, plain
from unremember.cli.compare import asked, console
from unremember.cli.config import taken
from unremember.cli.folder import read_run, result_of, split_of, write_card
from unremember.engine.checkpoint import write_text
from unremember.registry import attacks


def attack_run(model: str, name: str, data: str, oracles: Sequence[str], original: str, audits: Sequence[str], as_json: bool,
               keys: Sequence[str]) -> None:  # fmt: skip
    """Print the attack's curve; a run folder keeps it as ``attack-NAME.json``, with the observations."""
    parameters, others = taken(keys, "attack")
    attacker = attacks.make({"name": name, **parameters})
    config, run = asked(data, others), Path(model) if read_run(model) else None
    points = api.attack(result_of(model, config.template), split_of(config.data), attacker,
                        oracle=[result_of(one, config.template) for one in oracles],
                        original=result_of(original, config.template) if original else None,
                        audits=audits or api.ATTACKED, store=run / "observations" if run else None)  # fmt: skip
    rows = json.dumps([{"amount": p.amount, "measurements": [m.row() for m in p.measurements]} for p in points], indent=1)
    if run:
        write_text(run / f"attack-{name}.json", rows)
        write_card(run)
    if as_json:
        print(rows)
        return
    for at in range(len(points[0].measurements)):
        console.print(curve(f"{name}: {points[0].measurements[at].name}", attacker.unit, points, at))
    console.print(verdict(points, attacker.unit), highlight=False)
    for note in dict.fromkeys(m.note for p in points for m in p.measurements if m.note):
        console.print(f"· {note}", markup=False, highlight=False)


def curve(title: str, unit: str, points: Sequence[Point], at: int) -> Table:
    """The table of one audit over the budget."""
    table = Table(box=None, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for name in (unit, "value", "oracles", "original", "recovered share", "verdict"):
        table.add_column(name)
    for point in points:
        m = point.measurements[at]
        controls = m.controls
        table.add_row(f"{point.amount:g}", number(m.value), " ".join(number(v) for v in controls.get("oracle", [])) or "–",
                      number(controls.get("original")), share(m), m.verdict)  # fmt: skip
    return table


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def share(m: Measurement) -> str:
    return "–" if m.position is None else f"{m.position:.2f} ({plain(m.position_low):.2f} … {plain(m.position_high):.2f})"


def verdict(points: Sequence[Point], unit: str) -> str:
    """The point at which most came out."""
    placed = [(m.position, point.amount, m) for point in points for m in point.measurements if m.position is not None]
    if not placed:
        return "nothing can be said: no point has both controls and an axis between them"
    _, amount, worst = max(placed, key=lambda one: one[0])
    return f"most came out at {amount:g} {unit}: {share(worst)} of what the original gives away, by {worst.name}: {worst.verdict}"
