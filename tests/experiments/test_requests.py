"""Streams of requests: what is measured after each step, where it ends, how it resumes, and the page."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from unremember import api
from unremember.benchmarks.articles import Articles
from unremember.cli.experiment import requests_command
from unremember.data.split import Split, make_split
from unremember.engine.settings import Settings
from unremember.errors import ConfigError
from unremember.experiments import requests
from unremember.experiments.requests import Stream, check_learned, requests_of_benchmark
from unremember.experiments.requests_page import requests_page, requests_table
from unremember.models.digest import weights_digest
from unremember.models.load import load_model, save_model

AUDITS = (
    {"name": "verbatim_memorisation", "limit": 6},
    {"name": "privleak", "members": "privleak_forget", "nonmembers": "privleak_holdout"},
    {"name": "knowledge_memorisation", "role": "knowmem_retain", "limit": 6, "higher_is": "better_utility"},
)


def texts(name: str, count: int) -> list[dict[str, Any]]:
    words = ["river", "harbour", "lamps", "bread", "salt", "town", "painter", "baker", "quiet", "small"]
    said = [" ".join(words[(k * i + len(name)) % 10] for k in (1, 3, 7)) for i in range(count)]
    return [{"prompt": f"{name} {i}:", "answer": f" {text}"} for i, text in enumerate(said)]


def request(k: int) -> Split:
    mine, kept = texts(f"Velin{'abcd'[k]}", 3), texts("Osk", 6)
    return make_split(
        {
            "forget": mine,
            "retain": kept,
            "verbmem": mine,
            "knowmem_retain": kept,
            "privleak_forget": mine,
            "privleak_holdout": texts("Morn", 4),
        },
        name=f"request {k + 1}",
        audits=AUDITS,
    )


@pytest.fixture(scope="module")
def stream(tokenizer: Any, tiny_llama: Any) -> Stream:
    """Four requests of three lines each, a model that learned all of them, and one that learned the rest."""
    splits = [request(k) for k in range(4)]

    def train(rows: Any) -> Any:
        return api.train(
            tiny_llama,
            {"forget": rows},
            tokenizer=tokenizer,
            epochs=60,
            batch_size=9,
            lr=5e-3,
            quiet=True,
        )

    kept = splits[0]["retain"].rows
    whole, oracle = train([*kept, *(row for split in splits for row in split["forget"].rows)]), train(kept)
    settings = Settings(epochs=4, batch_size=3, lr=2e-3, schedule="constant", warmup=0.0)
    return Stream("few sust", splits, True, whole, (oracle,), settings)


@pytest.fixture(scope="module")
def done(stream: Stream, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Path]:
    folder = tmp_path_factory.mktemp("stream")
    return requests.run_stream(stream, "gradient_difference", folder), folder


def test_every_earlier_request_is_measured_again(done: tuple[list[Any], Path]) -> None:
    cells, folder = done
    assert [list(cell["figures"]) for cell in cells] == [
        [f"request {k + 1}" for k in range(step)] for step in (1, 2, 3, 4)
    ]
    for cell in cells:
        for figures in cell["figures"].values():
            assert set(figures) == {
                "verbatim_memorisation",
                "privleak privleak_forget",
                "knowledge_memorisation knowmem_retain",
            }
    assert cells[0]["figures"]["request 1"]["verbatim_memorisation"]["controls"]["original"] > 0.9
    assert not list(folder.glob("*/checkpoint")) and len(list(folder.glob("*/model"))) == 4, (
        "what a finished step does not need is gone"
    )


def test_restarts_end_with_the_same_weights(
    stream: Stream, done: tuple[list[Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step in a run of its own, the third stopped half-way; and what is there is read."""
    digests = [cell["digest"] for cell in done[0]]
    assert len(set(digests)) == 4
    for steps in (1, 2):
        requests.run_stream(
            dataclasses.replace(stream, requests=stream.requests[:steps]), "gradient_difference", tmp_path
        )
    held = requests.known_as_by_oracles

    def stops(*given: Any) -> Any:
        def look(artefact: Any) -> bool:
            raise KeyboardInterrupt

        return look

    monkeypatch.setattr(requests, "known_as_by_oracles", stops)
    with pytest.raises(KeyboardInterrupt):
        requests.run_stream(stream, "gradient_difference", tmp_path)
    assert len(list(tmp_path.glob("*/cell.json"))) == 2 and len(list(tmp_path.glob("*/checkpoint"))) == 1
    monkeypatch.setattr(requests, "known_as_by_oracles", held)
    cells = requests.run_stream(stream, "gradient_difference", tmp_path)
    assert [cell["digest"] for cell in cells] == digests
    (last,) = tmp_path.glob("gradient_difference-4-*/model")
    assert weights_digest(load_model(last)) == digests[3]
    monkeypatch.setattr(api, "forget", None)
    assert requests.run_stream(stream, "gradient_difference", tmp_path) == cells, "read, not run"
    with pytest.raises(TypeError):
        requests.run_stream(dataclasses.replace(stream, stops=False), "gradient_difference", tmp_path)


def test_a_step_starts_where_its_stream_says(
    stream: Stream, done: tuple[list[Any], Path], tmp_path: Path
) -> None:
    """A growing stream starts each step from the original; its first step is the sequential one's."""
    starts: list[str] = []
    real = api.forget

    def watched(model: Any, *given: Any, **named: Any) -> Any:
        starts.append(weights_digest(model.model))
        return real(model, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "forget", watched)
        cells = requests.run_stream(
            dataclasses.replace(stream, sequential=False, requests=stream.requests[:2]),
            "gradient_difference",
            tmp_path,
        )
    assert (
        starts == [stream.original.weights] * 2
        and cells[0]["digest"] == done[0][0]["digest"] != cells[1]["digest"] != done[0][1]["digest"]
    )


