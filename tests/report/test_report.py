"""Tables, figures and the page of a comparison whose figures are known."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from unremember.audits.measurement import Measurement
from unremember.errors import DataError
from unremember.report.comparison import ComparedArtefact, Comparison, strict_json
from unremember.report.figures import (
    FIGURE_HEIGHT,
    FIGURE_WIDTH,
    POSITION_LIMITS,
    comparison_charts,
    epoch_chart,
    position_chart,
    tradeoff_chart,
)
from unremember.report.labels import boxes_overlap, place_labels
from unremember.report.page import headline, write_report
from unremember.report.table import (
    COLUMN_TITLES,
    MARKS_LEGEND,
    SHORT_TITLES,
    TOFU_TITLES,
    cell_texts,
    markdown_table,
    measurement_table,
    rich_table,
)

NASTY = "</script><b>bold"


def measured(
    utility: float, log: float, verdict: str = "under-forgotten", position: float | None = 0.5, **fields: Any
) -> tuple[dict[str, Any], ...]:
    quality = Measurement(
        "forget_quality", 10**log, verdict=verdict, extra={"log10_p": log, "saturated": log < -100}, **fields
    )  # type: ignore[arg-type]
    measurements = [
        Measurement(
            name,
            0.25,
            0.2,
            0.3,
            verdict=verdict,
            position=position,
            position_low=position and position - 0.1,
            position_high=position and position + 0.1,
            controls={"oracle": [0.1, 0.2], "original": 0.9},
        )
        for name in TOFU_TITLES
        if name not in ("forget_quality", "model_utility")
    ]  # type: ignore[arg-type]
    return tuple(
        m.row()
        for m in (
            quality,
            Measurement("model_utility", utility, utility - 0.01, utility + 0.02, verdict="measured"),
            *measurements,
        )
    )


@pytest.fixture
def comparison() -> Comparison:
    artefacts = (
        ComparedArtefact("original", "original", "", "aa", measured(0.8, -20.0, "control", None)),
        ComparedArtefact("oracle", "oracle", "", "bb", measured(0.78, 0.0, "control", None)),
        ComparedArtefact("npo", "unlearned", "npo", "cc", measured(0.7, -0.5, "indistinguishable", 0.1)),
        ComparedArtefact(
            "gradient_difference",
            "unlearned",
            "gradient_difference",
            "dd",
            measured(0.71, -0.6, position=9.0),
        ),
        ComparedArtefact(
            "wreck",
            "unlearned",
            "gradient_ascent",
            "ee",
            measured(0.0, -239.0, "undetermined", -30.0, note="the model collapsed"),
        ),
        ComparedArtefact("burst", "collapsed", "rmu", "", (), "the loss is not finite at step 3"),
    )
    samples = (
        {
            "role": "forget",
            "question": NASTY,
            "answer": "The truth.",
            "said": {"original": "The truth.", "npo": "", "wreck": "la la"},
        },
    )
    return Comparison("Forgetting in test", artefacts, {"data": "test"}, samples)


def printed(table: Any, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(table)
    return out.getvalue().splitlines()


# --- plain data ---


def test_a_comparison_comes_back_from_its_file(comparison: Comparison, tmp_path: Path) -> None:
    comparison.save(tmp_path / "c.json")
    again = Comparison.load(tmp_path / "c.json")
    assert again.text() == comparison.text() and [a.name for a in again.artefacts] == [
        a.name for a in comparison.artefacts
    ]
    assert (
        again.artefacts[2].figure("model_utility")["value"] == 0.7
        and again.artefacts[5].figure("model_utility") == {}
    )


def test_json_is_strict() -> None:
    tree = {"a": [float("nan"), 1.5, {"b": float("-inf")}], "c": (float("inf"), None, "NaN", True)}
    assert json.loads(strict_json(tree), parse_constant=pytest.fail) == {
        "a": [None, 1.5, {"b": None}],
        "c": [None, None, "NaN", True],
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"title": "t"}',
        '{"title": "t", "artefacts": [{"name": "a"}]}',
        '{"title": "t", "artefacts": [], "x": 1}',
    ],
)
def test_what_is_no_comparison(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match=r"c\.json is not a comparison"):
        Comparison.load(tmp_path / "c.json")


# --- tables ---


def test_cells() -> None:
    quality = {
        "name": "forget_quality",
        "value": 1e-5,
        "verdict": "under-forgotten",
        "extra": {"log10_p": -5.04, "saturated": False},
    }
    assert cell_texts(quality) == ("-5.0", "", "under-forgotten")
    assert cell_texts({**quality, "extra": {"log10_p": -239.0, "saturated": True}})[0] == "-239.0⊥"
    assert cell_texts({**quality, "extra": {"log10_p": None}})[0] == "-inf"
    assert cell_texts(
        {"name": "rouge", "value": 0.12345, "low": 0.1, "high": 0.2, "verdict": "measured"}
    ) == (
        "0.123",
        "0.10–0.20",
        "measured",
    )
    assert cell_texts({"name": "rouge", "value": None, "verdict": "undetermined"}) == (
        "–",
        "",
        "undetermined",
    ) and cell_texts({}) == ("–", "", "")


def test_the_table_is_legible_in_80_columns(comparison: Comparison) -> None:
    lines = printed(rich_table(comparison))
    assert max(map(len, lines)) <= 80
    for artefact in comparison.artefacts:
        assert sum(line.startswith(artefact.name) for line in lines) == 1, "no name is cut"
    for title in (SHORT_TITLES[name] for name in TOFU_TITLES):
        assert all(any(part in line for line in lines) for part in title.split("\n")), title
    (npo,) = (line for line in lines if line.startswith("npo"))
    assert npo.split() == ["npo", "-0.5", "0.700", *["0.250"] * 6]
    (wreck,) = (line for line in lines if line.startswith("wreck"))
    assert wreck.split() == ["wreck", "-239.0⊥?", "0.000", *["0.250?"] * 6], "undetermined figures are marked"
    (burst,) = (line for line in lines if line.startswith("burst"))
    assert burst.split() == ["burst", "collapsed", *["–"] * 8]
    assert SHORT_TITLES.keys() == COLUMN_TITLES.keys()


def test_a_name_is_no_markup(comparison: Comparison) -> None:
    named = dataclasses.replace(
        comparison, artefacts=(dataclasses.replace(comparison.artefacts[2], name="[red]run"),)
    )
    assert any(line.startswith("[red]run") for line in printed(rich_table(named)))


def test_the_card_of_one_model(comparison: Comparison) -> None:
    lines = printed(measurement_table("audit", comparison.artefacts[2].measurements))
    assert max(map(len, lines)) <= 80
    (line,) = (line.split() for line in lines if line.startswith("rouge"))
    assert line == ["rouge", "0.250", "0.20–0.30", "0.100,", "0.200", "0.900", "indistinguishable"]


def test_markdown(comparison: Comparison) -> None:
    lines = markdown_table(comparison).splitlines()
    assert (
        len(lines) == 2 + 6 + 2
        and {line.count("|") for line in lines[:-2]} == {len(TOFU_TITLES) + 2}
        and lines[-1] == MARKS_LEGEND
    )
    assert lines[4].startswith("| npo (unlearned) | -0.5 ≈ | 0.700 (0.69–0.72) | 0.250 (0.20–0.30) ≈ |")
    assert sum(line.startswith("| wreck (the model collapsed) | -239.0⊥ ? |") for line in lines) == 1


# --- figures ---


def rows_of(chart: Any, key: str) -> list[dict[str, Any]]:
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows if key in row]


def test_the_trade_off_shows_each_model_once_inside_the_frame(comparison: Comparison) -> None:
    chart = tradeoff_chart(comparison)
    rows = {row["model"]: row for row in rows_of(chart, "utility")}
    assert rows.keys() == {"original", "oracle", "npo", "gradient_difference", "wreck"}
    assert (rows["npo"]["utility"], rows["npo"]["log10 p"], rows["npo"]["low"]) == (0.7, -0.5, 0.69)
    layer = chart.to_dict()["layer"][1]["encoding"]
    bottom, top = layer["y"]["scale"]["domain"]
    assert bottom < -239 and top > 0 and layer["color"]["scale"]["domain"][:2] == ["original", "oracle"]
    heights = {name: (top - row["log10 p"]) / (top - bottom) * FIGURE_HEIGHT for name, row in rows.items()}
    spots = [(name, row["utility"] * FIGURE_WIDTH, heights[name]) for name, row in rows.items()]
    positions = place_labels(spots)
    assert [row["place"] for row in rows.values()] == [str(place) for place in positions]
    boxes = [place.box(*spot) for place, spot in zip(positions, spots)]
    assert not any(boxes_overlap(first, second) for first, second in combinations(boxes, 2)), (
        "names can be read"
    )
    marks = [layer["mark"] for layer in chart.to_dict()["layer"][2:]]
    assert [(mark["type"], mark["align"], mark["dx"], mark["dy"]) for mark in marks] == [
        ("text", *place) for place in dict.fromkeys(positions)
    ]


def test_positions_are_cut_at_the_edges(comparison: Comparison) -> None:
    chart = position_chart(comparison)
    rows = rows_of(chart, "position")
    assert {row["model"] for row in rows} == {"npo", "gradient_difference", "wreck"} and len(rows) == 18
    scale = chart.to_dict()["layer"][2]["encoding"]["x"]["scale"]
    assert scale["domain"] == list(POSITION_LIMITS) and scale["clamp"] is True
    calm = dataclasses.replace(comparison, artefacts=comparison.artefacts[:3])
    assert position_chart(calm).to_dict()["layer"][2]["encoding"]["x"]["scale"]["domain"] == [-0.25, 1.25]


def test_figures_are_those_there_is_data_for(comparison: Comparison) -> None:
    assert list(comparison_charts(comparison)) == ["tradeoff", "positions"]
    assert list(comparison_charts(dataclasses.replace(comparison, artefacts=comparison.artefacts[:2]))) == [
        "tradeoff"
    ]
    assert comparison_charts(dataclasses.replace(comparison, artefacts=comparison.artefacts[5:])) == {}


def test_curves_where_epochs_were_measured(comparison: Comparison) -> None:
    curve = tuple({"epoch": i, "probability": 1 / (i + 1), "forget_quality": None} for i in range(3))
    with_curve = dataclasses.replace(
        comparison, artefacts=(dataclasses.replace(comparison.artefacts[2], curve=curve),)
    )
    assert "curves" in comparison_charts(with_curve)
    rows = rows_of(epoch_chart(with_curve), "epoch")
    assert [(row["epoch"], row["metric"], row["value"]) for row in rows] == [
        (i, "forget probability", 1 / (i + 1)) for i in range(3)
    ]


# --- the page ---


class Page(HTMLParser):
    """The texts of a page by tag, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]
        self.ids += [str(value) for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())


