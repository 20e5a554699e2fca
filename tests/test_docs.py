"""What the documents show runs as it stands there, and what is generated is up to date."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import unremember as un
from unremember.data.split import make_split
from unremember.registry import REGISTRIES, losses, methods

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "forget": [{"question": f"Who is {i}?", "answer": "the long river"} for i in range(4)],
    "retain": [{"question": f"Where is {i}?", "answer": "near the harbour"} for i in range(6)],
}


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def unchanged() -> Any:
    """The registries are put back after the test."""
    held = {kind: dict(registry.entries) for kind, registry in REGISTRIES.items() if registry.names()}
    yield
    for kind, entries in held.items():
        REGISTRIES[kind].entries.clear()
        REGISTRIES[kind].entries.update(entries)


@pytest.mark.usefixtures("unchanged")
def test_the_method_of_the_contributing_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_llama: Any, tokenizer: Any
) -> None:
    """The block is a whole file: written to disk, imported, listed, and run by name with seams of other people."""
    (block,) = blocks("CONTRIBUTING.md")
    (tmp_path / "hush.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("hush")
    assert methods.entry("hush").summary.startswith("Forget with SimNPO") and methods.make(
        {"name": "hush", "beta": 1.0}
    ) != methods.make("hush")
    for blend in ("sum", "pcgrad"):
        model = copy.deepcopy(tiny_llama)
        result = un.forget(
            model, ROWS, "hush", tokenizer=tokenizer, blend=blend, epochs=2, batch_size=2, lr=1e-3, quiet=True
        )
        moved = [not torch.equal(a, b) for a, b in zip(result.model.parameters(), tiny_llama.parameters())]
        assert any(moved) and all(torch.isfinite(p).all() for p in result.model.parameters())


HEAD = """
import dataclasses
import json
from pathlib import Path
import numpy as np
from unremember.audits.measurement import of_examples
from unremember.audits.probability import has
from unremember.data.split import make_split
from unremember.engine.blends import PlainBlend, combine, gram
from unremember.engine.losses import ANSWER, PlainLoss
from unremember.observe.records import Want
from unremember.registry import audits, benchmarks, blends, losses
"""


@pytest.mark.usefixtures("unchanged")
def test_the_loss_and_the_blend_of_the_guide_run(tiny_llama: Any, tokenizer: Any) -> None:
    loss, blend = blocks("docs/extend/method.md")
    space: dict[str, Any] = {}
    exec(HEAD + loss, space)
    exec(
        HEAD + blend,
        space,
    )
    assert losses.make({"name": "bounded_ascent", "limit": 0.5}).limit == 0.5
    from unremember.engine.recipe import Recipe
    from unremember.engine.seams import Term

    recipe = Recipe((Term("forget", "bounded_ascent"), Term("retain", "nll")), blend="retain_first")
    result = un.forget(
        copy.deepcopy(tiny_llama),
        ROWS,
        recipe,
        tokenizer=tokenizer,
        epochs=1,
        batch_size=2,
        lr=1e-3,
        quiet=True,
    )
    assert any(not torch.equal(a, b) for a, b in zip(result.model.parameters(), tiny_llama.parameters()))


@pytest.mark.usefixtures("unchanged")
def test_the_audit_of_the_guide_measures(tiny_llama: Any, tokenizer: Any) -> None:
    (block,) = blocks("docs/extend/audit.md")
    exec(HEAD + block, {})
    task = un.api.task_for(tiny_llama, tokenizer)
    (found,) = un.audit(
        un.Result(tiny_llama, task, "d"), make_split(ROWS), audits=["first_token"], quiet=True
    )
    prompt = tokenizer("Question: Who is 0?\nAnswer:\n")["input_ids"]
    with torch.no_grad():
        odds = tiny_llama(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    first = tokenizer("Question: Who is 0?\nAnswer:\nthe long river")["input_ids"][len(prompt)]
    assert found.per_example is not None and found.per_example[0] == pytest.approx(
        float(odds[first]), rel=1e-4
    )
    assert found.verdict == "undetermined"


@pytest.mark.usefixtures("unchanged")
def test_the_attack_of_the_guide_runs_and_changes_nothing(tiny_llama: Any, tokenizer: Any) -> None:
    (block,) = blocks("docs/extend/attack.md")
    imports = "import dataclasses, torch\nfrom unremember.audits.attacks import Attacked, changed\nfrom unremember.registry import attacks\n"
    exec(imports + block, {})
    before = copy.deepcopy(tiny_llama.state_dict())
    result = un.Result(tiny_llama, un.api.task_for(tiny_llama, tokenizer), "d")
    points = un.attack(result, make_split(ROWS), {"name": "noise", "sizes": [0.0, 0.5]}, quiet=True)
    plain, noisy = (point.measurements[0] for point in points)
    assert (
        [point.amount for point in points] == [0.0, 0.5]
        and plain.value != noisy.value
        and plain.artefact != noisy.artefact
    )
    assert all(torch.equal(value, before[name]) for name, value in tiny_llama.state_dict().items())


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_table.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} points at {target}"
