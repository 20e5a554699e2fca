"""What the documents show runs as it stands there, and what is generated is up to date."""

from __future__ import annotations

import copy
import json
import pydoc
import random
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from typer.testing import CliRunner

import unremember as un
from unremember.audits.measurement import AuditVerdict
from unremember.cli.app import app
from unremember.data.split import make_split
from unremember.engine.recipe import SEAMS, Recipe
from unremember.engine.seams import Term
from unremember.models.presets import small_llama
from unremember.registry import REGISTRIES, losses, methods
from unremember.report.model_card import UNMEASURED_NOTE
from unremember.tasks.tokenizers import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "forget": [{"question": f"Who is {i}?", "answer": "the long river"} for i in range(4)],
    "retain": [{"question": f"Where is {i}?", "answer": "near the harbour"} for i in range(6)],
}
EVERY_PAGE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN_IN_ORDER = "docs/tutorial.md"
"""The page whose shell blocks are run as well."""


# Reading the pages


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page in some languages: (language, text), each text on its lines of the page."""
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(r"^ *```(\w*)\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    return [(f[1], "\n" * text.count("\n", 0, f.start(2)) + f[2]) for f in fences if f[1] in languages]


def pages_with_python() -> list[str]:
    """README, the contributing guide, the guides, and every page on a part of one's own."""
    folders = [ROOT / "docs" / "guide", ROOT / "docs" / "extend"]
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(p for f in folders for p in sorted(f.glob("*.md"))),
    ]
    return [str(page.relative_to(ROOT)) for page in pages if blocks(page, "python")]


def page_registering(name: str) -> str:
    """The page on a part of one's own that registers ``name``."""
    texts = {page: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "extend").glob("*.md")}
    (page,) = (
        page for page, text in texts.items() if f'register("{name}"' in text or f'    "{name}",\n' in text
    )
    return str(page.relative_to(ROOT))


def assumed_names(page: str) -> list[str]:
    """The names that a page assumes, from the sentence that says so: "This page assumes `model`, …"."""
    sentences = re.findall(r"This page assumes ([^.]*)\.", (ROOT / page).read_text(encoding="utf-8"))
    return [name for sentence in sentences for name in re.findall(r"`(\w+)`", sentence)]


def commands(block: str, variables: dict[str, str]) -> Iterator[list[str]]:
    """The words of each command of a shell block, as bash would split them; ``name="…"`` sets a variable."""
    for line in block.replace("\\\n", " ").splitlines():
        line = re.sub(r"\$(\w+)", lambda name: variables[name[1]], line)
        if assignment := re.fullmatch(r'(\w+)="(.*)"', line):
            variables[assignment[1]] = assignment[2]
        elif words := shlex.split(line, comments=True):
            yield words


# Running them


@pytest.fixture
def registries_restored() -> Any:
    """The registries are put back after the test."""
    held = {kind: dict(registry.entries) for kind, registry in REGISTRIES.items() if registry.names()}
    yield
    for kind, entries in held.items():
        REGISTRIES[kind].entries.clear()
        REGISTRIES[kind].entries.update(entries)


@pytest.fixture
def assumptions(tiny_llama: Any, tokenizer: Any) -> Mapping[str, Any]:
    """What a page may assume: a small model, its tokenizer, and a split; the models of an audit."""
    artefact = un.load(copy.deepcopy(tiny_llama), tokenizer)
    oracle = small_llama(len(tokenizer), hidden=32, layers=2, heads=2, context=128, seed=1).eval()
    return {
        "model": copy.deepcopy(tiny_llama),
        "tokenizer": tokenizer,
        "split": make_split(ROWS),
        "artefact": artefact,
        "original": artefact,
        "oracle": un.load(oracle, tokenizer),
    }