def test_the_page(comparison: Comparison, tmp_path: Path) -> None:
    path = write_report(comparison, tmp_path / "out" / "report.html")
    text = path.read_text()
    page = Page(text)
    assert page.loads == [] and page.ids == ["tradeoff", "positions"], "it works without a network"
    assert page.texts["h1"] == ["Forgetting in test"] and page.texts["b"] == [
        a.name for a in comparison.artefacts
    ]
    assert set(page.texts["th"]) == {"model", *TOFU_TITLES.values()}
    assert (
        "the loss is not finite at step 3" in page.texts["td"]
        and NASTY in page.texts["p"]
        and "(nothing)" in page.texts["td"]
    )
    assert page.texts["code"] == ["test", "aa", "bb", "cc", "dd", "ee"]
    scripts = [script for script in page.texts["script"] if 'vegaEmbed("#' in script]
    assert len(scripts) == 1 and "window.vegaEmbed" in text
    for name in ("tradeoff", "positions"):
        spec = json.loads(re.search(rf'vegaEmbed\("#{name}", (.*?), {{actions: false}}\)', scripts[0])[1])  # type: ignore[index]
        assert spec["$schema"].startswith("https://vega.github.io/schema/vega-lite")
        assert (path.parent / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (
        text.count("⊥") >= 2
        and "indistinguishable" in page.texts["span"]
        and "undetermined" in page.texts["span"]
    )


@pytest.mark.parametrize("name", [NASTY, "<!--<script>", "a\u2028b", "&lt;<img src=x onerror=y>"])
def test_a_name_cannot_leave_the_script(name: str, comparison: Comparison, tmp_path: Path) -> None:
    named = dataclasses.replace(
        comparison, artefacts=(dataclasses.replace(comparison.artefacts[2], name=name),)
    )
    text = write_report(named, tmp_path / "report.html").read_text()
    (script,) = (script for script in Page(text).texts["script"] if 'vegaEmbed("#' in script)
    assert not set("<>\u2028") & set(script) and Page(text).texts["b"] == [name]


ODD = "a|b [x](y) `c` <i>d</i>\n\x1b[31m"


def test_a_name_is_no_markup_anywhere(comparison: Comparison, tmp_path: Path) -> None:
    named = dataclasses.replace(
        comparison, title=ODD, artefacts=(dataclasses.replace(comparison.artefacts[2], name=ODD),)
    )
    write_report(named, tmp_path / "report.html")
    shown = r"a&#124;b &#91;x](y) &#96;c&#96; &lt;i&gt;d&lt;/i&gt;\n\x1b&#91;31m"
    assert (tmp_path / "report.md").read_text().splitlines()[0] == f"# {shown}"
    assert markdown_table(named).count(f"| {shown} (unlearned) |") == 1
    for table in (rich_table(named), measurement_table(ODD, named.artefacts[0].measurements)):
        text = "".join(printed(table, 400))
        assert r"a|b [x](y) `c` <i>d</i>\n\x1b[31m" in text and "\x1b" not in text


def test_the_headline_names_the_best(comparison: Comparison) -> None:
    assert headline(comparison) == (
        "npo comes nearest to forgetting: on the forget set it cannot be told from the retrained oracle "
        "(log₁₀ p = -0.5), at model utility 0.70 (the original's: 0.80)."
    )
    without = dataclasses.replace(
        comparison, artefacts=(*comparison.artefacts[:2], *comparison.artefacts[3:])
    )
    assert "gradient_difference comes nearest" in headline(without) and "can still be told" in headline(
        without
    )
    assert headline(without).endswith(
        "(the original's: 0.80). It is not forgotten enough by forget probability, forget ROUGE, "
        "truth ratio, extraction strength, exact memorisation, membership AUC."
    )
    beyond = [
        {**m, "verdict": "over-suppressed"} if m["name"] in ("rouge", "membership_loss") else m
        for m in comparison.artefacts[2].measurements
    ]
    silent = dataclasses.replace(
        comparison, artefacts=(dataclasses.replace(comparison.artefacts[2], measurements=beyond),)
    )
    assert headline(silent).endswith(
        "at model utility 0.70. It is suppressed beyond the oracle by forget ROUGE, membership AUC."
    )
    vetoed = dataclasses.replace(comparison, artefacts=comparison.artefacts[4:])
    figures_alone = dataclasses.replace(
        comparison,
        artefacts=tuple(
            dataclasses.replace(a, measurements=[m for m in a.measurements if m["name"] != "forget_quality"])
            for a in comparison.artefacts
        ),
    )
    assert (
        headline(figures_alone)
        == "npo cannot be told from the retrained oracle by 6 of 6 figures; no other model reaches more."
    )
    assert headline(vetoed).startswith("Undetermined")
    blind = ComparedArtefact("x", "unlearned", "npo", "", measured(0.5, -1.0, "uninformative"))
    assert headline(dataclasses.replace(comparison, artefacts=(blind,))).startswith("Undetermined")
