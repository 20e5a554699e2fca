"""What a run spends on forgetting, so that samplings are compared at equal budgets only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from unremember.data.samplings import Drawn, Sampling
from unremember.errors import ConfigError

TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Budget:
    """Optimiser ``steps`` of a run, and its ``exposures``: how often a row to forget is drawn, on average."""

    steps: int
    exposures: float


def budget(sampling: Sampling, context: Drawn, steps: int) -> Budget:
    """Follow a sampling for ``steps`` steps, by its index arithmetic alone."""
    state, drawn, anchor = sampling.init(context), 0, context.roles[0]
    for _ in range(steps):
        step, state = sampling.apply(context, state)
        drawn += len(step[anchor].rows)
    return Budget(steps, drawn / len(context.keys[anchor]))


def check_budgets(budgets: Mapping[str, Budget]) -> None:
    """Raise ConfigError where two runs differ by more than a tenth of the larger in steps or in exposures."""
    if not budgets:
        return
    for figure in ("steps", "exposures"):
        spent = {name: getattr(one, figure) for name, one in budgets.items()}
        least, most = min(spent, key=spent.__getitem__), max(spent, key=spent.__getitem__)
        if spent[most] - spent[least] > TOLERANCE * spent[most]:
            raise ConfigError(
                f"unequal budgets: {most} has {spent[most]:g} {figure}, {least} {spent[least]:g}: give both the same max_steps "
                "and batch_size"
            )
