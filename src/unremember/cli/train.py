"""``train``: from scratch or from a model, with or without some roles."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from unremember import api
from unremember.cli.config import RunConfig
from unremember.cli.folder import begun, finish, finished, model_folder, split_of, template_of
from unremember.data.split import Split
from unremember.models.load import load_model, load_tokenizer
from unremember.models.presets import small_llama
from unremember.tasks.tokenizers import train_tokenizer


def tokenizer_of(split: Split) -> Any:
    """A tokenizer of at most 4,096 ids, trained on what every role asks, answers and tells."""
    rows = [row for role in split.roles.values() for row in role.rows]
    return train_tokenizer(
        [
            str(row[column])
            for row in rows
            for column in ("prompt", "question", "answer", "text")
            if row.get(column)
        ],
        4096,
    )


def train_run(config: RunConfig, out: Path) -> None:
    """Train into the run folder ``out``, or carry on there. Raises DataError for a named role that is not there."""
    if finished(out, "train", config):
        return
    split, settings = split_of(config.data), config.settings
    for role in (*config.without, *config.only):
        split[role]
    if config.model:
        folder = model_folder(config.model)
        model, tokenizer = load_model(folder), load_tokenizer(folder)
    else:
        tokenizer = tokenizer_of(split)
        model = small_llama(len(tokenizer), seed=settings.seed)
    began = time.monotonic()
    with begun(out, "train", config, model, split):
        result = api.train(
            model,
            split,
            tokenizer=tokenizer,
            without=config.without,
            only=config.only,
            template=template_of(config.template),
            folder=out,
            **dataclasses.asdict(settings),
        )
    finish(out, result, tokenizer, time.monotonic() - began)
