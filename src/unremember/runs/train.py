"""Train a model: from scratch or from another, on all roles or some of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from unremember import api
from unremember.data.split import Split
from unremember.errors import ConfigError
from unremember.models.presets import small_llama
from unremember.registry import selections
from unremember.runs.config import RunConfig, check_keys
from unremember.runs.folder import RunRecord, artefact_of, carry_out, find_finished, split_of
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.tokenizers import train_tokenizer

_COLUMNS = ("prompt", "question", "answer", "text")
_VOCABULARY = 4096


def run_train(config: RunConfig, folder: Path) -> RunRecord:
    """Train into a run folder, or resume the run that was interrupted there.

    Raises:
        ConfigError: A key or part is wrong, or the folder holds another run; nothing is loaded then.
        DataError: A role that is named does not exist.
    """
    check_keys(config, "train")
    selection = selections.make(config.selection or "all")
    if record := find_finished(folder, "train", config):
        return record
    split = split_of(config.data)
    for role in (*config.without, *config.only):
        split[role]
    start = (
        artefact_of(config.model, config.template) if config.model else small_language_model(split, config)
    )

    def work() -> Artefact:
        return api.train(
            start,
            split,
            without=config.without,
            only=config.only,
            selection=selection,
            folder=folder,
            inplace=True,
            **dataclasses.asdict(config.settings),
        )

    return carry_out(folder, "train", config, start, split, work)


def small_language_model(split: Split, config: RunConfig) -> Artefact:
    """Return a small language model with fresh weights and a tokenizer of the split's texts."""
    tokenizer = tokenizer_of(split)
    model = small_llama(len(tokenizer), seed=config.settings.seed)
    return Artefact(model, LanguageTask.of(model, tokenizer, config.template or None))


def tokenizer_of(split: Split) -> Any:
    """Train a tokenizer of at most 4,096 ids on the prompts, questions, answers and documents of every role.

    Raises:
        ConfigError: The split has no texts.
    """
    rows = [row for role in split.roles.values() for row in role.rows]
    texts = [str(row[column]) for row in rows for column in _COLUMNS if row.get(column)]
    if not texts:
        raise ConfigError(
            f"{split.name} has no texts, and only language models are trained from scratch: give --model"
        )
    return train_tokenizer(texts, _VOCABULARY)
