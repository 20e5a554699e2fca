"""``report.html``: one file that works without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import jinja2
import vl_convert

from unremember.files import write_text
from unremember.report.comparison import Artefact, Comparison
from unremember.report.figures import figures, save_png
from unremember.report.table import cell, columns, markdown

READS = {
    "indistinguishable": "cannot be told from the retrained oracle",
    "under-forgotten": "can still be told from the retrained oracle",
    "over-suppressed": "knows less than the retrained oracle",
}
EMBED = "window.vegaEmbed = vegaEmbed;"


def headline(comparison: Comparison) -> str:
    """Which model comes nearest to the oracle, at what utility, and by which figures it is unlike it; or that nothing can be said."""
    scored = []
    for artefact in comparison.artefacts:
        quality, utility = artefact.figure("forget_quality"), artefact.figure("model_utility").get("value")
        if artefact.kind == "unlearned" and quality.get("verdict") in READS and utility is not None:
            scored.append(
                (
                    quality["extra"]["log10_p"],
                    utility,
                    artefact.name,
                    quality["verdict"],
                    other_figures(artefact, columns(comparison)),
                )
            )
    if not scored:
        return counted(comparison)
    log, utility, name, verdict, others = max(scored)
    before = next(
        (a.figure("model_utility").get("value") for a in comparison.artefacts if a.kind == "original"), None
    )
    beside = f" (the original's: {before:.2f})" if before is not None else ""
    return (
        f"{name} comes nearest to forgetting: on the forget set it {READS[verdict]} (log₁₀ p = {log:.1f}), "
        f"at model utility {utility:.2f}{beside}.{others}"
    )


def other_figures(artefact: Artefact, shown: Mapping[str, str]) -> str:
    """A sentence on the table's other figures by which a model is not like the oracle, else ""."""
    parts = []
    for verdict, words in (
        ("under-forgotten", "not forgotten enough by"),
        ("over-suppressed", "suppressed beyond the oracle by"),
    ):
        names = [
            title
            for name, title in shown.items()
            if name != "forget_quality" and artefact.figure(name).get("verdict") == verdict
        ]
        parts += [f"{words} {', '.join(names)}"] if names else []
    return f" It is {' and '.join(parts)}." if parts else ""


def counted(comparison: Comparison) -> str:
    """The same where nothing tests forgetting as a whole: by how many figures which model is like the oracle."""
    read = {
        a.name: [m["verdict"] for m in a.measurements if m.get("verdict") in READS]
        for a in comparison.artefacts
        if a.kind == "unlearned"
    }
    if not any(read.values()):
        return "Undetermined: no unlearned model could be read against a retrained oracle."
    name = max(read, key=lambda one: read[one].count("indistinguishable"))
    return f"{name} {READS['indistinguishable']} by {read[name].count('indistinguishable')} of {len(read[name])} figures: no model by more."


def write_report(comparison: Comparison, path: Path) -> Path:
    """Write the page, beside it its table in Markdown (``report.md``) and, in ``figures/``, the PNGs. Returns the page's path."""
    charts = figures(comparison)
    for name, chart in charts.items():
        save_png(chart, path.parent / "figures" / f"{name}.png")
    shown = columns(comparison)
    rows = [
        (
            a,
            [
                (*cell(a.figure(name)), a.figure(name).get("note") or a.figure(name).get("reason") or "")
                for name in shown
            ],
        )
        for a in comparison.artefacts
    ]
    write_text(path.with_suffix(".md"), f"# {comparison.title}\n\n{markdown(comparison)}\n")
    template = jinja2.Environment(autoescape=True).from_string(
        resources.files("unremember.report").joinpath("report.html").read_text("utf-8")
    )
    specs = {name: json.dumps(chart.to_dict()).replace("</", "<\\/") for name, chart in charts.items()}
    script = vl_convert.javascript_bundle(EMBED) if specs else ""
    write_text(
        path,
        template.render(
            c=comparison, headline=headline(comparison), columns=shown, rows=rows, specs=specs, script=script
        ),
    )
    return path
