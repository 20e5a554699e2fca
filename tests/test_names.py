"""Names say what a thing is: one meaning for a public name, no names that say nothing, tokenizers in one
room only."""

from __future__ import annotations

import ast
import collections
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "src" / "unremember"
VAGUE = {"found", "made", "one", "there", "mine", "at", "other", "others", "rest", "more", "wanted"} | {
    *("look", "looks", "said", "seen", "kept", "asked", "given", "thing", "things")
}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def public_names(tree: ast.Module) -> Iterator[str]:
    """The names that a module defines at its top level and does not mark as private."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            targets = [
                t
                for target in node.targets
                for t in (target.elts if isinstance(target, ast.Tuple) else [target])
            ]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def commands(tree: ast.Module) -> set[str]:
    """The functions of a file of the command line: a command is called as the function that it calls."""
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_a_public_name_means_one_thing() -> None:
    defined: dict[str, list[str]] = collections.defaultdict(list)
    for path, tree in modules():
        command_names = commands(tree) if path.parts[0] == "cli" else set()
        for name in set(public_names(tree)) - command_names:
            defined[name].append(str(path))
    twice = {name: paths for name, paths in defined.items() if len(paths) > 1}
    assert not twice, "\n".join(f"{name}: {', '.join(paths)}" for name, paths in sorted(twice.items()))


def test_a_command_is_defined_once() -> None:
    counts = collections.Counter(
        name
        for path, tree in modules()
        if path.parts[0] == "cli"
        for name in commands(tree)
        if not name.startswith("_")
    )
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_name_says_only_how_a_thing_came_to_be() -> None:
    vague = [
        f"{path}:{node.lineno} {name}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if (name := bound(node)) in VAGUE
    ]
    assert not vague, f"{len(vague)} bindings: " + ", ".join(vague[:40])


def bound(node: ast.AST) -> str:
    """The name that a node binds, else ""."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return node.arg if isinstance(node, ast.arg) else ""


def test_no_lambda_is_bound_to_a_name() -> None:
    bound_lambdas = [
        f"{path}:{node.lineno}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda)
    ]
    assert bound_lambdas == []


def test_tokenizers_and_pixels_are_named_in_one_room() -> None:
    """Everything else works on tasks; the Python face takes a tokenizer only to hand it to the task."""
    outside = []
    for path, tree in modules():
        if path.parts[0] == "tasks" or str(path) == "api.py":
            continue
        for node in ast.walk(tree):
            name = (
                node.attr
                if isinstance(node, ast.Attribute)
                else node.id
                if isinstance(node, ast.Name)
                else bound(node)
            )
            if "tokenizer" in name.lower() or name in ("pixel_values", "batch_decode"):
                outside.append(f"{path}:{node.lineno} {name}")  # type: ignore[attr-defined]
    assert not outside, ", ".join(outside)
