"""``alternates``: other answers to the forget questions, invented by the model, for AltPO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unremember.cli.compare import asked, console
from unremember.cli.folder import model_folder, split_of, template_of
from unremember.models.load import load_model, load_tokenizer
from unremember.observe.inventing import invent, write_invented


def alternates_run(model: str, data: str, out: Path, count: int, seed: int, keys: Sequence[str]) -> None:
    """Write a line a forget row: its digest, and up to ``count`` invented answers."""
    config, folder = asked(data, keys), model_folder(model)
    role = split_of(config.data)["forget"]
    for column in ("question", "answer"):
        role.column(column)
    tokenizer = load_tokenizer(folder)
    found = invent(load_model(folder), tokenizer, role, template_of(config.template), count, seed=seed)
    write_invented(out, role, found)
    console.print(
        f"{sum(map(len, found))} answers for {sum(map(bool, found))} of {len(role)} rows: {out}",
        highlight=False,
    )
