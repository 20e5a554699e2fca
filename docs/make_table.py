"""Write the generated parts of README and docs: `python docs/make_table.py` (with --check: only compare).

They come from the registry (tables, counts, heads of the pages on methods) and from the source (the map of
the rooms).
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from unremember.registry import REGISTRIES, Entry, elements_with_parts, methods
from unremember.taxonomy import FAMILIES, count_covered

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "unremember"
SPOTLIGHT = "docs/results/people/spotlight"
PURPOSES = {
    "methods": "how a model forgets",
    "losses": "which direction, per example",
    "blends": "how the gradients of the roles become one update",
    "samplings": "which rows meet in a step, with which weight",
    "selections": "which weights may move",
    "audits": "what is measured, each beside its controls",
    "attacks": "how one tries to recover the forgotten data",
    "benchmarks": "which rows are forgotten and retained",
    "observations": "what is computed of a model, once for all audits",
    "tasks": "which modality: how rows become forwards",
}


# Tables of the registry


def markdown_table(titles: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [titles, ["---"] * len(titles), *rows])


def paper(entry: Entry) -> str:
    """Return the entry's paper, linked to arXiv where it is there."""
    return f"[{entry.paper}](https://arxiv.org/abs/{entry.arxiv})" if entry.arxiv else entry.paper or "–"


def linked_name(entry: Entry) -> str:
    """Return the entry's name, linked to its page where it has one."""
    page = f"{entry.kind}/{entry.name}.md"
    return f"[`{entry.name}`]({page})" if (ROOT / "docs" / page).exists() else f"`{entry.name}`"


