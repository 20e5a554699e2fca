"""MUSE from a folder: small files made here, in both shapes, and the published ones where they are."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from unremember.benchmarks.muse import (
    MUSE,
    continuation_row,
    cut_into_pieces,
    evenly_spaced,
    few_shot_rows,
    shorten_passage,
)
from unremember.errors import ConfigError, DataError


def documents(name: str, count: int, words: int = 12) -> list[str]:
    return [" ".join(f"{name}{i}w{k}" for k in range(words)) for i in range(count)]


def questions(name: str, count: int) -> list[dict[str, str]]:
    return [{"question": f"What is {name} {i}?", "answer": f"It is {i}"} for i in range(count)]


def files() -> dict[str, list[Any]]:
    """MUSE's files, three documents each; one retained document also stands among those to forget."""
    texts = (
        "raw_forget",
        "raw_retain1",
        "privleak_forget",
        "privleak_holdout",
        "privleak_retain2",
        "sust_forget_2",
    )
    contents: dict[str, list[Any]] = {name: documents(name.replace("_", ""), 3) for name in texts}
    contents["raw_retain1"].append(contents["raw_forget"][1])
    contents["verbmem_forget"] = [{"prompt": " ".join(f"p{k}" for k in range(9)), "gt": "g0 g1 g2"}]
    for part in ("forget_qa", "retain2_qa"):
        contents[f"knowmem_{part}"], contents[f"knowmem_{part}_icl"] = (
            questions(part, 4),
            questions(f"shot {part}", 10),
        )
    return contents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Flat and gzipped."""
    for name, listed in files().items():
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(listed).encode()))
    return tmp_path


def test_the_roles_of_a_small_folder(folder: Path) -> None:
    split = MUSE(str(folder), words=5).split()
    assert {name: len(role) for name, role in split.roles.items()} == {
        "forget": 9,
        "retain": 9,
        "verbmem": 1,
        "privleak_forget": 9,
        "knowmem_retain": 4,
        "privleak_holdout": 9,
        "holdout": 9,
        "privleak_retain": 9,
        "knowmem": 4,
    }
    assert split["forget"].rows[1] == {
        "text": "rawforget0w5 rawforget0w6 rawforget0w7 rawforget0w8 rawforget0w9",
        "entity": "raw_forget 0",
    }
    assert split["forget"].groups() == ["raw_forget 0"] * 3 + ["raw_forget 1"] * 3 + ["raw_forget 2"] * 3
    assert split["privleak_forget"].rows[0]["text"].startswith("privleakforget0w0 "), "the published members"
    assert split["verbmem"].rows == [{"prompt": "p7 p8", "answer": " g0 g1 g2"}], (
        "the beginning of the prompt is what goes"
    )
    question = split["knowmem"].rows[3]
    assert question["prompt"].count("Question: ") == 11 and question["prompt"].endswith(
        "\n\nQuestion: What is forget_qa 3?\nAnswer:"
    )
    assert question["answer"] == " It is 3" and question["question"] == "What is forget_qa 3?"
    names = [(a["name"], a.get("role", a.get("members"))) for a in split.audits]
    assert names == [
        ("verbatim_memorisation", None),
        ("knowledge_memorisation", None),
        ("privleak", "privleak_forget"),
        ("membership_mink", "privleak_forget"),
        ("knowledge_memorisation", "knowmem_retain"),
    ]


def test_a_folder_a_subset_as_on_the_hub(tmp_path: Path) -> None:
    for name, listed in files().items():
        config, _, part = name.partition("_")
        (tmp_path / config).mkdir(exist_ok=True)
        rows = [{"text": row} if isinstance(row, str) else row for row in listed]
        (
            tmp_path / config / f"{part.replace('retain2', 'retain') if config != 'raw' else part}.json"
        ).write_text(json.dumps(rows))
    split = MUSE(str(tmp_path), words=5).split()
    assert (
        len(split["knowmem_retain"]) == 4 and len(split["privleak_retain"]) == 9 and len(split["forget"]) == 9
    )


def test_a_piece_of_one_word_has_nothing_to_continue(folder: Path) -> None:
    split = MUSE(str(folder), forget="sust_forget_2", words=11).split()
    assert [len(row["text"].split()) for row in split["privleak_forget"].rows] == [11, 1] * 3
    assert [len(row["answer"].split()) for row in split["verbmem"].rows] == [6] * 3


def test_another_forget_set_is_judged_by_its_own_documents(folder: Path) -> None:
    split = MUSE(str(folder), forget="sust_forget_2", words=6).split()
    assert [row["prompt"].split()[0] for row in split["verbmem"].rows] == [
        f"sustforget2{i}w{k}" for i in range(3) for k in (0, 6)
    ]
    assert split["privleak_forget"].rows == split["forget"].rows and len(split["forget"]) == 6
    assert (
        "knowmem" not in split
        and {"name": "knowledge_memorisation"} not in split.audits
        and len(split.audits) == 4
    )
    few = MUSE(str(folder), count=2, words=6).split()
    assert (
        len(few["forget"]) == 4 == len(few["privleak_forget"])
        and len(few["knowmem"]) == 2
        and len(few["verbmem"]) == 4
    )
    assert (
        len(evenly_spaced(range(250), 100)) == 100
        and evenly_spaced(range(250), 100)[:3] == [0, 2, 5]
        and evenly_spaced([1], 100) == [1]
    )


def test_the_questions_are_learned_where_asked(folder: Path) -> None:
    split = MUSE(str(folder), questions=True, shots=0, words=20).split()
    assert len(split["forget"]) == 3 + 4 and len(split["retain"]) == 3 + 4
    assert split["forget"].rows[-1]["prompt"] == "Question: What is forget_qa 3?\nAnswer:"


def test_the_streams(folder: Path) -> None:
    named = MUSE(str(folder), forget="raw_forget+sust_forget_2")
    sust, scal = named.requests("sust"), named.requests("scal")
    assert [split.name for split in sust] == ["muse raw_forget", "muse sust_forget_2"] and [
        "knowmem" in split for split in sust
    ] == [True, False]
    assert [len(split["forget"]) for split in scal] == [3, 6] and scal[1]["forget"].digest == named.split()[
        "forget"
    ].digest
    with pytest.raises(DataError, match=r"no sust_forget_1.json: name another file as data.forget"):
        MUSE(str(folder)).requests("sust")


def test_what_cannot_be_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError,
        match=r"has no raw_retain2.json: name another file .* \(its files: knowmem_forget_qa.json.gz, ",
    ):
        MUSE(str(folder), retain="raw_retain2").split()
    with pytest.raises(ConfigError, match="sust_forget_2 cannot be both forgotten and kept"):
        MUSE(str(folder), forget="raw_forget+sust_forget_2", retain="sust_forget_2").split()
    with pytest.raises(ConfigError, match="words must be above 0"):
        MUSE(str(folder), words=0)
    with pytest.raises(DataError, match=r"no folder ./nothing: give MUSE's folder or the hub name"):
        MUSE("./nothing").split()
    (folder / "raw_forget.json.gz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(DataError, match=r"raw_forget.json.gz is not a JSON array: "):
        MUSE(str(folder)).split()
    (folder / "raw_forget.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="does not hold an array of texts or of objects"):
        MUSE(str(folder)).split()
    monkeypatch.setattr(datasets, "get_dataset_split_names", fails)
    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(
        DataError,
        match=r"cannot load raw/forget of muse-bench/MUSE-News from the hub \(OSError\): download it",
    ):
        MUSE().split()


def fails(*_: Any, **__: Any) -> None:
    raise OSError("no network")


def test_the_hub_is_asked_by_subset_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    published = {
        f"{config}/{part}": rows
        for name, rows in files().items()
        for config, _, part in [name.partition("_")]
    }
    monkeypatch.setattr(
        datasets,
        "get_dataset_split_names",
        lambda path, config: [n.split("/")[1] for n in published if n.startswith(f"{config}/")],
    )

    def as_rows(rows: Any) -> list[Any]:
        return [row if isinstance(row, dict) else {"text": row} for row in rows]

    monkeypatch.setattr(
        datasets, "load_dataset", lambda path, config, split: as_rows(published[f"{config}/{split}"])
    )
    split = MUSE("muse-bench/MUSE-Books", words=5).split()
    assert len(split["forget"]) == 9 and len(split["privleak_retain"]) == 9


def test_a_cut_loses_nothing() -> None:
    text = "One  two,\n\nthree four\nfive."
    pieces = cut_into_pieces(text, 2)
    assert pieces == ["One  two,", "three four", "five."] and cut_into_pieces("", 3) == [] == cut_into_pieces(
        " \n", 3
    )
    row = continuation_row({"text": text, "entity": "e"})
    assert (
        row["prompt"] + row["answer"] == text
        and row["prompt"] == "One  two,"
        and row["answer"].startswith("\n\nthree")
    )


def test_prompt_and_answer_meet_between_tokens(tokenizer: Any) -> None:
    """Whatever stands at the seam: words, marks, line breaks."""
    text = 'She was born near the harbour. Bread, "salt" and\n\nsmall lamps, Ida Morn\'s town -- of Velin'
    rows = [continuation_row({"text": cut_into_pieces(text, n)[0], "entity": ""}) for n in range(2, 17)]
    rows += few_shot_rows([{"question": "Who?", "answer": "Ida"}], [{"question": "Where?", "answer": "Osk"}])
    rows.append(shorten_passage({"prompt": 'said "so', "gt": "'s lamp"}, 9))
    for row in rows:
        head, whole = (
            tokenizer(row["prompt"])["input_ids"],
            tokenizer(row["prompt"] + row["answer"])["input_ids"],
        )
        assert whole[: len(head)] == head and len(whole) > len(head), row


def test_the_published_news(data_folder: Path) -> None:
    path = data_folder / "muse_news"
    if not path.is_dir():
        pytest.skip(f"no {path}")
    split = MUSE(str(path), retain="sust_forget_2").split()
    assert len(set(split["forget"].groups())) == 888, "one of the 889 is blank"
    assert len(split["verbmem"]) == 100 == len(split["knowmem"]) == len(split["knowmem_retain"])
    assert max(len(row["text"].split()) for row in split["forget"].rows) == 256
    assert max(len(re.findall(r"\S+", row["prompt"] + row["answer"])) for row in split["verbmem"].rows) <= 256
    assert all(row["prompt"].count("Question: ") == 11 for row in split["knowmem"].rows)
    assert not {row["text"] for row in split["forget"].rows} & {row["text"] for row in split["retain"].rows}
    stream = MUSE(
        str(path), forget="raw_forget+sust_forget_2+sust_forget_3", retain="privleak_retain2"
    ).requests("sust")
    assert [len(set(split["forget"].groups())) for split in stream] == [888, 889, 889]