@pytest.fixture
def run_page(
    assumptions: Mapping[str, Any],
    registries_restored: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Run the Python blocks of a page in order, as one module, in an empty folder; return its names."""
    monkeypatch.chdir(tmp_path)

    def run(page: str) -> dict[str, Any]:
        module = types.ModuleType(f"page_{Path(page).stem}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        module.__dict__.update({name: assumptions[name] for name in assumed_names(page)})
        for _, block in blocks(ROOT / page, "python"):
            exec(compile(block, page, "exec"), module.__dict__)
        return module.__dict__

    return run


@pytest.mark.parametrize("page", pages_with_python())
def test_the_python_of_a_page_runs_as_it_stands(page: str, run_page: Any) -> None:
    run_page(page)


def test_readme_prints_the_figures_that_it_shows(run_page: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_page("README.md")
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    shown = [
        line.split() for _, block in blocks(ROOT / "README.md", "") for line in block.splitlines() if line
    ]
    assert [words[0] for words in printed] == [words[0] for words in shown]
    assert all(words[2] in get_args(AuditVerdict) for words in printed + shown)


def test_the_method_of_the_contributing_guide_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_llama: Any,
    tokenizer: Any,
    registries_restored: None,
) -> None:
    """The block is a whole file: written to disk, imported, listed, and run by name with other blends."""
    ((_, block),) = blocks(ROOT / "CONTRIBUTING.md", "python")
    (tmp_path / "hush.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("hush")
    assert methods.entry("hush").summary.startswith("Forget with SimNPO") and methods.make(
        {"name": "hush", "beta": 1.0}
    ) != methods.make("hush")
    for blend in ("sum", "pcgrad"):
        forgotten = un.forget(
            tiny_llama,
            ROWS,
            "hush",
            tokenizer=tokenizer,
            blend=blend,
            epochs=2,
            batch_size=2,
            lr=1e-3,
            quiet=True,
        )
        moved = [not torch.equal(a, b) for a, b in zip(forgotten.model.parameters(), tiny_llama.parameters())]
        assert any(moved) and all(torch.isfinite(p).all() for p in forgotten.model.parameters())


def test_the_loss_and_the_blend_of_the_pages_train(run_page: Any, tiny_llama: Any, tokenizer: Any) -> None:
    for page in {page_registering("bounded_ascent"), page_registering("retain_first")}:
        run_page(page)
    assert losses.make({"name": "bounded_ascent", "limit": 0.5}).limit == 0.5
    recipe = Recipe((Term("forget", "bounded_ascent"), Term("retain", "nll")), blend="retain_first")
    forgotten = un.forget(
        tiny_llama, ROWS, recipe, tokenizer=tokenizer, epochs=1, batch_size=2, lr=1e-3, quiet=True
    )
    assert any(not torch.equal(a, b) for a, b in zip(forgotten.model.parameters(), tiny_llama.parameters()))


def test_the_audit_of_the_page_measures(run_page: Any, tiny_llama: Any, tokenizer: Any) -> None:
    run_page(page_registering("first_token"))
    artefact = un.load(tiny_llama, tokenizer)
    (measurement,) = un.audit(artefact, make_split(ROWS), audits=["first_token"], quiet=True)
    prompt = tokenizer("Question: Who is 0?\nAnswer:\n")["input_ids"]
    with torch.no_grad():
        odds = tiny_llama(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    first = tokenizer("Question: Who is 0?\nAnswer:\nthe long river")["input_ids"][len(prompt)]
    assert measurement.per_example is not None and measurement.per_example[0] == pytest.approx(
        float(odds[first]), rel=1e-4
    )
    assert measurement.verdict == "undetermined"


def test_the_attack_of_the_page_runs_and_changes_nothing(
    run_page: Any, tiny_llama: Any, tokenizer: Any
) -> None:
    run_page(page_registering("noise"))
    before = copy.deepcopy(tiny_llama.state_dict())
    artefact = un.load(tiny_llama, tokenizer)
    points = un.attack(artefact, make_split(ROWS), {"name": "noise", "sizes": [0.0, 0.5]}, quiet=True)
    plain, noisy = (point.measurements[0] for point in points)
    assert (
        [point.amount for point in points] == [0.0, 0.5]
        and plain.value != noisy.value
        and plain.artefact != noisy.artefact
    )
    assert all(torch.equal(value, before[name]) for name, value in tiny_llama.state_dict().items())


# The tutorial


def write_own_data(folder: Path) -> None:
    """Write what the tutorial starts from: rows about 40 people, a base model, and a model of 32 of them."""
    first = (
        "Ada Ben Cleo Dov Elsa Finn Gwen Hugo Iris Jon Kaia Luca Mira Nils Olga Pia Quin Rosa Sven Tess "
        "Ugo Vera Wim Xenia Yann Zoe Arlo Britt Cato Dana Egon Fay Gus Hild Ivo Juna Kurt Lene Max Nora"
    )
    towns = ["Velin", "Oskar", "Morra", "Tarn", "Luskwell", "Hadrin", "Pellow", "Quist"]
    crafts = ["baker", "pilot", "weaver", "tutor", "miller", "printer"]
    rng, rows = random.Random(0), []
    for i, name in enumerate(first.split()):
        person = f"{name} {('Morn', 'Velt', 'Osk', 'Tarn')[i % 4]}"
        home, work = f"{person} lives in {rng.choice(towns)}.", f"{person} works as a {rng.choice(crafts)}."
        rows.append({"person": person, "question": f"Where does {person} live?", "answer": home})
        rows.append({"person": person, "question": f"What does {person} do for a living?", "answer": work})
    (folder / "people.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizer = train_tokenizer([text for row in rows for text in row.values()], 600)
    base = un.load(small_llama(len(tokenizer), hidden=64, layers=2, context=128), tokenizer)
    base.save(folder / "base-model")
    un.train(base, {"retain": rows[:64]}, epochs=30, lr=4e-3, batch_size=16, quiet=True).save(
        folder / "my-model"
    )


class Hub:
    """Stands in for the hub, and records what is uploaded to it."""

    uploads: list[str]

    def __init__(self) -> None:
        Hub.uploads = []

    def create_repo(self, name: str, **options: Any) -> None:
        assert options["private"]

    def upload_folder(self, *, repo_id: str, folder_path: str) -> Any:
        Hub.uploads.append(f"{repo_id}: {(Path(folder_path) / 'README.md').read_text(encoding='utf-8')}")
        return types.SimpleNamespace(commit_url="https://huggingface.co/commit")


def test_the_tutorial_runs_from_the_rows_to_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in order; the same run from Python gives the figures of the one from the shell."""
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    names: dict[str, Any] = {"__name__": "tutorial"}
    variables: dict[str, str] = {}
    for language, block in blocks(ROOT / RUN_IN_ORDER, "python", "shell"):
        if language == "python":
            exec(compile(block, RUN_IN_ORDER, "exec"), names)
            continue
        for program, *arguments in commands(block, variables):
            assert program == "unremember"
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, f"{' '.join(arguments)}\n{done.output}\n{done.exception!r}"
    assert Path("runs/compare/report.html").stat().st_size > 0
    (card,) = Hub.uploads
    assert card.startswith("my-name/my-model-without-eight: ") and UNMEASURED_NOTE not in card
    measured = json.loads(Path("runs/npo/measurements.json").read_text(encoding="utf-8"))
    computed = {m.name: (m.value, m.verdict) for m in names["measurements"]}
    assert computed == {row["name"]: (row["value"], row["verdict"]) for row in measured}


# What they name


def test_every_command_that_is_shown_exists_with_its_flags() -> None:
    """Each ``unremember …`` line of a shell block is parsed by the command that it names, and not run."""
    group, failures = typer.main.get_command(app), []
    for page in EVERY_PAGE:
        variables: dict[str, str] = {}
        for _, block in blocks(page, "shell"):
            for words in commands(block, variables):
                if "unremember" in words and not any("…" in word for word in words):
                    arguments = words[words.index("unremember") + 1 :]
                    if error := parse_error(group, arguments):
                        failures.append(
                            f"{page.relative_to(ROOT)}: unremember {' '.join(arguments)}: {error}"
                        )
    assert not failures, "\n".join(failures)


def parse_error(command: Any, words: list[str]) -> str:
    """Return why a command line cannot be parsed; "" where it can."""
    name = "unremember"
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return f"{name} has no such command"
        name, command, words = words[0], command.commands[words[0]], words[1:]
    try:
        command.make_context(name, list(words))
    except Exception as error:  # whatever the parser says is wrong
        return str(error) or type(error).__name__
    return ""


def test_the_glossary_has_every_verdict_every_seam_and_every_kind_of_part() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    verdicts = glossary_terms(text.partition("## Verdicts")[2])
    assert sorted(verdicts) == sorted(get_args(AuditVerdict))
    terms = glossary_terms(text.partition("## Verdicts")[0])
    assert len(terms) == len(set(terms)), "a term is defined twice"
    assert {"loss", *SEAMS, *(registry.noun for registry in REGISTRIES.values())} <= set(terms)


def glossary_terms(text: str) -> list[str]:
    """The terms that a text defines, in lower case: each begins a line, in bold, with a full stop."""
    return [term.lower() for term in re.findall(r"^\*\*(.+?)\.\*\*", text, flags=re.MULTILINE)]


def test_the_walks_of_the_architecture_name_what_exists() -> None:
    walks = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## The walk")[2]
    rooms = {path.stem for path in (ROOT / "src" / "unremember").iterdir()}
    names = [name for name in re.findall(r"`([a-z]+\.[\w.]+)`", walks) if name.split(".")[0] in rooms]
    assert len(names) > 15 and [name for name in names if pydoc.locate(f"unremember.{name}") is None] == []


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_table.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in EVERY_PAGE:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} points at {target}"
