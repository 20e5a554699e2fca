"""The model card of a forgotten model: what was forgotten (by hash, never by content), how, and how it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from unremember.report.attack import Points, share, worst
from unremember.report.table import cell, number

HEAD = """---
library_name: transformers
tags: [machine-unlearning, unremember]
---
# A model that was made to forget
"""
UNMEASURED = "**Nothing was measured.** Whether anything was forgotten is not known: `unremember audit` beside a retrained oracle tells."


def model_card(
    run: Mapping[str, Any], measurements: Sequence[Mapping[str, Any]], attacks: Mapping[str, Points]
) -> str:
    """Markdown of a run (its run.json), the measurements of its weights, and its attacks' curves by name.

    What was measured on other weights is left out.
    """
    mine = [m for m in measurements if m["artefact"] == run["digest"]]
    parts = [HEAD, forgotten(run), how(run), "## How it was measured", measured(mine) if mine else UNMEASURED]
    lines = [
        f"- {name}, at {found[0]:g}: {share(found[1])} by {found[1]['name']}: {found[1]['verdict']}"
        for name, points in sorted(attacks.items())
        if (found := worst(points))
    ]
    if lines:
        parts += [
            "## What attacks brought out",
            "The recovered share is 0 where the attack brings out no more than it does of the retrained oracle, "
            "and 1 where it brings out what it does of the original.",
            "\n".join(lines),
        ]
    return "\n\n".join(parts) + "\n"


def forgotten(run: Mapping[str, Any]) -> str:
    roles = run.get("roles", {})
    rows = [f"| {name} | {role['rows']} | `{role['digest']}` |" for name, role in roles.items()]
    return "\n".join(
        [
            "## What was forgotten",
            "",
            "The rows of the role `forget`. Hashes are SHA-256 of the rows' content; the content is not here.",
            "",
            "| role | rows | hash |",
            "| --- | ---: | --- |",
            *rows,
        ]
    )


def how(run: Mapping[str, Any]) -> str:
    config = {
        key: value
        for key, value in run["config"].items()
        if key not in ("model", "data", "settings", "without", "only") and value
    }
    settings = run["config"]["settings"]
    lines = [
        f"- {name}: `{json.dumps(value) if isinstance(value, dict) else value}`"
        for name, value in config.items()
    ]
    lines += [
        f"- settings: `{json.dumps(settings)}`",
        f"- weights before: `{run['hashes']['start']}`",
        f"- weights after: `{run['digest']}`",
        f"- made with: {', '.join(f'{name} {version}' for name, version in run['versions'].items())}",
    ]
    return "## How\n\n" + "\n".join(lines)


def measured(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of measurements beside their controls."""
    lines = [
        "| measurement | value | 95 % | oracles | original | verdict |",
        "| --- | ---: | --- | --- | ---: | --- |",
    ]
    for row in rows:
        value, spread, verdict = cell(row)
        oracles = " ".join(number(one) for one in row["controls"].get("oracle", [])) or "–"
        lines.append(
            f"| {row['name']} | {value} | {spread or '–'} | {oracles} | {number(row['controls'].get('original'))} | {verdict} |"
        )
    return "\n".join(lines)
