"""Ray: many jobs at once, on this machine's cores or on a cluster. Sweeps and experiments share it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
import torch

from unremember.errors import ConfigError, RunError, one_line
from unremember.models.load import error_summary, silence_libraries
from unremember.progress import Progress

_INSTALL = "many jobs at once run on Ray: pip install 'unremember[cluster]'"
_QUIET: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

WorkerJob = Callable[[Any, Any], dict[str, Any]]
"""``job(shared, point) -> result``: a function of a module, whose arguments can be pickled."""


@dataclasses.dataclass(frozen=True)
class Workers:
    """Processes that run jobs, each with a core and, where there are GPUs, one of them.

    Ray starts with the first jobs, once a process, and stops with the process.

    Args:
        address: A Ray cluster, ``host:port`` or ``auto``; "" for the cores of this machine.
    """

    address: str = ""

    @property
    def slots(self) -> int:
        """How many jobs run at once."""
        return resources(self.address)[0]

    def run(self, title: str, job: WorkerJob, shared: Any, points: Sequence[Any]) -> list[dict[str, Any]]:
        """Run ``job(shared, point)`` for every point, with one torch thread each.

        A single job runs in this process, unless there is a cluster for it.

        Returns:
            The results in the order of the points.

        Raises:
            RunError: A worker died. What a job raises is raised as it is.
        """
        if len(points) < 2 and not self.address:
            return [alone(job, shared, point) for point in points]
        return self.run_on_ray(title, job, shared, points)

    def run_on_ray(
        self, title: str, job: WorkerJob, shared: Any, points: Sequence[Any]
    ) -> list[dict[str, Any]]:
        """Run the jobs on Ray and print what they warned of."""
        _, gpus = resources(self.address)
        import ray

        remote = ray.remote(num_cpus=1, num_gpus=int(gpus > 0))(in_worker)
        stored = ray.put(shared)
        futures = [remote.remote(job, stored, point) for point in points]
        done, pending = {}, list(futures)
        try:
            with Progress(title, len(futures)) as progress:
                while pending:
                    (future,), pending = ray.wait(pending)
                    done[future] = ray.get(future)
                    progress.advance(1, 0, str(done[future][0].get("name", "")))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise RunError(
                f"a worker was lost ({error_summary(error)}): finished results are kept; run it again"
            ) from error
        for line in dict.fromkeys(line for future in futures for line in done[future][1]):
            print(line, file=sys.stderr)
        return [done[future][0] for future in futures]


def workers(address: str = "") -> Workers:
    """Return the workers of this machine or of a cluster.

    Raises:
        ConfigError: Ray is not installed, or nothing answers at the address.
    """
    require_ray()
    if address:
        try:
            check_listens(address)
        except (OSError, ValueError) as error:
            raise ConfigError(f"no Ray cluster answers at {address}: {error_summary(error)}") from error
    return Workers(address)


def require_ray() -> None:
    """Raise ConfigError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(_INSTALL)


def resources(address: str) -> tuple[int, int]:
    """Return how many jobs run at once and how many GPUs there are; start Ray where it is not running yet.

    Raises:
        ConfigError: Ray cannot be started or joined.
    """
    os.environ.update(_ENVIRONMENT)
    import ray

    if not ray.is_initialized():
        try:
            if address:
                ray.init(address, **_QUIET)
            else:
                ray.init("local", num_cpus=joblib.cpu_count(), **_QUIET)
        except Exception as error:
            where = f"no Ray cluster answers at {address}" if address else "Ray does not start here"
            raise ConfigError(f"{where}: {error_summary(error)}") from error
    total = ray.cluster_resources()
    gpus = int(total.get("GPU", 0))
    return gpus or int(total["CPU"]), gpus


def check_listens(address: str) -> None:
    """Raise OSError or ValueError where nothing listens at the address: Ray itself would try for minutes."""
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()


def alone(job: WorkerJob, shared: Any, point: Any) -> dict[str, Any]:
    """Run one job in this process, as a worker would."""
    silence_libraries()
    with one_thread():
        return job(shared, point)


def in_worker(job: WorkerJob, shared: Any, point: Any) -> tuple[dict[str, Any], list[str]]:
    """Run one job in a worker; return its result and its warnings, a line each."""
    with warnings.catch_warnings(record=True) as caught:
        result = alone(job, shared, point)
    return result, [f"note: {one_line(warning.message)}" for warning in caught]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Give torch one thread within the block: their number changes a model's last bits, and its digest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
