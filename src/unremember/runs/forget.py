"""Forget: a method, with other parts in its seams, on a model and a benchmark's data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unremember import api
from unremember.errors import ConfigError
from unremember.methods.protocol import Method
from unremember.runs.config import RunConfig, check_keys, method_with_seams
from unremember.runs.folder import (
    carry_out,
    find_finished,
    input_digests,
    split_of,
    unverified_artefact,
)
from unremember.runs.lock import run_lock
from unremember.runs.record import RunRecord
from unremember.tasks.artefact import Artefact


def check_forget(config: RunConfig) -> Method:
    """Build the method of a forget run, before anything is loaded.

    Raises:
        ConfigError: There is no model, or a key or part is wrong.
    """
    if not config.model:
        raise ConfigError("forget needs --model: a model folder, a run folder or a hub name")
    check_keys(config, "forget")
    return method_with_seams(config)


def run_forget(
    config: RunConfig,
    folder: Path,
    watch: Callable[[Any, int], bool | None] | None = None,
    every: int = 0,
) -> RunRecord:
    """Forget into a run folder, or resume the run that was interrupted there.

    Args:
        config: What the run is.
        folder: The run folder.
        watch: ``watch(model, step)`` is called after ``every`` steps and ends the run by returning True.
        every: Steps between two calls of ``watch``; 0: an epoch.

    Raises:
        ConfigError: A key or part is wrong, or the folder holds another run or one that began with other
            inputs; no model is loaded then.
        DataError: The data lack what the method reads.
        RunError: Another process is at work in the folder.
        Collapsed: The loss is not finite; the run is recorded as failed.
    """
    method = check_forget(config)
    split, inputs = split_of(config.data), input_digests(config)
    if record := find_finished(folder, "forget", config, split, inputs):
        return record
    with run_lock(folder):
        start = unverified_artefact(config.model, config.template)

        def work() -> Artefact:
            return api.forget(
                start,
                split,
                method,
                folder=folder,
                watch=watch,
                every=every,
                inplace=True,
                **dataclasses.asdict(config.settings),
            )

        return carry_out(folder, "forget", config, start, split, inputs, work)
