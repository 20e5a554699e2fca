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

_MB = 2**20
_RUNTIME = 250
"""MB that a run may take beside the weights."""
_VOCABULARY = 128_000
_TURNS = 3
"""How often scoring is measured: the least counts."""


def held(what: str) -> float:
    """Return MB of this process: ``VmRSS`` now, ``VmHWM`` at most since :func:`forget_the_peak`."""
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
            vocab_size=_VOCABULARY,
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

    split, start = tofu(), original()
    before = forget_the_peak()
    un.forget(start, split, method, inplace=True, max_steps=3, quiet=True)
    weights = sum(p.numel() * p.element_size() for p in start.model.parameters()) / _MB
    return {"above": peak() - before, "allowed": 3 * weights + _RUNTIME}


def audits() -> dict[str, float]:
    """Audit the tiny model on part of TOFU."""
    import unremember as un

    split, start = tofu(4), original()
    before = forget_the_peak()
    with tempfile.TemporaryDirectory() as store:
        un.audit(start, split, store=Path(store), quiet=True)
    return {"above": peak() - before, "allowed": _RUNTIME}


def npo_large() -> dict[str, float]:
    """One NPO step of 8 x 256 tokens on 100 M parameters: the whole process."""
    import unremember as un

    rows = {role: long_rows(256, 8, role) for role in ("forget", "retain")}
    un.forget(
        large(),
        rows,
        "npo",
        tokenizer=original().task.tokenizer,
        inplace=True,
        max_steps=1,
        batch_size=8,
        micro_tokens=8 * 256,
        quiet=True,
    )
    return {"above": peak()}


def scoring_large(tokens: str) -> dict[str, float]:
    """Score 8 texts of ``tokens`` tokens under a vocabulary of 128 k.

    A library may take scratch space, so the least of several runs counts.
    """
    from unremember.data.split import make_split
    from unremember.observe.kinds.token_scores import TokenScores
    from unremember.observe.store import Store
    from unremember.tasks.artefact import Artefact
    from unremember.tasks.language import LanguageTask

    model = large()
    artefact = Artefact(model, LanguageTask.of(model, original().task.tokenizer))
    split = make_split({"forget": long_rows(int(tokens), 8, "q")})
    before = forget_the_peak()
    Store().observe(artefact, split, [TokenScores("forget")], quiet=True)
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
        measured = child(*call)
        yield Figure(
            f"memory of {what} above the loaded model", measured["above"], None, measured["allowed"], "MB"
        )
    yield Figure(
        "memory of one NPO step, 100 M parameters, 128 k vocabulary",
        child("npo_large")["above"],
        None,
        6 * 1024,
        "MB",
    )
    short, long = (
        min(child("scoring_large", tokens)["above"] for _ in range(_TURNS)) for tokens in ("128", "512")
    )
    logits = 8 * (512 - 128) * _VOCABULARY * 4 / _MB
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
