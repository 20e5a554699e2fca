"""MUSE's two memorisations: by hand, and with truths and generations cut to the same number of tokens."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from handmade import observations_of, question_rows, with_values

from unremember import api
from unremember.audits.continuation import KnowledgeMemorisation, VerbatimMemorisation, rouge_f1
from unremember.data.split import make_split
from unremember.observe.kinds.generations import Generations
from unremember.observe.kinds.truncated_answers import TruncatedAnswers
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact


def test_agreement_by_hand() -> None:
    """Spec B8: RL F1 8/13 and, without stemming, 4/9."""
    assert rouge_f1("the author was born in Taipei", "author born in the city of Taipei") == pytest.approx(
        0.615385, abs=1e-6
    )
    assert rouge_f1("She writes historical novels", "she wrote a historical novel") == pytest.approx(
        0.444444, abs=1e-6
    )
    assert rouge_f1("one two", "") == 0 and np.isnan(rouge_f1("…", "one"))


def heard(role: str, limit: int, answers: list[str], spoken: list[str], truths: list[str]) -> Any:
    split = make_split(
        {
            role: [
                {**row, "answer": answer}
                for row, answer in zip(question_rows(len(spoken), len(spoken)), answers)
            ]
        }
    )
    values = {Generations(role, limit): spoken, TruncatedAnswers(role, limit): truths}
    return with_values(observations_of(split, {}), values)


def test_an_answer_ends_at_a_blank_line_or_the_next_question() -> None:
    spoken = ["a red fox\n\nand more", "a red fox\nQuestion: who?", "a red fox Question: who?", "a red fox"]
    figure = KnowledgeMemorisation().measure(heard("knowmem", 32, ["a red fox"] * 4, spoken, [""] * 4), [])
    assert figure.per_example.tolist() == [1.0] * 4 and figure.higher_is == "more_knowledge"
    retained = KnowledgeMemorisation("kept", higher_is="better_utility").measure(
        heard("kept", 32, ["a red fox"], ["no"], [""]), []
    )
    assert retained.value == 0 and retained.higher_is == "better_utility"


def test_the_truth_is_cut_where_the_generation_is(tiny_llama: Any, tokenizer: Any) -> None:
    """A model that knows a passage by heart has an overlap of 1 at any limit; one that does not has less."""
    text = "near the harbour of Osk. Bread, salt and small lamps. Ida Morn wrote it in the town of Velin."
    split = make_split(
        {
            "verbmem": [{"prompt": "She was born ", "answer": text}],
            "other": [{"prompt": "Who wrote ", "answer": text}],
        }
    )
    learned = api.train(
        copy.deepcopy(tiny_llama),
        {"forget": split["verbmem"].rows},
        tokenizer=tokenizer,
        epochs=80,
        batch_size=1,
        lr=1e-2,
        quiet=True,
    )
    for limit in (5, 20):
        audit = VerbatimMemorisation(limit=limit)
        observations = Store().observe(learned, split, audit.requests(split), quiet=True)
        ((truth,),), (spoken,) = (
            observations[TruncatedAnswers("verbmem", limit)],
            observations[Generations("verbmem", limit)],
        )
        assert (
            truth == spoken
            and text.startswith(truth[:-1])
            and len(tokenizer(truth)["input_ids"]) <= limit
            and audit.measure(observations, []).value == 1
        )
        untrained = Artefact(tiny_llama, learned.task)
        fresh = Store().observe(untrained, split, audit.requests(split), quiet=True)
        assert audit.measure(fresh, []).value < 0.5
    assert VerbatimMemorisation().requests(make_split({"forget": question_rows(1, 1)})) == []
