"""Peak memory: each in a child process, above what the process held once libraries and data were loaded."""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import Figure, main, original, tofu

MB = 2**20
RUNTIME = 250
VOCABULARY = 128_000
TURNS = 3
"""How often scoring is measured: the least counts."""


def held(what: str) -> float:
    """MB of this process: ``VmRSS`` now, ``VmHWM`` at most since the start or the last :func:`forget_the_peak`."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) / 1024


def forget_the_peak() -> float:
    """MB held now, from which the peak is counted anew: what loading took is not the work's."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return held("VmRSS")


def peak() -> float:
    return held("VmHWM")


def large() -> Any:
    """Random weights: 100 M parameters, of which a vocabulary of 128 k has 65 M."""
    from transformers import LlamaConfig

    from unremember.models.presets import fresh_model

    return fresh_model(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=11,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        ),
        0,
    )


def long_rows(tokens: int, rows: int, salt: str) -> list[dict[str, str]]:
    """Rows of about ``tokens`` tokens each (one a word)."""
    return [{"question": f"{salt} {i}?", "answer": " the" * (tokens - 20)} for i in range(rows)]


def forgets(method: str) -> dict[str, float]:
    """Forget on TOFU for a few steps: the tiny model, so that everything else shows."""
    import unremember as un

    split, (model, tokenizer) = tofu(), original()
    before = forget_the_peak()
    un.forget(model, split, method, tokenizer=tokenizer, max_steps=3, quiet=True)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / MB
    return {"above": peak() - before, "allowed": 3 * weights + RUNTIME}


def audits() -> dict[str, float]:
    """Audit the tiny model on part of TOFU."""
    import unremember as un
    from unremember import api

    split, (model, tokenizer) = tofu(4), original()
    before = forget_the_peak()
    with tempfile.TemporaryDirectory() as store:
        un.audit(api.Result(model, api.task_for(model, tokenizer), ""), split, store=Path(store), quiet=True)
    return {"above": peak() - before, "allowed": RUNTIME}


def npo_large() -> dict[str, float]:
    """One NPO step of 8 x 256 tokens on 100 M parameters: the whole process."""
    import unremember as un

    rows = {role: long_rows(256, 8, role) for role in ("forget", "retain")}
    un.forget(
        large(),
        rows,
        "npo",
        tokenizer=original()[1],
        max_steps=1,
        batch_size=8,
        micro_tokens=8 * 256,
        quiet=True,
    )
    return {"above": peak()}


def scoring_large(tokens: str) -> dict[str, float]:
    """Score 8 texts of ``tokens`` tokens under a vocabulary of 128 k. A library may take scratch space: the least of several runs counts."""
    from unremember import api
    from unremember.data.split import make_split
    from unremember.observe.records import Want
    from unremember.observe.store import Store

    model, tokenizer = large(), original()[1]
    split, task = make_split({"forget": long_rows(int(tokens), 8, "q")}), api.task_for(model, tokenizer)
    before = forget_the_peak()
    Store().observe(model, task, split, [Want("scores", "forget")], quiet=True)
    return {"above": peak() - before}


def child(name: str, *arguments: str) -> dict[str, float]:
    """What ``name(*arguments)`` measures in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", name, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"memory.py --child {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run(_chosen: argparse.Namespace) -> Iterator[Figure]:
    for what, call in [
        *((m, ("forgets", m)) for m in ("gradient_difference", "npo", "rmu")),
        ("audit", ("audits",)),
    ]:
        found = child(*call)
        yield Figure(f"memory of {what} above the loaded model", found["above"], None, found["allowed"], "MB")
    yield Figure(
        "memory of one NPO step, 100 M parameters, 128 k vocabulary",
        child("npo_large")["above"],
        None,
        6 * 1024,
        "MB",
    )
    short, long = (
        min(child("scoring_large", tokens)["above"] for _ in range(TURNS)) for tokens in ("128", "512")
    )
    logits = 8 * (512 - 128) * VOCABULARY * 4 / MB
    yield Figure(
        "scoring memory from 128 to 512 tokens, as a share of the logits'",
        (long - short) / logits,
        None,
        0.05,
        "",
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(globals()[sys.argv[2]](*sys.argv[3:])))
    else:
        main(__doc__, run)
