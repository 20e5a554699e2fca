"""``report.html``: one file that works without a network."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from unremember.files import write_text
from unremember.report.comparison import ComparedArtefact, Comparison
from unremember.report.escaping import markdown_text
from unremember.report.figures import comparison_charts, save_png
from unremember.report.table import cell_texts, column_titles, markdown_table

_VERDICT_PHRASES = {
    "indistinguishable": "cannot be told from the retrained oracle",
    "under-forgotten": "can still be told from the retrained oracle",
    "over-suppressed": "knows less than the retrained oracle",
}
_DIFFERENCE_PHRASES = {
    "under-forgotten": "not forgotten enough by",
    "over-suppressed": "suppressed beyond the oracle by",
}
_CHART_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{{ title }}</title></head>
<body><div id="chart"></div>
<script>{{ script | safe }}</script>
<script>vegaEmbed("#chart", {{ spec | tojson }}, {actions: false});</script>
</body>
</html>
"""


def headline(comparison: Comparison) -> str:
    """Return which model comes nearest to the oracle, at what utility, and where it still differs.

    Without a forget quality it goes by the number of figures; without any verdict it says that nothing can be
    said.
    """
    titles, ranked = column_titles(comparison), []
    for artefact in comparison.artefacts:
        quality, utility = artefact.figure("forget_quality"), artefact.figure("model_utility").get("value")
        verdict = quality.get("verdict")
        if artefact.kind == "unlearned" and verdict in _VERDICT_PHRASES and utility is not None:
            log10_p, differences = quality["extra"]["log10_p"], _differences(artefact, titles)
            ranked.append((log10_p, utility, artefact.name, verdict, differences))
    if not ranked:
        return _headline_from_counts(comparison)
    log10_p, utility, name, verdict, differences = max(ranked)
    return (
        f"{name} comes nearest to forgetting: on the forget set it {_VERDICT_PHRASES[verdict]} "
        f"(log₁₀ p = {log10_p:.1f}), at model utility {utility:.2f}{_utility_of_original(comparison)}."
        f"{differences}"
    )


def _utility_of_original(comparison: Comparison) -> str:
    """Return the utility of the original in brackets, or "" where it was not measured."""
    for artefact in comparison.artefacts:
        if artefact.kind == "original":
            utility = artefact.figure("model_utility").get("value")
            return "" if utility is None else f" (the original's: {utility:.2f})"
    return ""


def _differences(artefact: ComparedArtefact, titles: Mapping[str, str]) -> str:
    """Return a sentence on the other figures of the table by which a model differs from the oracle, or ""."""
    parts = []
    for verdict, phrase in _DIFFERENCE_PHRASES.items():
        names = [
            title
            for name, title in titles.items()
            if name != "forget_quality" and artefact.figure(name).get("verdict") == verdict
        ]
        if names:
            parts.append(f"{phrase} {', '.join(names)}")
    return f" It is {' and '.join(parts)}." if parts else ""


def _headline_from_counts(comparison: Comparison) -> str:
    """Return the headline without a forget quality: the model most figures cannot tell from the oracle."""
    verdicts = {
        artefact.name: [m["verdict"] for m in artefact.measurements if m.get("verdict") in _VERDICT_PHRASES]
        for artefact in comparison.artefacts
        if artefact.kind == "unlearned"
    }
    if not any(verdicts.values()):
        return "Undetermined: no unlearned model could be compared with a retrained oracle."
    counts = {name: listed.count("indistinguishable") for name, listed in verdicts.items()}
    name = max(counts, key=counts.__getitem__)
    return (
        f"{name} {_VERDICT_PHRASES['indistinguishable']} by {counts[name]} of {len(verdicts[name])} figures; "
        "no other model reaches more."
    )


def write_report(comparison: Comparison, path: Path) -> Path:
    """Write the page, beside it its table in Markdown (``report.md``), and the PNGs in ``figures/``.

    Returns:
        The path of the page.
    """
    charts = comparison_charts(comparison)
    for name, chart in charts.items():
        save_png(chart, path.parent / "figures" / f"{name}.png")
    write_text(
        path.with_suffix(".md"), f"# {markdown_text(comparison.title)}\n\n{markdown_table(comparison)}\n"
    )
    titles = column_titles(comparison)
    rows = [
        (artefact, [_page_cell(artefact.figure(name)) for name in titles])
        for artefact in comparison.artefacts
    ]
    template = jinja2.Environment(autoescape=True).from_string(
        resources.files("unremember.report").joinpath("report.html").read_text("utf-8")
    )
    specs = {name: chart.to_dict() for name, chart in charts.items()}
    page = template.render(
        c=comparison,
        headline=headline(comparison),
        columns=titles,
        rows=rows,
        specs=specs,
        script=chart_script() if specs else "",
    )
    write_text(path, page)
    return path


@functools.cache
def chart_script() -> str:
    """Return the libraries that draw charts, as one script. Bundling them takes seconds."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def write_chart_page(chart: Any, title: str, path: Path) -> None:
    """Write one chart of altair as a page that works without a network."""
    template = jinja2.Environment(autoescape=True).from_string(_CHART_PAGE)
    write_text(path, template.render(title=title, spec=chart.to_dict(), script=chart_script()))


def _page_cell(measurement: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return (value, interval, verdict, note) of a figure, as text."""
    return *cell_texts(measurement), measurement.get("note") or measurement.get("reason") or ""