def test_a_step_ends_where_the_oracle_stands(stream: Stream, tmp_path: Path) -> None:
    """By its passages here, which have no questions: at most the oracle's value, or all epochs."""
    enough = requests.known_as_by_oracles(stream, stream.requests[0], tmp_path)
    assert enough(stream.oracles[0]) and not enough(stream.original)
    one = dataclasses.replace(
        stream, requests=stream.requests[:1], settings=dataclasses.replace(stream.settings, epochs=40)
    )
    (cell,) = requests.run_stream(one, "gradient_ascent", tmp_path)
    assert cell["reached"] and 1 <= cell["epochs"] < 40
    (whole,) = requests.run_stream(
        dataclasses.replace(one, stops=False, settings=dataclasses.replace(stream.settings, epochs=3)),
        "npo",
        tmp_path,
    )
    assert whole["epochs"] == 3


def test_a_collapse_is_recorded_and_ends_a_sequence(stream: Stream, tmp_path: Path) -> None:
    wild = dataclasses.replace(stream, stops=False, settings=dataclasses.replace(stream.settings, lr=1e30))
    cells = requests.run_stream(wild, "gradient_ascent", tmp_path)
    assert len(cells) == 1 and cells[0]["note"].startswith("collapsed: ") and cells[0]["figures"] == {}
    assert cells == requests.run_stream(wild, "gradient_ascent", tmp_path)
    page = requests_page(wild, [("gradient_ascent", cells)], tmp_path / "out")
    assert "| gradient_ascent | 1 |  |  | collapsed: " in page.read_text(encoding="utf-8")


def test_the_page_shows_each_request_after_each_step(
    stream: Stream, done: tuple[list[Any], Path], tmp_path: Path
) -> None:
    page = requests_page(stream, [("gradient_difference", done[0])], tmp_path)
    text = page.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| gradient_difference")]
    assert len(lines) == 1 + 2 + 3 + 4 and text.count("\n| oracle |") == text.count("\n| original |") == 4
    assert "| step | request | epochs | VerbMem | PrivLeak | KnowMem, retain |" in text
    assert "one after another" in text and (tmp_path / "requests-few-sust.png").stat().st_size > 5000


def broken(verdict: str, note: str) -> dict[str, Any]:
    row = {
        "value": 0.0,
        "controls": {"oracle": [0.2, 0.4], "original": 0.9},
        "verdict": verdict,
        "note": note,
    }
    return {"step": 1, "epochs": 2, "figures": {"a": {"verbatim_memorisation": row}}, "note": ""}


def test_a_broken_model_is_said_to_be_broken() -> None:
    cells = [
        broken("undetermined", "the model collapsed (utility 0.000): a forgetting figure says nothing"),
        broken("over-suppressed", ""),
    ]
    lines = requests_table([("npo", cells)]).splitlines()
    assert lines[2:] == [
        "| original |  | 1 |  | 0.900 |  |",
        "| oracle |  | 1 |  | 0.300 |  |",
        "| npo | 1 | 1 | 2 | 0.000 ? | the model collapsed (utility 0.000) |",
        "| npo | 1 | 1 | 2 | 0.000 ↓ |  |",
    ]


def test_the_command_writes_the_page(
    tiny_llama: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Two requests of one article each, on given models; settings that are not named are MUSE's."""
    model = copy.deepcopy(tiny_llama)
    model.config.max_position_embeddings = 512
    for name in ("original", "oracle"):
        save_model(model, tokenizer, tmp_path / name)
    monkeypatch.setattr(
        Articles,
        "requests",
        lambda self, kind: [dataclasses.replace(self, forget=f"{kind}_{k}").split() for k in (1, 2)],
    )
    given: list[Stream] = []
    monkeypatch.setattr(requests, "run_stream", lambda stream, method, folder: given.append(stream) or [])
    models = {"original": str(tmp_path / "original"), "oracle": [str(tmp_path / "oracle")]}
    requests_command(
        "articles",
        "scal",
        ["npo", "rmu"],
        **models,
        all_epochs=True,
        out=tmp_path / "out",
        work=tmp_path / "work",
        keys=["data.count=20", "epochs=1", "lr=2e-4"],
    )
    text = (tmp_path / "out" / "requests-articles-scal.md").read_text(encoding="utf-8")
    assert "ever larger, each from the original" in text and capsys.readouterr().out.strip().endswith(
        "requests-articles-scal.md"
    )
    stream = given[0]
    assert (
        len(given) == 2
        and not stream.sequential
        and not stream.stops
        and [len(split["privleak_forget"]) for split in stream.requests] == [1, 2]
    )
    assert (stream.settings.schedule, stream.settings.warmup, stream.settings.epochs, stream.settings.lr) == (
        "constant",
        0,
        1,
        2e-4,
    )
    with pytest.raises(ConfigError, match="give both --original and --oracle"):
        requests_command("articles", "sust", ["npo"], **{**models, "oracle": None})


def test_what_cannot_be_streamed_is_one_line() -> None:
    with pytest.raises(ConfigError, match="no streams of requests"):
        requests_of_benchmark(object(), "sust")
    check_learned(Articles(40).requests("sust"), Articles(40).split())
    with pytest.raises(
        ConfigError, match=r"articles sust_1 does not hold the request articles sust_2: join the files"
    ):
        check_learned(Articles(40).requests("sust"), Articles(40, "sust_1").split())
