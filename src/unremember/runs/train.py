"""Train a model: from scratch or from another, on all roles or some of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from unremember import api
from unremember.registry import selections
from unremember.runs.config import RunConfig, check_keys
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
from unremember.tasks.untrained import untrained_model


def run_train(config: RunConfig, folder: Path) -> RunRecord:
    """Train into a run folder, or resume the run that was interrupted there.

    Raises:
        ConfigError: A key or part is wrong, or the folder holds another run or one that began with other
            inputs; no model is loaded then.
        DataError: A role that is named does not exist.
        RunError: Another process is at work in the folder.
    """
    check_keys(config, "train")
    selection = selections.make(config.selection or "all")
    split, inputs = split_of(config.data), input_digests(config)
    if record := find_finished(folder, "train", config, split, inputs):
        return record
    for role in (*config.without, *config.only):
        split[role]
    with run_lock(folder):
        if config.model:
            start = unverified_artefact(config.model, config.template)
        else:
            start = untrained_model(split, seed=config.settings.seed, template=config.template or None)

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

        return carry_out(folder, "train", config, start, split, inputs, work)
