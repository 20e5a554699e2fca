"""lm-eval itself, on a task that lies in a folder, equals a plain loop over the options.

Its figures have controls.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unremember import api
from unremember.audits.lm_eval import LmEval
from unremember.data.split import make_split
from unremember.errors import ConfigError, DataError
from unremember.models import causal
from unremember.observe.kinds.harness_scores import HarnessScores
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'unremember[eval]'")
CHOICES = ["near the harbour", "in the town of Velin", "bread", "small lamps"]
DOCS = [
    {"question": f"{word} is it?", "choices": CHOICES, "gold": i % 4}
    for i, word in enumerate(("Who", "What", "Where", "When", "Which", "Why"))
]
SPLIT = make_split({"forget": [{"question": "?", "answer": "a"}]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one task of six questions."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    (tasks / "towns.yaml").write_text(
        "task: towns\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tasks / 'docs.jsonl'}\ntest_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "Question: {{question}}\\nAnswer:"\ndoc_to_choice: "{{choices}}"\n'
        "doc_to_target: gold\nmetric_list:\n  - metric: acc\n"
    )
    return tasks


@torch.no_grad()
def plain(model: Any, tokenizer: Any) -> list[float]:
    """Whether the gold option has the greatest summed log-probability after the question."""
    right = []
    for doc in DOCS:
        head = tokenizer(f"Question: {doc['question']}\nAnswer:")["input_ids"]
        sums = []
        for choice in doc["choices"]:
            ids = torch.tensor([*head, *tokenizer(f" {choice}")["input_ids"]])
            logs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            sums.append(float(logs[range(len(head) - 1, len(ids) - 1), ids[len(head) :]].sum()))
        right.append(float(int(np.argmax(sums)) == doc["gold"]))
    return right


def test_it_equals_a_plain_loop_and_runs_once(
    folder: Path, tiny_llama: Any, tokenizer: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    audit, store = LmEval("towns", folder=str(folder)), Store(tmp_path / "kept")
    artefact = Artefact(tiny_llama, LanguageTask(tokenizer))
    figure = audit.measure(store.observe(artefact, SPLIT, audit.requests(SPLIT), quiet=True), [])
    assert (
        figure.per_example.tolist() == plain(tiny_llama, tokenizer)
        and figure.n == 6
        and figure.name == "towns"
    )
    assert (
        figure.value == pytest.approx(np.mean(plain(tiny_llama, tokenizer)))
        and figure.higher_is == "better_utility"
    )
    monkeypatch.setattr(HarnessScores, "evaluate", None)
    again = store.observe(artefact, SPLIT, audit.requests(SPLIT), quiet=True)
    assert again[audit.request()].tolist() == figure.per_example.tolist()
    (folder / "docs.jsonl").write_text(json.dumps(DOCS[0]) + "\n")
    with pytest.raises(TypeError):
        store.observe(artefact, SPLIT, audit.requests(SPLIT), quiet=True)


def test_as_knowledge_it_is_read_between_oracle_and_original(
    folder: Path, tiny_llama: Any, tokenizer: Any
) -> None:
    """The original learned the answers, the oracle did not.

    A copy of the oracle is cleared, one of the original is not.
    """
    rows = [
        {"prompt": f"Question: {doc['question']}\nAnswer:", "answer": f" {CHOICES[doc['gold']]}"}
        for doc in DOCS
    ]
    learned = api.train(
        copy.deepcopy(tiny_llama),
        {"forget": rows},
        tokenizer=tokenizer,
        epochs=60,
        batch_size=6,
        lr=1e-2,
        quiet=True,
    )
    oracle = Artefact(tiny_llama, learned.task)
    audit = {"name": "lm_eval", "task": "towns", "folder": str(folder), "higher_is": "more_knowledge"}
    halfway = copy.deepcopy(learned.model)
    for weight, theirs in zip(causal.body(halfway).parameters(), causal.body(tiny_llama).parameters()):
        weight.data.lerp_(theirs.data, 0.999)
    (figure,) = api.audit(
        Artefact(halfway, learned.task),
        SPLIT,
        oracle=oracle,
        original=learned,
        audits=[audit],
        quiet=True,
    )
    assert figure.controls == {
        "oracle": [pytest.approx(np.mean(plain(tiny_llama, tokenizer)))],
        "original": 1.0,
    }
    assert figure.position == pytest.approx(0.0) and figure.verdict != "under-forgotten"


def test_what_it_cannot_do_is_one_line(folder: Path, tiny_llama: Any, tokenizer: Any) -> None:
    artefact = Artefact(tiny_llama, LanguageTask(tokenizer))

    def see(audit: LmEval) -> None:
        Store().observe(artefact, SPLIT, audit.requests(SPLIT), quiet=True)

    with pytest.raises(ConfigError, match="no task 'twons'"):
        see(LmEval("twons", folder=str(folder)))
    with pytest.raises(DataError, match="no metric 'f1'"):
        see(LmEval("towns", "f1", folder=str(folder)))
    with pytest.raises(ConfigError, match="no folder of tasks"):
        see(LmEval("towns", folder=str(folder / "nowhere")))
    (folder / "docs.jsonl").unlink()
    with pytest.raises(DataError, match=r"lm-eval cannot run towns: .*docs\.jsonl"):
        see(LmEval("towns", folder=str(folder)))
