"""The model card of a model that forgot: what (by hash, never by content), how, and how it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from unremember.report.attack import AttackCurve, recovered_share, worst_point
from unremember.report.escaping import code_span, markdown_text
from unremember.report.table import cell_texts, format_value, oracle_texts

_HEAD = """---
library_name: transformers
tags: [machine-unlearning, unremember]
---
# A model that was made to forget
"""
UNMEASURED_NOTE = (
    "**Nothing was measured.** It is not known whether anything was forgotten: "
    "run `unremember audit` with a retrained oracle."
)
_ATTACKS_NOTE = (
    "The recovered share is 0 where the attack recovers no more than from the retrained oracle, "
    "and 1 where it recovers as much as from the original."
)
_UNSTATED = ("model", "data", "settings", "without", "only")
"""Entries of a configuration that are not stated as they are: they may name personal files."""


def model_card(
    run: Mapping[str, Any], measurements: Sequence[Mapping[str, Any]], attacks: Mapping[str, AttackCurve]
) -> str:
    """Return a model card in Markdown.

    Args:
        run: The run that made the model (its run.json).
        measurements: Rows of measurements. Those of other weights are left out.
        attacks: The curves of attacks, by name.
    """
    rows = [row for row in measurements if row["artefact"] == run["digests"]["artefact"]]
    parts = [
        _HEAD,
        _forgotten_section(run),
        _method_section(run),
        "## How it was measured",
        _measurement_table(rows) if rows else UNMEASURED_NOTE,
    ]
    lines = []
    for name, curve in sorted(attacks.items()):
        if worst := worst_point(curve):
            amount, row = worst
            share, metric = recovered_share(row), row["name"]
            lines.append(f"- {name}, at {amount:g}: {share} by {metric}: {row['verdict']}")
    if lines:
        parts += ["## What attacks recovered", _ATTACKS_NOTE, "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _forgotten_section(run: Mapping[str, Any]) -> str:
    roles = run.get("roles", {})
    rows = [
        f"| {markdown_text(name)} | {role['rows']} | `{role['digest']}` |" for name, role in roles.items()
    ]
    return "\n".join(
        [
            "## What was forgotten",
            "",
            "The rows of the role `forget`. Hashes are SHA-256 of the rows' content, which is not here.",
            "",
            "| role | rows | hash |",
            "| --- | ---: | --- |",
            *rows,
        ]
    )


def _method_section(run: Mapping[str, Any]) -> str:
    config = {key: value for key, value in run["config"].items() if key not in _UNSTATED and value}
    settings = run["config"]["settings"]
    lines = [
        f"- {name}: {code_span(json.dumps(value) if isinstance(value, dict) else str(value))}"
        for name, value in config.items()
    ]
    lines += [
        f"- settings: {code_span(json.dumps(settings))}",
        f"- weights before: `{run['digests']['start']}`",
        f"- weights after: `{run['digests']['weights']}`",
        f"- made with: {', '.join(f'{name} {version}' for name, version in run['versions'].items())}",
    ]
    return "## How\n\n" + "\n".join(lines)


def _measurement_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of measurements beside their controls."""
    lines = [
        "| measurement | value | 95 % | oracles | original | verdict |",
        "| --- | ---: | --- | --- | ---: | --- |",
    ]
    for row in rows:
        value, interval, verdict = cell_texts(row)
        original = format_value(row["controls"].get("original"))
        cells = [row["name"], value, interval or "–", oracle_texts(row, " "), original, verdict]
        lines.append(f"| {' | '.join(map(markdown_text, cells))} |")
    return "\n".join(lines)
