"""Let a model invent other answers to the forget questions, which the method altpo reads."""

from __future__ import annotations

from pathlib import Path

from unremember.errors import ConfigError
from unremember.observe.inventing import invent, write_invented
from unremember.runs.config import RunConfig
from unremember.runs.folder import artefact_of, split_of
from unremember.tasks.language import LanguageTask


def run_alternates(
    model: str, config: RunConfig, file: Path, count: int = 5, seed: int = 0
) -> list[list[str]]:
    """Write a JSON line for each forget row, its digest and its invented answers; return the answers.

    Raises:
        ConfigError: The model is no language model.
        DataError: A forget row has no question or no answer; nothing is loaded then.
    """
    role = split_of(config.data)["forget"]
    for column in ("question", "answer"):
        role.column(column)
    artefact = artefact_of(model, config.template)
    if not isinstance(artefact.task, LanguageTask):
        raise ConfigError(f"{model} is no language model, and only those invent answers")
    answers = invent(artefact, role, count, seed=seed)
    write_invented(file, role, answers)
    return answers
