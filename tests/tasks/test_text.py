"""Texts as ids: the boundary of prompt and answer is exact, nothing is cut, the end token closes each
answer once."""

from __future__ import annotations

import copy
import datetime
import json
from typing import Any

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from unremember.data.split import Role
from unremember.errors import ConfigError, DataError
from unremember.tasks.text import Template, encode_texts

ROWS = [
    {
        "question": "Who wrote the quiet river?",
        "answer": "Ida Morn wrote it.",
        "perturbed_answers": ["Bo wrote it.", "the baker did."],
    },
    {"question": "Where?", "answer": "In the town of Velin.", "perturbed_answers": ["In Osk."]},
]
ROLE = Role("forget", ROWS)
CHAT = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def with_ends(tokenizer: Any, first: str = "", last: str = "") -> Any:
    """A copy of the tokenizer that puts its own tokens around each text."""
    made = copy.deepcopy(tokenizer)
    special = [
        (token, made.convert_tokens_to_ids(token)) for token in dict.fromkeys(t for t in (first, last) if t)
    ]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}".strip(), special_tokens=special
    )
    return made


def test_prompt_and_answer_are_exact(tokenizer: Any) -> None:
    texts = encode_texts(ROLE, "answer", tokenizer, Template())
    assert texts.rows.tolist() == [0, 1] and len(texts) == 2
    for i, row in enumerate(ROWS):
        assert tokenizer.decode(texts.prompt(i)) == f"Question: {row['question']}\nAnswer:\n"
        assert tokenizer.decode(texts.answer(i)[:-1]) == row["answer"] == texts.answers[i]
        assert texts.answer(i)[-1] == tokenizer.eos_token_id
        assert (
            np.concatenate([texts.prompt(i), texts.answer(i)])
            == texts.ids[texts.offsets[i] : texts.offsets[i + 1]]
        ).all()
    assert texts.counts.tolist() == [len(texts.answer(0)), len(texts.answer(1))]
    assert texts.lengths.sum() == len(texts.ids) and texts.ids.dtype == np.int64


def test_answer_ids_are_those_the_tokenizer_gives_the_answer(tokenizer: Any) -> None:
    texts = encode_texts(ROLE, "answer", tokenizer, Template())
    assert texts.answer(0).tolist() == [*tokenizer("Ida Morn wrote it.")["input_ids"], tokenizer.eos_token_id]


def test_a_prompt_that_ends_in_a_space_is_refused(tokenizer: Any) -> None:
    role = Role("forget", [ROWS[1], {"question": "Who?", "answer": "the baker"}])
    with pytest.raises(
        DataError,
        match=r"role 'forget' row \d: the prompt's tokens are not a prefix .*"
        r"end the prompt with a line break",
    ):
        encode_texts(role, "answer", tokenizer, Template("Q: {question} A: "))


def test_a_list_column_gives_several_texts_a_row(tokenizer: Any) -> None:
    texts = encode_texts(ROLE, "perturbed_answers", tokenizer, Template())
    assert texts.rows.tolist() == [0, 0, 1] and list(texts.answers) == [
        "Bo wrote it.",
        "the baker did.",
        "In Osk.",
    ]
    assert texts.prompt(0).tolist() == texts.prompt(1).tolist() != texts.prompt(2).tolist()
    assert tokenizer.decode(texts.answer(1)[:-1]) == "the baker did."


def test_a_document_is_an_answer_to_nothing(tokenizer: Any) -> None:
    texts = encode_texts(Role("forget", [{"text": "The quiet river."}]), "text", tokenizer, Template())
    ids = [*tokenizer("The quiet river.")["input_ids"], tokenizer.eos_token_id]
    assert texts.ids.tolist() == ids and texts.starts.tolist() == [1], "nothing predicts the first token"
    assert texts.counts.tolist() == [len(ids) - 1]


def test_too_long_texts_are_counted_and_refused(tokenizer: Any) -> None:
    lengths = encode_texts(ROLE, "answer", tokenizer, Template()).lengths
    longest, other = int(lengths.max()), int(lengths.min())
    assert longest > other
    assert len(encode_texts(ROLE, "answer", tokenizer, Template(), longest)) == 2
    with pytest.raises(
        DataError,
        match=rf"1 of 2 texts \('answer' of role 'forget'\).*context of {longest - 1} tokens "
        rf"\(longest {longest}\)",
    ):
        encode_texts(ROLE, "answer", tokenizer, Template(), longest - 1)
    with pytest.raises(DataError, match="2 of 2 texts"):
        encode_texts(ROLE, "answer", tokenizer, Template(), other - 1)


