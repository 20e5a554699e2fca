"""Plan a forget run: what is known of a request before any training."""

from __future__ import annotations

from unremember.errors import ConfigError
from unremember.plan.card import PlanCard, plan
from unremember.runs.config import RunConfig, check_keys, method_with_seams
from unremember.runs.folder import artefact_of, split_of


def run_plan(config: RunConfig) -> PlanCard:
    """Return the plan of a method on a model and a benchmark's data. Nothing is changed or written.

    Raises:
        ConfigError: There is no model, or a key or part is wrong; nothing is loaded then.
    """
    if not config.model:
        raise ConfigError("plan needs --model: a model folder, a run folder or a hub name")
    check_keys(config, "forget")
    method, split = method_with_seams(config), split_of(config.data)
    artefact = artefact_of(config.model, config.template)
    return plan(artefact, split, method, config.settings, config.method_name)
