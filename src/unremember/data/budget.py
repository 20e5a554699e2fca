"""The budget of a run, so that samplings are compared only at equal budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from unremember.errors import ConfigError

_TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a run spends on forgetting.

    Args:
        steps: Its optimiser steps.
        exposures: The rows to forget that it draws; a row counts each time it is drawn.
    """

    steps: int
    exposures: int


def check_budgets(budgets: Mapping[str, Budget]) -> None:
    """Raise ConfigError where two runs differ in steps or exposures by more than a tenth of the larger."""
    if not budgets:
        return
    for figure in ("steps", "exposures"):
        spent = {name: getattr(budget, figure) for name, budget in budgets.items()}
        least, most = min(spent, key=spent.__getitem__), max(spent, key=spent.__getitem__)
        if spent[most] - spent[least] > _TOLERANCE * spent[most]:
            raise ConfigError(
                f"unequal budgets: {most} has {spent[most]:g} {figure}, {least} has {spent[least]:g}: "
                "give both the same max_steps and batch_size"
            )
