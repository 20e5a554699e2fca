"""Jobs of the experiments run in the test's process: Ray would take seconds to start for each file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from unremember.runs.workers import Workers, alone


@pytest.fixture(autouse=True, scope="module")
def in_process() -> Iterator[Any]:
    """Run jobs here, one after another; gives what runs them on Ray.

    For a module: folders of tests are no packages, so a package's scope would last for the whole session.
    """
    on_ray = Workers.run_on_ray

    def here(self: Workers, title: str, job: Any, shared: Any, points: Any) -> list[dict[str, Any]]:
        return [alone(job, shared, point) for point in points]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "run_on_ray", here)
        yield on_ray