@pytest.mark.parametrize(
    "ends", [("", ""), ("", "<|endoftext|>"), ("<|pad|>", ""), ("<|pad|>", "<|endoftext|>")]
)
def test_the_end_token_closes_the_answer_once(tokenizer: Any, ends: tuple[str, str]) -> None:
    first, last = ends
    tokenizer = with_ends(tokenizer, first, last) if any(ends) else tokenizer
    texts = encode_texts(ROLE, "answer", tokenizer, Template())
    for i in range(2):
        assert texts.answer(i)[-1] == 0 and (texts.answer(i)[:-1] != 0).all() and (texts.prompt(i) != 0).all()
        assert (texts.prompt(i)[0] == 1) == (first == "<|pad|>"), "the opening token belongs to the prompt"
        assert (texts.prompt(i) == 1).sum() == (first == "<|pad|>") and (texts.answer(i) != 1).all()


def test_an_answer_that_carries_the_end_token_gets_no_second(tokenizer: Any) -> None:
    texts = encode_texts(
        Role("forget", [{"question": "Who?", "answer": "Ida.<|endoftext|>"}]), "answer", tokenizer, Template()
    )
    assert (texts.answer(0) == 0).sum() == 1


def test_chat_uses_the_tokenizers_own_template(tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = CHAT
    texts = encode_texts(ROLE, "answer", tokenizer, Template("chat"))
    assert tokenizer.decode(texts.prompt(1)) == "[user] Where?\n[assistant]\n"
    assert tokenizer.decode(texts.answer(1)[:-1]) == "In the town of Velin."


def test_a_chat_template_with_its_own_opening_token_opens_once(tokenizer: Any) -> None:
    tokenizer = with_ends(tokenizer, first="<|pad|>")
    tokenizer.chat_template = "<|pad|>" + CHAT
    texts = encode_texts(ROLE, "answer", tokenizer, Template("chat"))
    assert [(texts.prompt(i) == 1).sum() for i in range(2)] == [1, 1]


def test_a_missing_column_is_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="no 'alternate' in 2 of 2 rows"):
        encode_texts(ROLE, "alternate", tokenizer, Template())


# --- the chat template and what it reads ---

DATED = (
    "{{ strftime_now('%d %b %Y') }}|{% if enable_thinking %}think|{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}|{% endfor %}"
)


@pytest.mark.parametrize(
    ("variables", "prompt"),
    [
        ({}, "01 Jan 2025|user: Where?|"),
        ({"date": "2026-03-04"}, "04 Mar 2026|user: Where?|"),
        ({"enable_thinking": True}, "01 Jan 2025|think|user: Where?|"),
        ({"system": "Be short."}, "01 Jan 2025|system: Be short.|user: Where?|"),
    ],
    ids=["as it is", "date", "thinking", "system"],
)
def test_a_chat_template_reads_recorded_variables_and_no_clock(
    variables: dict[str, Any], prompt: str, tokenizer: Any
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = DATED
    template = Template.of({"name": "chat", **variables})
    assert template.render({"question": "Where?"}, tokenizer) == prompt
    assert Template.of(json.loads(json.dumps(template.spec))) == template, "what is recorded gives it again"


def test_a_date_that_yaml_reads_is_recorded_as_text() -> None:
    assert Template.of({"name": "chat", "date": datetime.date(2026, 3, 4)}).spec == {
        "name": "chat",
        "date": "2026-03-04",
    }


@pytest.mark.parametrize(
    ("spec", "chat_template", "message"),
    [
        ({"name": "Q: {question}", "system": "x"}, None, "belong to the chat template"),
        ({"system": "x"}, None, "belong to the chat template"),
        ({"name": "chat", "tokenize": True}, DATED, r"template\.tokenize is not a variable"),
        ({"name": "chat", "date": "someday"}, DATED, "date"),
        ("chat", "{{ raise_exception('no system\nturn') }}", "cannot be rendered: no system turn"),
        ("chat", None, "cannot be rendered: Cannot use chat template"),
        ("{question.__class__}", None, "name of a column"),
        ("{question:>9}", None, "name of a column"),
        ("{question!r}", None, "name of a column"),
        ("{}", None, "name of a column"),
        ("{question", None, "double a brace"),
    ],
    ids=str,
)
def test_a_template_that_asks_for_more_is_refused(
    spec: Any, chat_template: str | None, message: str, tokenizer: Any
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = chat_template
    with pytest.raises(ConfigError, match=message) as caught:
        Template.of(spec).render({"question": "Where?"}, tokenizer)
    assert "\n" not in str(caught.value)


def test_a_template_takes_any_column_of_the_row(tokenizer: Any) -> None:
    row = {"question": "Where {does} she live?", "person": "Ida"}
    assert Template("{person}: {question} {{}}").render(row, tokenizer) == "Ida: Where {does} she live? {}"
    with pytest.raises(DataError, match="needs the column 'person'"):
        Template("{person}: {question}").render({"question": "Where?"}, tokenizer)
