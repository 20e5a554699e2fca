"""Write the generated parts of README and docs from the registry: `python docs/make_table.py` (with --check: only compare)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from unremember.registry import REGISTRIES, Entry, elements_with_parts, methods
from unremember.taxonomy import FAMILIES, count_covered

ROOT = Path(__file__).resolve().parents[1]
HEAD, END = "<!-- head -->", "<!-- /head -->"
SPOTLIGHT = "docs/results/people/spotlight"


def paper(entry: Entry) -> str:
    return f"[{entry.paper}](https://arxiv.org/abs/{entry.arxiv})" if entry.arxiv else entry.paper or "–"


def named(entry: Entry, docs: str) -> str:
    """The entry's name, leading to its page where it has one; ``docs`` is the way there from the table."""
    page = f"{entry.kind}/{entry.name}.md"
    return f"[`{entry.name}`]({docs}{page})" if (ROOT / "docs" / page).exists() else f"`{entry.name}`"


def table(entries: list[Entry], docs: str = "", **more: dict[str, str]) -> str:
    """One row an entry; ``more`` adds columns of text by name of the entry."""
    titles = ["name", "what it does", "paper", "needs", "fidelity", *more]
    own = [
        [named(e, docs), e.summary.replace("|", "\\|"), paper(e), ", ".join(e.needs) or "–", e.fidelity]
        for e in entries
    ]
    rows = [cells + [column.get(e.name, "–") for column in more.values()] for cells, e in zip(own, entries)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [titles, ["---"] * len(titles), *rows])


def systems() -> str:
    parts = [
        "# Systems",
        "What is registered, by kind. `unremember methods --json` and the like print the same.",
    ]
    for kind, registry in REGISTRIES.items():
        cost = {e.name: str(e.facts["cost"]) for e in registry.all() if "cost" in e.facts}
        parts += [
            f"## {kind.capitalize()}",
            table(registry.all(), **({"cost of a step": cost} if cost else {})),
        ]
    return "\n\n".join([*parts, "## Taxonomy", taxonomy()]) + "\n"


def taxonomy() -> str:
    """What of the field's taxonomy is here, by its families."""
    found = elements_with_parts()
    here, asked = count_covered(found)
    parts = [
        "The elements of two surveys ([arXiv 2404.02062](https://arxiv.org/abs/2404.02062), [2511.09855](https://arxiv.org/abs/2511.09855)). "
        f"Of the {asked} that code or a library can bring {here} are here; the others are yet to come."
    ]
    for family, title in FAMILIES.items():
        rows = [
            (f"`{e.id}`", e.what, e.how, ", ".join(f"`{name}`" for name in names) or "–")
            for e, names in found
            if e.family == family
        ]
        lines = [f"| {' | '.join(cells)} |" for cells in [("id", "what", "as", "here"), ["---"] * 4, *rows]]
        parts += [f"### {title.capitalize()}", "\n".join(lines)]
    return "\n\n".join(parts)


def readme(text: str) -> str:
    tested = {e.name: "acceptance test" if acceptance(e.name) else "family tests" for e in methods.all()}
    rows = table(methods.all(), "docs/", state=tested)
    return re.sub(
        r"<!-- systems -->.*<!-- /systems -->",
        lambda _: f"<!-- systems -->\n{rows}\n<!-- /systems -->",
        text,
        flags=re.DOTALL,
    )


def acceptance(name: str) -> bool:
    aliases = {"guard": "guard_attribution"}
    folder = ROOT / "tests" / "acceptance"
    baselines = (folder / "test_llm_baselines.py").read_text(encoding="utf-8")
    return (folder / f"test_{aliases.get(name, name)}.py").exists() or f'"{name}"' in baselines


def page(text: str, name: str) -> str:
    """A method's page with the head that the registry gives, and its figure where ``unremember bench methods`` has made one."""
    entry = methods.entry(name)
    parameters = ", ".join(f"`{k}={v!r}`" for k, v in entry.parameters().items()) or "–"
    facts = [
        ("Paper", paper(entry)),
        ("Fidelity", entry.fidelity),
        ("Taxonomy", f"`{entry.taxonomy}`"),
        ("Needs", ", ".join(entry.needs)),
        ("Cost of a step", str(entry.facts.get("cost", "–"))),
        ("Parameters", parameters),
    ]
    head = "\n".join(["| | |", "| --- | --- |", *[f"| {k} | {v} |" for k, v in facts]])
    if (ROOT / SPOTLIGHT / f"{name}.png").exists():
        head += (
            f"\n\n![{name} among the methods at matched forgetting](../results/people/spotlight/{name}.png)"
        )
    return re.sub(f"{HEAD}.*?{END}", lambda _: f"{HEAD}\n{head}\n{END}", text, count=1, flags=re.DOTALL)


def wanted() -> dict[Path, str]:
    """Every file with a generated part, and what it should hold."""
    files = {
        ROOT / "docs" / "systems.md": systems(),
        ROOT / "README.md": readme((ROOT / "README.md").read_text(encoding="utf-8")),
    }
    for file in sorted((ROOT / "docs" / "methods").glob("*.md")):
        files[file] = page(file.read_text(encoding="utf-8"), file.stem)
    return files


def main() -> None:
    stale = {
        file: text
        for file, text in wanted().items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    }
    if "--check" in sys.argv:
        for file in stale:
            print(f"{file.relative_to(ROOT)} is not what the registry says: run `make table`")
        raise SystemExit(bool(stale))
    for file, text in stale.items():
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
