"""Workers: results in order, errors and warnings as they are, one torch thread, one Ray session."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unremember.errors import ConfigError, DataError
from unremember.runs.workers import Workers, workers


@pytest.fixture(scope="module")
def on_ray() -> Iterator[Workers]:
    """Real Ray on one core; what is defined in this file is sent to the workers as it stands."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("joblib.cpu_count", lambda: 1)
        made = workers()
        assert made.slots == 1
        yield made
    ray.shutdown()


def job(shared: Any, kind: str) -> dict[str, Any]:
    """What a test wants of a worker."""
    if kind == "data":
        raise DataError("the role 'forget' is missing")
    if kind == "warn":
        warnings.warn("careful,\n  with this", stacklevel=1)
    return {"kind": kind, "shared": shared, "threads": torch.get_num_threads(), "process": os.getpid()}


def test_an_error_of_a_job_is_its_own_and_results_keep_their_order(on_ray: Workers) -> None:
    found = on_ray.run("jobs", job, {"a": 1}, ["x", "y", "z"])
    assert [(one["kind"], one["shared"], one["threads"]) for one in found] == [
        (kind, {"a": 1}, 1) for kind in "xyz"
    ]
    assert os.getpid() not in {one["process"] for one in found}
    with pytest.raises(DataError, match=r"^the role 'forget' is missing$"):
        on_ray.run("jobs", job, None, ["x", "data"])


def test_a_single_job_runs_in_this_process(on_ray: Workers) -> None:
    """With one thread as in a worker, and the process's own number of threads afterwards."""
    torch.set_num_threads(2)
    (found,) = on_ray.run("jobs", job, None, ["x"])
    assert (found["process"], found["threads"], torch.get_num_threads()) == (os.getpid(), 1, 2)
    assert on_ray.run("jobs", job, None, []) == []


def test_one_session_serves_all_workers_of_a_process(
    on_ray: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", None)
    assert len(workers().run("jobs", job, None, ["x", "y"])) == 2


def test_warnings_of_workers_are_a_line_each(on_ray: Workers, capsys: pytest.CaptureFixture[str]) -> None:
    on_ray.run("jobs", job, None, ["warn", "x", "warn"])
    assert capsys.readouterr().err == "note: careful, with this\n"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there(address: str) -> None:
    with pytest.raises(ConfigError, match=f"no Ray cluster answers at {address}"):
        workers(address)


LOUD = """
import warnings
from unremember.runs.workers import workers
def job(shared, number):
    warnings.warn(f"careful,\\n  number {number}")
    return {"name": str(number)}
if __name__ == "__main__":
    print([done["name"] for done in workers().run("jobs", job, None, range(3))])
"""


def test_a_worker_warns_in_one_line(tmp_path: Path) -> None:
    """From a script of one's own, whose session ends with it."""
    (tmp_path / "loud.py").write_text(LOUD)
    done = subprocess.run(
        [sys.executable, "loud.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.strip() == "['0', '1', '2']"
    heard = [line for line in done.stderr.splitlines() if "careful" in line]
    assert sorted(heard) == [f"note: careful, number {i}" for i in range(3)] and "Warning" not in done.stderr
