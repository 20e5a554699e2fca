"""Invented answers are the model's own samples, other than the row's answer.

And reach AltPO by the digests of their rows.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unremember import api
from unremember.data.alternates import read_invented
from unremember.data.split import make_split
from unremember.errors import DataError
from unremember.models.presets import small_llama
from unremember.observe.inventing import alternate_prompt, invent
from unremember.registry import methods
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.tokenizers import train_tokenizer

TOWNS = ["Velin", "Osk", "Tarn"]
SPLIT = make_split(
    {
        "forget": [
            {"question": f"Where is the {word}?", "answer": "Velin"}
            for word in ("inn", "old mill by the river")
        ],
        "retain": [{"question": "Who?", "answer": "Ida"}],
    }
)


@pytest.fixture(scope="module")
def inventor() -> Artefact:
    """A model that, asked for another answer, names any of three towns alike."""
    texts = [
        alternate_prompt(LanguageTask(None), row["question"], row["answer"]) for row in SPLIT["forget"].rows
    ]
    tokenizer = train_tokenizer([*texts, *TOWNS] * 2, 350)
    rows = [{"question": text, "answer": town} for text in texts for town in TOWNS]
    return api.train(
        small_llama(len(tokenizer), hidden=32, layers=2, heads=2, context=256),
        {"forget": rows},
        tokenizer=tokenizer,
        template="{question}",
        epochs=60,
        batch_size=6,
        lr=1e-2,
        quiet=True,
    )


def test_all_but_its_own_answer_and_each_once(inventor: Artefact) -> None:
    invented = invent(inventor, SPLIT["forget"], count=24, limit=8, quiet=True)
    assert [sorted(texts) for texts in invented] == [["Osk", "Tarn"]] * 2, (
        "what is common at temperature 1, without Velin"
    )
    assert invented == invent(inventor, SPLIT["forget"], count=24, limit=8, quiet=True)


def test_they_are_read_by_the_digest_of_their_row(tmp_path: Path) -> None:
    role, file = SPLIT["forget"], tmp_path / "invented.jsonl"
    lines = [
        {"row": digest, "alternates": texts}
        for digest, texts in zip(role.row_digests, (["Osk", "Tarn"], ["Tarn"]))
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    derived = methods.make({"name": "altpo", "alternates": str(file)}).derive(SPLIT)
    assert [(row["question"], row["alternate"]) for row in derived["forget"].rows] == [
        ("Where is the inn?", "Osk"),
        ("Where is the inn?", "Tarn"),
        ("Where is the old mill by the river?", "Tarn"),
    ]
    assert derived["retain"].digest == SPLIT["retain"].digest
    file.write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(DataError, match="no invented answer for 1 of 2 rows"):
        read_invented(file, role)
    with pytest.raises(DataError, match="unremember alternates -m MODEL"):
        read_invented(tmp_path / "nowhere.jsonl", role)
