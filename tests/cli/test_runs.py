"""Runs from the shell: train, forget, and what their folders hold."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from shell import WORLD, ran, run_json, shell, weights

from unremember import api
from unremember.data.split import Split, with_train_role
from unremember.engine import checkpoint, loop
from unremember.models.digest import weights_digest
from unremember.models.load import load_model
from unremember.registry import methods
from unremember.runs.config import RunConfig
from unremember.runs.folder import artefact_of, find_finished, input_digests
from unremember.runs.matched import answer_probability
from unremember.tasks.tokenizers import load_tokenizer

QUICK = ["max_steps=2", "lr=1e-3", "batch_size=8"]


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_model_from_scratch(tmp_path: Path, split: Split) -> None:
    outcome = ran("train", "-o", tmp_path / "run", WORLD, "max_steps=1")
    assert "shards" not in outcome.err + outcome.out and outcome.out == ""
    model, tokenizer = load_model(tmp_path / "run" / "model"), load_tokenizer(tmp_path / "run" / "model")
    assert model.config.vocab_size == len(tokenizer) and weights(tmp_path / "run") == weights_digest(model)
    question = split["forget"].rows[0]["question"]
    assert tokenizer.decode(tokenizer(question)["input_ids"]) == question


def test_what_a_run_folder_holds(runs: Path, tiny: Path, split: Split) -> None:
    folder = runs / "original"
    run, model = run_json(folder), load_model(folder / "model")
    assert (
        run["kind"] == "train"
        and run["config"]["data"] == {"name": "people", "count": 20}
        and run["config"]["model"] == str(tiny)
    )
    assert (
        run["config"]["settings"] | {"lr": 1e-2, "epochs": 2, "seed": 0, "batch_size": 32}
        == run["config"]["settings"]
    ), "defaults too"
    digests = run["digests"]
    assert (digests["data"], digests["start"]) == (split.digest, weights_digest(load_model(tiny)))
    assert digests["weights"] == weights_digest(model) and run["status"] == "finished" and run["schema"] == 2
    assert run["versions"].keys() >= {"python", "torch", "transformers", "unremember"} and run["seconds"] > 0
    rows = len(with_train_role(split)["train"])
    assert [row["step"] for row in log_of(folder)] == list(range(1, 2 * math.ceil(rows / 32) + 1))
    flat = checkpoint.latest_checkpoint(folder / "checkpoint")
    assert flat is not None and torch.equal(
        flat["phases/0/weights/model.norm.weight"], model.model.norm.weight
    )
    assert not list(folder.rglob("*.partial")) and not list((folder / "model").glob("*.bin"))


def test_a_folder_of_an_older_version_lacks_newer_keys(runs: Path, split: Split, tmp_path: Path) -> None:
    shutil.copytree(runs / "original", tmp_path / "run")
    run = run_json(tmp_path / "run")
    kept = run["config"].pop("only")
    for newer in ("inputs", "files"):
        del run["digests"][newer]
    (tmp_path / "run" / "SHA256SUMS").unlink()
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    config = RunConfig.model_validate(run["config"])
    inputs = input_digests(config)
    with pytest.warns(UserWarning, match="used unchecked"):
        assert kept == [] and find_finished(tmp_path / "run", "train", config, split, inputs)


def test_only_one_role_may_be_learned(runs: Path, split: Split, tmp_path: Path) -> None:
    ran(
        "train",
        "-m",
        runs / "original",
        "-o",
        tmp_path / "run",
        WORLD,
        "--only",
        "forget",
        "epochs=1",
        "batch_size=8",
    )
    assert len(log_of(tmp_path / "run")) == math.ceil(len(split["forget"]) / 8)
    line = shell(
        "train", "-m", runs / "original", "-o", tmp_path / "none", WORLD, "--only", "forgotten"
    ).refused()
    assert "forgotten" in line and not (tmp_path / "none").exists()


def test_the_oracle_never_saw_the_forget_set(runs: Path, split: Split) -> None:
    without = len(with_train_role(split, without=("forget",))["train"])
    assert without == len(with_train_role(split)["train"]) - len(split["forget"])
    assert len(log_of(runs / "oracle")) == 2 * math.ceil(without / 32)
    assert weights(runs / "oracle") != weights(runs / "original")


def test_a_finished_run_is_not_run_again(runs: Path, tiny: Path) -> None:
    words = ["train", "-m", tiny, "-o", runs / "original", WORLD, "lr=1e-2"]
    before = (runs / "original" / "model" / "model.safetensors").stat().st_mtime_ns
    assert "finished already" in ran(*words, "epochs=2").err
    assert "holds another run" in shell(*words, "epochs=3").refused()
    assert "holds another run" in shell("forget", "-m", tiny, "-o", runs / "original", WORLD).refused()
    assert (runs / "original" / "model" / "model.safetensors").stat().st_mtime_ns == before


SEAMS: list[list[str]] = [
    [],
    ["--blend", "pcgrad"],
    ["--sampling", "cyclic"],
    ["--selection", "lora", "selection.rank=2"],
    ["--blend", "pcgrad", "--sampling", "cyclic", "--selection", "layers", "selection.layers=[0]"],
]
CELLS = (
    [(name, more) for name in methods.names() for more in ([[]] if name in ("retrain", "rmu") else SEAMS[:1])]
    + [("npo", more) for more in SEAMS[1:]]
    + [("simnpo", SEAMS[4]), ("rmu", SEAMS[1]), ("dpo", SEAMS[3]), ("npo", ["--retain-loss", "kl"])]
)


@pytest.mark.parametrize(
    ("method", "seams"),
    CELLS,
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "plain",
)
def test_every_method_runs_and_equals_the_python_face(
    method: str, seams: list[str], runs: Path, split: Split, tmp_path: Path
) -> None:
    flags = [word for word in seams if "=" not in word]
    keys = [word for word in seams if "=" in word] + [f"method.reinforced={runs / 'oracle'}"] * (
        method == "whp"
    )
    ran(
        "forget",
        "-m",
        runs / "original",
        "-o",
        tmp_path / "run",
        "--method",
        method,
        *flags,
        WORLD,
        *QUICK,
        *keys,
    )
    parts: dict[str, Any] = {
        flag.removeprefix("--").replace("-", "_"): {"name": name}
        for flag, name in zip(flags[::2], flags[1::2])
    }
    parts |= {"selection": {**parts["selection"], "rank": 2}} if "selection.rank=2" in seams else {}
    parts |= {"selection": {**parts["selection"], "layers": [0]}} if "selection.layers=[0]" in seams else {}
    named = {"name": "whp", "reinforced": str(runs / "oracle" / "model")} if method == "whp" else method
    by_hand = api.forget(
        runs / "original" / "model",
        split,
        named,
        quiet=True,
        max_steps=2,
        lr=1e-3,
        batch_size=8,
        **parts,
    )
    assert (
        weights(tmp_path / "run") == by_hand.weights == weights_digest(load_model(tmp_path / "run" / "model"))
    )
    assert by_hand.weights != weights(runs / "original") and len(log_of(tmp_path / "run")) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "gradient_ascent", "--retain-loss", "kl"], "this method has none"),
        (["--method", "gu", "--blend", "pcgrad"], "blend is what makes this method what it is"),
        (["--method", "task_vector", "--blend", "sum"], "blend cannot be replaced here"),
        (["--method", "retrain", "--selection", "lora"], "selection cannot be replaced here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_seam_that_a_method_owns_or_lacks_is_refused_before_anything_is_loaded(
    words: list[str], message: str, tmp_path: Path
) -> None:
    line = shell("forget", "-m", "no/such/folder", "-o", tmp_path / "run", *words, WORLD).refused()
    assert message in line and not (tmp_path / "run").exists()


def test_a_task_vector_of_adapters_forgets(runs: Path, split: Split, tmp_path: Path) -> None:
    """It learns through the adapters and takes that step back: the forget loss rises, as without them."""
    words = ["--method", "task_vector", WORLD, "max_steps=6", "lr=1e-2", "batch_size=8"]
    before = answer_probability(artefact_of(str(runs / "original")), split)
    for name, more in (("lora", ["--selection", "lora"]), ("whole", [])):
        ran("forget", "-m", runs / "original", "-o", tmp_path / name, *more, *words)
        after = answer_probability(artefact_of(str(tmp_path / name)), split)
        assert after < before, name


def test_alternates_are_written_for_altpo(runs: Path, split: Split, tmp_path: Path) -> None:
    file = tmp_path / "alternates.jsonl"
    said = ran("alternates", "-m", runs / "original", "-o", file, "--count", "2", WORLD).out
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == split["forget"].row_digests and f"of {len(lines)} rows" in said
    assert all(len(line["alternates"]) <= 2 for line in lines) and any(line["alternates"] for line in lines)


def test_a_file_flags_and_keys_make_one_run(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"model: {runs / 'original'}\ndata: {{name: people, count: 20}}\n"
        "method: {name: npo, beta: 0.2}\nblend: {name: pcgrad}\n"
        "selection: {name: lora, rank: 2}\nmax_steps: 2\nlr: 1e-3\nbatch_size: 8\n"
    )
    ran("forget", "-c", file, "-o", tmp_path / "file")
    words = [
        "-m",
        runs / "original",
        "--blend",
        "pcgrad",
        "--selection",
        "lora",
        WORLD,
        *QUICK,
        "selection.rank=2",
    ]
    ran("forget", *words, "-o", tmp_path / "keys", "method.beta=0.2")
    ran("forget", *words, "-o", tmp_path / "other", "method.beta=0.9")
    by_file, by_keys, other = (run_json(tmp_path / name) for name in ("file", "keys", "other"))
    assert (
        by_file["digests"] == by_keys["digests"]
        and by_keys["digests"]["weights"] != other["digests"]["weights"]
    ), "the parameter reaches the loss"
    assert (
        by_file["config"]["settings"] == by_keys["config"]["settings"]
        and by_file["config"]["method"] == by_keys["config"]["method"]
    )


def test_a_forgotten_model_needs_nothing_of_ours(runs: Path, tiny: Path, tmp_path: Path) -> None:
    ran("forget", "-m", runs / "original", "-o", tmp_path / "run", "--selection", "lora", WORLD, *QUICK)
    folder = tmp_path / "run" / "model"
    ids = torch.arange(2, 12)[None]
    with torch.no_grad():
        mine = load_model(folder)(input_ids=ids).logits[0, -1, :5].tolist()
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer; f = sys.argv[1]\n"
        "m = AutoModelForCausalLM.from_pretrained(f); AutoTokenizer.from_pretrained(f)('Who?')\n"
        "torch.set_num_threads(1); ours = {'unremember', 'peft'} & set(sys.modules)\n"
        "print(m(input_ids=torch.arange(2, 12)[None]).logits[0, -1, :5].tolist(), not ours)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{mine} True"


def test_settings_reach_the_loop(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run_phases(
        model: Any, task: Any, split: Any, phases: Any, rounds: Any, settings: Any, *rest: Any
    ) -> Any:
        seen.update(dataclasses.asdict(settings))
        return model

    monkeypatch.setattr(loop, "run_phases", run_phases)
    ran(
        "forget",
        "-m",
        runs / "original",
        "-o",
        tmp_path / "run",
        WORLD,
        "lr=3e-4",
        "epochs=7",
        "seed=5",
        "clip=0.5",
        "precision=bf16",
        "warmup=0",
    )
    assert (
        seen
        | {
            "lr": 3e-4,
            "epochs": 7,
            "seed": 5,
            "clip": 0.5,
            "precision": "bf16",
            "warmup": 0.0,
            "batch_size": 32,
        }
        == seen
    )


def test_a_plan_trains_nothing_and_says_what_is_lacking(tiny: Path, tmp_path: Path) -> None:
    before = sorted(p.name for p in tiny.iterdir())
    found = ran("plan", "-m", tiny, WORLD, "--method", "npo", "epochs=2", "batch_size=8", "--json").json
    assert (
        found["steps"] == 2 * -(-found["request"]["rows"] // 8)
        and found["seconds_a_step"] > 0
        and found["advice"] in ("go", "careful", "stop")
    )
    assert found["hardness"]["steps"] == 20 and found["lacks"] == []
    shown = ran("plan", "-m", tiny, WORLD, "--method", "npo", "epochs=2", "batch_size=8").out
    assert "Plan: npo" in shown and found["advice"] in shown and "cosine" in shown
    assert sorted(p.name for p in tiny.iterdir()) == before and not list(tmp_path.iterdir())
