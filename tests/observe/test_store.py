"""The store: one forward a question, whatever is asked; bit-identical from disk.

Keyed by everything that decides.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unremember.audits.controls import requests_of
from unremember.audits.membership import MembershipLoss, MembershipMinK, MembershipZlib
from unremember.audits.memorisation import ExactMemorisation, ExtractionStrength
from unremember.audits.probability import Probability
from unremember.data.split import Split, make_split
from unremember.errors import ConfigError, DataError, ModelError
from unremember.models import causal
from unremember.observe.generating import caches_states
from unremember.observe.kinds import generations
from unremember.observe.kinds.class_scores import ClassScores
from unremember.observe.kinds.generations import Generations
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations, TokenRecords
from unremember.observe.scoring import shares_prompts
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact, load_artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import Template
from unremember.tasks.tokenizers import train_tokenizer

ROWS = [
    {
        "question": f"Who is number {i}?",
        "answer": f"{name} of Velin.",
        "perturbed_answers": [f"{name} of Osk.", "Nobody."],
    }
    for i, name in enumerate(("Ida Morn", "Ole Fint", "Ann Lund"))
]
OTHERS = [{"question": f"Who sells {goods}?", "answer": "The baker."} for goods in ("bread", "salt")]
ANSWERS, WRONG, SPOKEN = (
    TokenScores("forget"),
    TokenScores("forget", "perturbed_answers"),
    Generations("forget"),
)
REQUESTS = [ANSWERS, WRONG, SPOKEN]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "LIMIT", 12)


def test_moments_come_from_the_same_pass_and_are_kept(
    model: Any, task: LanguageTask, split: Split, fed: list[Any], tmp_path: Path
) -> None:
    moments = TokenScores("forget", moments=True)
    requests = [moments, *REQUESTS]
    first = Store(tmp_path).observe(Artefact(model, task), split, requests, quiet=True)
    count, records = len(fed), first[moments]
    assert first[ANSWERS].moments is None and np.array_equal(first[ANSWERS].logprobs, records.logprobs)
    texts = task.encode(split, "forget", ["answer"])["answer"]
    logits = [
        model(input_ids=torch.from_numpy(texts.ids[a:b])[None]).logits[0, s - 1 : -1].log_softmax(-1)
        for a, b, s in zip(texts.offsets, texts.offsets[1:], texts.starts)
    ]
    mean = torch.cat([(row.exp() * row).sum(-1) for row in logits])
    assert np.abs(records.moments[:, 0] - mean.detach().numpy()).max() < 1e-5 and records.moments.shape == (
        len(records.logprobs),
        2,
    )
    again = Store(tmp_path).observe(Artefact(model, task), split, requests, quiet=True)
    assert len(fed) == count + 3 and np.array_equal(again[moments].moments, records.moments), (
        "nothing but the three above was run"
    )


@pytest.fixture
def split() -> Split:
    return make_split({"forget": ROWS, "holdout": OTHERS})


@pytest.fixture
def task(tokenizer: Any) -> LanguageTask:
    return LanguageTask(tokenizer)


@pytest.fixture
def fed(model: Any) -> Iterator[list[torch.Tensor]]:
    """The ids of every forward of ``model``, which was probed before."""
    assert all(shares_prompts(model, 1, size) for size in (64, 128)) and caches_states(model)
    observed: list[torch.Tensor] = []
    hook = causal.body(model).register_forward_pre_hook(
        lambda _m, _a, kw: observed.append(kw["input_ids"]), with_kwargs=True
    )
    yield observed
    hook.remove()


def equal(left: Observations, right: Observations) -> bool:
    """Every record of both, bit for bit."""
    return left.values.keys() == right.values.keys() and all(
        equal_records(value, right[request]) if isinstance(value, TokenRecords) else value == right[request]
        for request, value in left.values.items()
    )


def equal_records(left: TokenRecords, right: TokenRecords) -> bool:
    arrays = ("rows", "offsets", "logprobs", "matches", "ends", "greedy")
    return list(left.texts) == list(right.texts) and all(
        getattr(left, name).tobytes() == getattr(right, name).tobytes()
        and getattr(left, name).dtype == getattr(right, name).dtype
        for name in arrays
    )


def test_all_likelihood_audits_cost_one_forward_a_question(
    model: Any, task: LanguageTask, split: Split, fed: list[torch.Tensor]
) -> None:
    audits = [
        Probability(),
        MembershipLoss(),
        MembershipZlib(),
        MembershipMinK(),
        ExactMemorisation(),
        ExtractionStrength(),
    ]
    requests = requests_of(audits, split)
    observed = Store().observe(Artefact(model, task), split, requests, quiet=True)
    assert all(audit.measure(observed, []).value is not None for audit in audits)
    rows = [ids for batch in fed for ids in batch.tolist()]
    assert len(rows) == len(ROWS) + len(OTHERS)
    for role in ("forget", "holdout"):
        texts = task.encode(split, role, ["answer"])["answer"]
        for i in range(len(texts)):
            prompt = texts.prompt(i).tolist()
            assert sum(row[: len(prompt)] == prompt for row in rows) == 1


def test_a_second_look_reads_bit_identical_records_and_runs_nothing(
    model: Any, task: LanguageTask, split: Split, tmp_path: Path, fed: list[torch.Tensor]
) -> None:
    first = Store(tmp_path).observe(Artefact(model, task), split, REQUESTS, quiet=True)
    ran = len(fed)
    again = Store(tmp_path).observe(Artefact(model, task), split, REQUESTS, quiet=True)
    assert len(fed) == ran > 0
    assert equal(first, again)
    assert equal(first, Store().observe(Artefact(model, task), split, REQUESTS, quiet=True)), (
        "the folder changes no figure"
    )
    assert np.exp(-again[ANSWERS].loss).tolist() == np.exp(-first[ANSWERS].loss).tolist()


def test_what_a_later_audit_adds_is_all_that_is_computed(
    model: Any, task: LanguageTask, split: Split, tmp_path: Path, fed: list[torch.Tensor]
) -> None:
    Store(tmp_path).observe(Artefact(model, task), split, REQUESTS[:1], quiet=True)
    ran = sum(ids.numel() for ids in fed)
    fed.clear()
    Store(tmp_path).observe(Artefact(model, task), split, REQUESTS[:2], quiet=True)
    answers = task.encode(split, "forget", ["perturbed_answers"])
    assert sum(ids.shape[0] for ids in fed) == len(ROWS) and ran > 0
    whole = Store().observe(Artefact(model, task), split, REQUESTS[:2], quiet=True)
    later = Store(tmp_path).observe(Artefact(model, task), split, REQUESTS[:2], quiet=True)[WRONG]
    assert len(later) == len(answers["perturbed_answers"]) == 2 * len(ROWS)
    assert np.abs(later.logprobs - whole[WRONG].logprobs).max() < 1e-5


@pytest.mark.parametrize("change", ["weights", "data", "template", "tokenizer"])
def test_anything_that_decides_the_figures_is_in_the_key(
    change: str, model: Any, task: LanguageTask, split: Split, tmp_path: Path, fed: list[torch.Tensor]
) -> None:
    first = Store(tmp_path).observe(Artefact(model, task), split, REQUESTS[:1], quiet=True)
    ran = len(fed)
    if change == "weights":
        with torch.no_grad():
            model.get_input_embeddings().weight[5, 5] += 1.0
    elif change == "data":
        split = split.with_rows(forget=[{**ROWS[0], "answer": "Ida Morn of Osk."}, *ROWS[1:]])
    elif change == "template":
        task = LanguageTask(task.tokenizer, Template("Q {question}\n"))
    else:
        task = LanguageTask(train_tokenizer(["other words for a baker of Velin"], 300))
    second = Store(tmp_path).observe(Artefact(model, task), split, REQUESTS[:1], quiet=True)
    assert len(fed) > ran and not equal(first, second)
    assert equal(second, Store().observe(Artefact(model, task), split, REQUESTS[:1], quiet=True))


def test_another_role_with_the_same_rows_is_the_same_observation(
    model: Any, task: LanguageTask, tmp_path: Path, fed: list[torch.Tensor]
) -> None:
    split = make_split({"forget": ROWS, "copy": ROWS})
    requests = [ANSWERS, TokenScores("copy")]
    observed = Store(tmp_path).observe(Artefact(model, task), split, requests, quiet=True)
    assert sum(ids.shape[0] for ids in fed) == len(ROWS)
    assert observed[TokenScores("copy")].logprobs.tobytes() == observed[ANSWERS].logprobs.tobytes()


@pytest.mark.parametrize("damage", [b"", b"not what it was", "half"])
def test_a_corrupt_file_is_made_again(
    damage: Any, model: Any, task: LanguageTask, split: Split, tmp_path: Path
) -> None:
    first = Store(tmp_path).observe(Artefact(model, task), split, REQUESTS, quiet=True)
    for file in tmp_path.glob("*.safetensors"):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if damage == "half" else damage)
    with pytest.warns(UserWarning, match="is corrupt.*computed anew"):
        assert equal(first, Store(tmp_path).observe(Artefact(model, task), split, REQUESTS, quiet=True))
    assert equal(first, Store(tmp_path).observe(Artefact(model, task), split, REQUESTS, quiet=True)), (
        "and kept, whole, this time"
    )
    assert len(list(tmp_path.iterdir())) == len(REQUESTS) + 1, "and their digests"


def test_a_killed_write_leaves_nothing_that_is_read(
    model: Any, task: LanguageTask, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path).observe(Artefact(model, task), split, REQUESTS, quiet=True)
    assert [file.name for file in tmp_path.iterdir()] == ["SHA256SUMS"]
    assert equal(
        Store(tmp_path).observe(Artefact(model, task), split, REQUESTS, quiet=True),
        Store().observe(Artefact(model, task), split, REQUESTS, quiet=True),
    )


def test_the_model_before_drafts_the_next_one(
    model: Any, task: LanguageTask, split: Split, tmp_path: Path, fed: list[torch.Tensor]
) -> None:
    spoken = Store(tmp_path).observe(Artefact(model, task), split, REQUESTS[2:], quiet=True)[SPOKEN]
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved.model.norm.weight.mul_(1.0 + 2**-12)
    steps: list[torch.Tensor] = []
    causal.body(moved).register_forward_pre_hook(
        lambda _m, _a, kw: steps.append(kw["input_ids"]), with_kwargs=True
    )
    Store().observe(Artefact(moved, task), split, REQUESTS[2:], quiet=True)
    undrafted = len(steps)
    steps.clear()
    observed = Store(tmp_path).observe(Artefact(moved, task), split, REQUESTS[2:], quiet=True)
    assert list(observed[SPOKEN]) == list(spoken), "scaling all logits changes no greedy choice"
    assert len(steps) == 2 < undrafted, "one forward scores, one verifies"


def test_scores_derive_their_losses_from_the_tokens(model: Any, task: LanguageTask, split: Split) -> None:
    scores = Store().observe(Artefact(model, task), split, [ANSWERS], quiet=True)[ANSWERS]
    for i in range(len(scores)):
        logprobs, matches = scores.tokens(i)
        assert len(logprobs) == len(matches) == scores.lengths[i]
        assert scores.loss[i] == pytest.approx(-sum(float(x) for x in logprobs) / len(logprobs), abs=1e-12)
        assert scores.ends[i] and scores.texts[i] == ROWS[i]["answer"]


def test_gates_hold_on_real_data(data_folder: Path) -> None:
    """Probabilities within 1e-4, equal generations, the mean within 1e-3 of one text at a time."""
    from unremember.benchmarks.tofu import TOFU

    whole = TOFU(path=str(data_folder / "tofu")).split()
    split = whole.with_rows(forget=whole["forget"].rows[::50], real_authors=whole["real_authors"].rows[::25])
    artefact = load_artefact(data_folder / "tofu-tiny-llama")
    model, task = artefact.model, artefact.task
    scores = [WRONG, TokenScores("real_authors")]
    spoken = [Generations(role) for role in ("forget", "real_authors")]
    observed = Store().observe(artefact, split, [*scores, *spoken], quiet=True)
    for request in scores:
        texts = task.encode(split, request.role, [request.text])[request.text]
        later = np.exp(-observed[request].loss)
        plain = []
        for i in range(len(texts)):
            ids = torch.from_numpy(texts.ids[texts.offsets[i] : texts.offsets[i + 1]])[None]
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, int(texts.starts[i]) - 1 : -1]
            plain.append(
                torch.nn.functional.cross_entropy(logits, torch.from_numpy(texts.answer(i)))
                .neg()
                .exp()
                .item()
            )
        assert np.abs(later - plain).max() < 1e-4 and abs(later.mean() - np.mean(plain)) < 1e-3
    for request in spoken:
        texts = task.encode(split, request.role, ["answer"])["answer"]
        for i, spoken in enumerate(observed[request]):
            prompt = torch.from_numpy(texts.prompt(i))[None]
            with torch.no_grad():
                out = model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    do_sample=False,
                    max_new_tokens=12,
                    pad_token_id=1,
                )
            assert [spoken] == task.decode([out[0, prompt.shape[1] :].tolist()])


def test_an_observation_names_what_was_not_asked_for(model: Any, task: LanguageTask, split: Split) -> None:
    observed = Store().observe(Artefact(model, task), split, REQUESTS[:1], quiet=True)
    with pytest.raises(
        DataError, match=r"TokenScores\(role='forget', text='perturbed_answers'.*was not observed"
    ):
        observed[WRONG]
    with pytest.raises(DataError, match=r"Generations\(role='forget', limit=0\) was not observed"):
        observed[SPOKEN]


def test_an_artefact_that_changed_is_refused(
    model: Any, task: LanguageTask, split: Split, tmp_path: Path
) -> None:
    """Else its figures would be bound to the digest of weights that are gone.

    A new artefact of the model is observed.
    """
    artefact = Artefact(model, task)
    before = Store(tmp_path).observe(artefact, split, [ANSWERS], quiet=True)
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 5] += 1.0
    with pytest.raises(ModelError, match="changed since its digest was taken"):
        Store(tmp_path).observe(artefact, split, [ANSWERS], quiet=True)
    after = Store(tmp_path).observe(Artefact(model, task), split, [ANSWERS], quiet=True)
    assert before.artefact != after.artefact and before.weights != after.weights


def test_what_the_task_cannot_give_is_refused_before_anything_runs(
    model: Any, task: LanguageTask, split: Split, fed: list[torch.Tensor]
) -> None:
    with pytest.raises(ConfigError, match=r"the task 'language' cannot give ClassScores\(role='forget'\)"):
        Store().observe(Artefact(model, task), split, [ANSWERS, ClassScores("forget")], quiet=True)
    assert fed == []


def test_no_text_of_a_row_is_written_to_disk(
    model: Any, task: LanguageTask, split: Split, tmp_path: Path
) -> None:
    moments = TokenScores("forget", moments=True)
    Store(tmp_path).observe(Artefact(model, task), split, [moments, *REQUESTS], quiet=True)
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert written and not any(part in written for part in (b"Velin", b"Osk", b"Nobody", b"number"))
