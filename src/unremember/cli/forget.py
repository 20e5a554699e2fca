"""``forget``: a method, and what stands in its seams, on a model and a benchmark's data."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from unremember import api
from unremember.cli.config import RunConfig
from unremember.cli.folder import begun, finish, finished, model_folder, split_of, template_of
from unremember.engine.loop import Watch
from unremember.errors import ConfigError
from unremember.models.load import load_model, load_tokenizer
from unremember.models.presets import fresh
from unremember.registry import ALL, methods


def check_parts(config: RunConfig) -> None:
    """Raise ConfigError for a part that is unknown, or that its parameters do not fit: before anything is loaded."""
    if not config.model:
        raise ConfigError("forget needs --model: a model folder, a run folder or a hub name")
    methods.make(config.method)
    for seam, kind in (
        ("blend", "blends"),
        ("sampling", "samplings"),
        ("selection", "selections"),
        ("retain", "losses"),
    ):
        if part := getattr(config, seam):
            ALL[kind].make(part)


def forget_run(config: RunConfig, out: Path, watch: Watch | None = None, every: int = 0) -> None:
    """Forget into the run folder ``out``, or carry on there. ``watch`` may end the run, looking after ``every`` steps (0: every epoch)."""
    check_parts(config)
    if finished(out, "forget", config):
        return
    split, folder = split_of(config.data), model_folder(config.model)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    name = config.method if isinstance(config.method, str) else config.method["name"]
    if methods.entry(name).facts.get("fresh"):
        model, split = fresh(model.config, config.settings.seed), api.learned(split, without=("forget",))
    began = time.monotonic()
    with begun(out, "forget", config, model, split):
        result = api.forget(
            model,
            split,
            config.method,
            tokenizer=tokenizer,
            blend=config.blend,
            sampling=config.sampling,
            selection=config.selection,
            retain=config.retain,
            template=template_of(config.template),
            folder=out,
            watch=watch,
            every=every,
            **dataclasses.asdict(config.settings),
        )
    finish(out, result, tokenizer, time.monotonic() - began)
