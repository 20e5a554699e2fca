"""YAML, flags and key=value are one configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from unremember.errors import ConfigError
from unremember.runs.config import RunConfig, part_parameters, read_config

FULL = {
    "model": "m",
    "data": {"name": "people", "count": 20},
    "method": {"name": "npo", "beta": 0.2},
    "blend": "pcgrad",
    "selection": {"name": "lora", "rank": 2},
    "lr": 1e-3,
    "epochs": 3,
}


def write(path: Path, tree: Any) -> Path:
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


def test_three_ways_to_say_the_same_run(tmp_path: Path) -> None:
    by_file = read_config(write(tmp_path / "a.yaml", FULL), {}, [])
    by_flags = read_config(
        None,
        {
            "model": "m",
            "data": "people",
            "method": "npo",
            "blend": "pcgrad",
            "selection": "lora",
            "sampling": "",
        },
        ["data.count=20", "method.beta=0.2", "selection.rank=2", "lr=1e-3", "epochs=3"],
    )
    by_keys = read_config(
        None,
        {},
        [
            "model=m",
            "data.count=20",
            "method.beta=2e-1",
            "blend=pcgrad",
            "selection={name: lora, rank: 2}",
            "settings.lr=0.001",
            "settings.epochs=3",
        ],
    )
    mixed = read_config(
        write(tmp_path / "b.yaml", {**FULL, "settings": {"epochs": 3}, "epochs": 3}),
        {"model": "m"},
        ["lr=.1e-2"],
    )
    assert by_file == by_flags == by_keys == mixed
    assert by_file.settings.lr == 1e-3 and by_file.settings.epochs == 3 and by_file.settings.seed == 0
    assert by_file.method == {"name": "npo", "beta": 0.2} and by_file.selection == {"name": "lora", "rank": 2}
    again = RunConfig.model_validate(json.loads(json.dumps(by_file.model_dump(mode="json"))))
    assert again == by_file, "run.json holds the whole configuration"


def test_the_later_word_wins(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", {"method": "dpo", "epochs": 1, "lr": 1})
    assert read_config(file, {}, []).method == "dpo"
    made = read_config(file, {"method": "npo"}, ["epochs=2", "epochs=4"])
    assert (made.method, made.settings.epochs, made.settings.lr) == ("npo", 4, 1.0)
    assert read_config(file, {"method": "npo"}, ["method=rmu"]).method == "rmu"
    assert read_config(file, {"method": "", "without": None}, []).method == "dpo", (
        "a flag that was not given says nothing"
    )


def test_a_template_is_taken_as_it_stands() -> None:
    wanted = "Q: {question}\nA:\n"
    assert read_config(None, {}, [r"template=Q: {question}\nA:\n"]).template == wanted
    assert read_config(None, {}, [r'template="Q: {question}\nA:\n"']).template == wanted


def test_a_part_of_the_default_can_be_set() -> None:
    assert read_config(None, {}, ["method.beta=0.2"]).method == {"name": "npo", "beta": 0.2}
    assert read_config(None, {}, ["data.count=5"]).data == {"name": "people", "count": 5}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["epoch=3"], "unknown key 'epoch': did you mean 'epochs'"),
        (["settings.batchsize=3"], "unknown setting 'batchsize': did you mean 'batch_size'"),
        (["methd.beta=1"], "unknown key 'methd': did you mean 'method'"),
        (["epochs=many"], "epochs: .*integer.*'many'"),
        (["epochs=2.5"], "epochs: .*2.5"),
        (["lr=fast"], "lr: .*number.*'fast'"),
        (["lr=[1, 2]"], "lr: .*number"),
        (["precision=fp8"], "precision.*fp8"),
        (["schedule=cosine"], "schedule.*cosine"),
        (["epochs=0"], "epochs must be above 0"),
        (["epochs.x=1", "epochs=3"], None),
        (["epochs=3", "epochs.x=1"], "epochs.x: epochs is 3 and has no parts"),
        (["model.x=1"], "model: .*string"),
        (["without=forget"], "without: .*list"),
        (["method=3"], "method"),
        (["lr"], "'lr' is not key=value"),
        (["lr=[1,"], "cannot read the value of lr"),
        (["settings=3"], "settings: 3 is not keys and values"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_named(keys: list[str], message: str | None) -> None:
    if message is None:
        assert read_config(None, {}, keys).settings.epochs == 3
        return
    with pytest.raises(ConfigError, match=message):
        read_config(None, {}, keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "holds a list"),
        ("a: [", "cannot read"),
        ("epoch: 3", "did you mean 'epochs'"),
        ("\xff", "cannot read"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        read_config(file, {}, [])
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path / "none.yaml", {}, [])


def test_keys_of_a_part_are_taken_out() -> None:
    found = part_parameters(["attack.steps=3", "data.count=20", "attack.bits=[8, 4]", "attack.x"], "attack")
    assert found == ({"steps": 3, "bits": [8, 4]}, ["data.count=20", "attack.x"])
