"""What the shell shows before anything runs: help and lists."""

from __future__ import annotations

import subprocess
import sys

import pytest
from shell import ran, shell

from unremember.registry import FIDELITIES, REGISTRIES

COMMANDS = [
    "demo",
    "train",
    "plan",
    "alternates",
    "forget",
    "audit",
    "attack",
    "compare",
    "report",
    "benchmark",
    "sweep",
    "push",
]


@pytest.mark.parametrize(
    "words", [["--help"], ["forget", "--help"], ["methods"], ["methods", "--json"]], ids=" ".join
)
def test_help_and_the_methods_import_no_torch(words: list[str]) -> None:
    heavy = {"torch", "transformers", "pandas", *(["numpy"] if "--help" in words else [])}
    code = (
        f"import sys; sys.argv = ['unremember', *{words!r}]\nfrom unremember.cli.app import main\n"
        f"try: main()\nexcept SystemExit: pass\nprint(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]" and len(done.stdout) > 400


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_parses(command: str) -> None:
    help_ = " ".join(ran(command, "--help").out.split())
    assert f"unremember {command} " in help_
    assert command in ran("--help").out


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_list_as_json(kind: str) -> None:
    rows = ran(kind, "--json").json
    assert [row["name"] for row in rows] == REGISTRIES[kind].names() and rows
    for row in rows:
        assert {"name", "summary", "paper", "arxiv", "needs", "fidelity"} <= row.keys()
        assert row["summary"] and row["fidelity"] in FIDELITIES and isinstance(row["needs"], list)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_list_as_a_table_of_80_columns(kind: str) -> None:
    lines = ran(kind).out.splitlines()
    assert max(map(len, lines)) <= 80
    first = [line.split(" ")[0] for line in lines]
    assert [word for word in first if word][1:] == REGISTRIES[kind].names(), (
        "every name whole, in the first column"
    )
    words = set(" ".join(lines).split())
    for entry in REGISTRIES[kind].all():
        assert entry.fidelity in words and (entry.arxiv in words or not entry.arxiv)


def test_the_taxonomy_says_what_is_here_and_what_is_not() -> None:
    rows = {row["id"]: row for row in ran("taxonomy", "--json").json}
    assert "npo" in rows["global.preference"]["here"] and rows["certified.removal"]["here"] == []
    lines = ran("taxonomy").out.splitlines()
    here = sum(bool(row["here"]) for row in rows.values() if row["how"] != "page")
    assert lines[-1].startswith(f"{here} of ") and max(map(len, lines)) <= 80 and here < len(rows)


def test_the_price_of_a_step_is_in_the_list_of_methods() -> None:
    text = ran("methods").out
    assert (
        "backwards" in text
        and "31F 31B" in text
        and text.count("2F 2B") > 5
        and "backwards" not in ran("audits").out
    )


@pytest.mark.parametrize(("kind", "name"), [("methods", "ofmu"), ("audits", "rouge"), ("blends", "sum")])
def test_one_of_them_in_full(kind: str, name: str) -> None:
    text, entry = ran(kind, name).out, REGISTRIES[kind].entry(name)
    assert entry.summary.replace("``", "`") in text and f"fidelity: {entry.fidelity}" in text
    assert (
        all(key in text for key in entry.parameters())
        and (entry.arxiv in text)
        and str(entry.facts.get("cost", "")) in text
    )
    assert [row["name"] for row in ran(kind, name, "--json").json] == [name]
    assert "did you mean" in shell(kind, name[:-1] + "x").refused()


@pytest.mark.parametrize(
    "words", [["forgte"], ["forget"], ["train", "--nothing", "-o", "x"], ["audit"]], ids=" ".join
)
def test_a_word_the_shell_does_not_know(words: list[str]) -> None:
    outcome = shell(*words)
    assert outcome.code == 2 and outcome.out == "" and "Traceback" not in outcome.err
    assert any(hint in outcome.err for hint in ("forgte", "--out", "--nothing", "--model"))