def entries_table(entries: list[Entry], columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return one row an entry; ``columns`` adds, by title, a text by name of the entry."""
    rows = [
        [linked_name(e), e.summary.replace("|", "\\|"), paper(e), ", ".join(e.needs) or "–", e.fidelity]
        + [texts.get(e.name, "–") for texts in columns.values()]
        for e in entries
    ]
    return markdown_table(["name", "what it does", "paper", "needs", "fidelity", *columns], rows)


def systems() -> str:
    """Return the page of everything that is registered."""
    parts = [
        "# Systems",
        "What is registered, by kind. `unremember methods --json` and the like print the same. "
        "Any method runs with any blend, sampling and selection that it does not own.",
    ]
    for kind, registry in REGISTRIES.items():
        cost = {e.name: str(e.facts["cost"]) for e in registry.all() if "cost" in e.facts}
        columns = {"cost of a step": cost} if cost else {}
        if kind == "methods":
            columns["tested by"] = {e.name: tested_by(e.name) for e in registry.all()}
        parts += [f"## {kind.capitalize()}", entries_table(registry.all(), columns)]
    return "\n\n".join([*parts, "## Taxonomy", taxonomy()]) + "\n"


def tested_by(method: str) -> str:
    """Return whether a method has an acceptance test of its own beside the tests of its family."""
    folder = ROOT / "tests" / "acceptance"
    baselines = (folder / "test_llm_baselines.py").read_text(encoding="utf-8")
    own = (folder / f"test_{method}.py").exists() or f'"{method}"' in baselines
    return "acceptance test" if own else "family tests"


def taxonomy() -> str:
    """Return what of the field's taxonomy is here, by its families."""
    coverage = elements_with_parts()
    here, elements = count_covered(coverage)
    parts = [
        "The elements of two surveys ([arXiv 2404.02062](https://arxiv.org/abs/2404.02062), "
        "[2511.09855](https://arxiv.org/abs/2511.09855)). "
        f"Code or a library can provide {elements} of them; {here} are here so far."
    ]
    for family, title in FAMILIES.items():
        rows = [
            [f"`{e.id}`", e.what, e.how, ", ".join(f"`{name}`" for name in names) or "–"]
            for e, names in coverage
            if e.family == family
        ]
        parts += [f"### {title.capitalize()}", markdown_table(["id", "what", "as", "here"], rows)]
    return "\n\n".join(parts)


def counts() -> str:
    """Return the number of parts of each family, and the command that lists them."""
    rows = [
        [
            f"[{kind}](docs/systems.md#{kind})",
            str(len(registry.names())),
            PURPOSES[kind],
            f"`unremember {kind}`",
        ]
        for kind, registry in REGISTRIES.items()
    ]
    return markdown_table(["family", "parts", "each says", "list them"], rows)


def method_head(name: str) -> str:
    """Return the facts of a method, and its figure where ``unremember experiment methods`` made one."""
    entry = methods.entry(name)
    facts = [
        ["Paper", paper(entry)],
        ["Fidelity", entry.fidelity],
        ["Taxonomy", f"`{entry.taxonomy}`"],
        ["Needs", ", ".join(entry.needs)],
        ["Cost of a step", str(entry.facts.get("cost", "–"))],
        ["Parameters", ", ".join(f"`{k}={v!r}`" for k, v in entry.parameters().items()) or "–"],
    ]
    head = "\n".join(["| | |", "| --- | --- |", *[f"| {title} | {text} |" for title, text in facts]])
    if (ROOT / SPOTLIGHT / f"{name}.png").exists():
        head += (
            f"\n\n![{name} among the methods at matched forgetting](../results/people/spotlight/{name}.png)"
        )
    return head


# The map of the house


def rooms() -> list[str]:
    """Return the rooms of the package from the top layer down, as the import-linter contract orders them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    names = [room.strip().removeprefix("unremember.") for layer in layers for room in layer.split("|")]
    return [room for room in names if (SOURCE / room).is_dir() or (SOURCE / f"{room}.py").exists()]


def files_of_room(room: str) -> list[Path]:
    """Return the files of a room: those of its folder, or the one of its name."""
    folder = SOURCE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [SOURCE / f"{room}.py"]


def room_summary(room: str) -> str:
    """Return the first paragraph of a room's docstring in one line."""
    file = SOURCE / room / "__init__.py"
    text = (file if file.exists() else SOURCE / f"{room}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    return re.sub(r"``?([^`]+)``?", r"`\1`", " ".join(docstring.split("\n\n")[0].split()))


def imported_modules(file: Path) -> Iterator[str]:
    """Yield what a file imports of this package, as ``engine.loop``; imports inside functions count."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "unremember":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("unremember."):
            yield str(node.module).removeprefix("unremember.")
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from (name.removeprefix("unremember.") for name in names if name.startswith("unremember."))


def imports_of_rooms() -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    imports = {}
    for room in rooms():
        modules = (module for file in files_of_room(room) for module in imported_modules(file))
        imports[room] = {module.split(".")[0] for module in modules}.intersection(rooms()) - {room}
    return imports


def reachable(room: str, imports: Mapping[str, set[str]]) -> set[str]:
    """Return all rooms below a room. The contract of layers rules out circles."""
    return imports[room].union(*(reachable(below, imports) for below in imports[room]))


def house() -> str:
    """Return a table of the rooms and a picture of their imports, without those that follow from others."""
    imports = imports_of_rooms()
    arrows = [
        f"    {room} --> {below}"
        for room in rooms()
        for below in sorted(imports[room])
        if not any(below in reachable(between, imports) for between in imports[room] - {below})
    ]
    table = markdown_table(["room", "what it holds"], [[f"`{room}`", room_summary(room)] for room in rooms()])
    return "\n".join([table, "", "```mermaid", "flowchart TD", *arrows, "```"])


# Files


def replaced(text: str, marker: str, content: str) -> str:
    """Return the text with new content between ``<!-- marker -->`` and ``<!-- /marker -->``."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if begin not in text or end not in text:
        raise SystemExit(f"no {begin} … {end} to write between")
    before, _, following = text.partition(begin)
    return f"{before}{begin}\n{content}\n{end}{following.partition(end)[2]}"


def generated_files() -> dict[Path, str]:
    """Return every file with a generated part, and what it should hold."""
    docs = ROOT / "docs"
    parts = {
        ROOT / "README.md": ("counts", counts()),
        docs / "architecture.md": ("house", house()),
        **{page: ("head", method_head(page.stem)) for page in sorted((docs / "methods").glob("*.md"))},
    }
    written = {file: replaced(file.read_text(encoding="utf-8"), *part) for file, part in parts.items()}
    return {docs / "systems.md": systems(), **written}


def main() -> None:
    """Write the files that are stale, or with ``--check`` name them and exit with 1."""
    stale = {
        file: text
        for file, text in generated_files().items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    }
    if "--check" in sys.argv:
        for file in stale:
            print(f"{file.relative_to(ROOT)} is out of date: run `make table`")
        raise SystemExit(bool(stale))
    for file, text in stale.items():
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
