"""``attack``: what can still be brought out of a model, beside controls that are attacked alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from unremember import api
from unremember.cli.compare import asked, console
from unremember.cli.config import taken
from unremember.cli.folder import read_run, result_of, split_of, write_card
from unremember.files import write_text
from unremember.registry import attacks
from unremember.report.attack import curve, share, worst

NOTHING = "nothing can be said: no point has both controls and an axis between them"


def attack_run(
    model: str,
    name: str,
    data: str,
    oracles: Sequence[str],
    original: str,
    audits: Sequence[str],
    as_json: bool,
    keys: Sequence[str],
) -> None:
    """Print the attack's curve; a run folder keeps it as ``attack-NAME.json``, with the observations."""
    parameters, others = taken(keys, "attack")
    attacker = attacks.make({"name": name, **parameters})
    config, run = asked(data, others), Path(model) if read_run(model) else None
    points = api.attack(
        result_of(model, config.template),
        split_of(config.data),
        attacker,
        oracle=[result_of(one, config.template) for one in oracles],
        original=result_of(original, config.template) if original else None,
        audits=audits or api.ATTACKED,
        store=run / "observations" if run else None,
    )
    rows = [{"amount": p.amount, "measurements": [m.row() for m in p.measurements]} for p in points]
    text = json.dumps(rows, indent=1)
    if run:
        write_text(run / f"attack-{name}.json", text)
        write_card(run)
    if as_json:
        print(text)
        return
    for at, measurement in enumerate(points[0].measurements):
        console.print(curve(f"{name}: {measurement.name}", attacker.unit, rows, at))
    found = worst(rows)
    console.print(
        f"most came out at {found[0]:g} {attacker.unit}: {share(found[1])} of what the original gives away, by {found[1]['name']}: "
        f"{found[1]['verdict']}"
        if found
        else NOTHING,
        highlight=False,
    )
    for note in dict.fromkeys(m.note for p in points for m in p.measurements if m.note):
        console.print(f"· {note}", markup=False, highlight=False)
