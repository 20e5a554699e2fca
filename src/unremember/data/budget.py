"""What a run spends on forgetting, so that samplings are compared at equal budgets only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from unremember.errors import ConfigError

TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Budget:
    """Optimiser ``steps`` of a run, and its ``exposures``: how many rows to forget it draws, counting each time."""

    steps: int
    exposures: int


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
