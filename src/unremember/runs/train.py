"""Train a model: from scratch or from another, on all roles or some of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from unremember import api
from unremember.registry import selections
from unremember.runs.config import RunConfig, check_keys
from unremember.runs.folder import RunRecord, artefact_of, carry_out, find_finished, split_of
from unremember.tasks.artefact import Artefact
from unremember.tasks.untrained import untrained_model


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
    if config.model:
        start = artefact_of(config.model, config.template)
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

    return carry_out(folder, "train", config, start, split, work)
