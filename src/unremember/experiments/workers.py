"""Ray: many jobs at once, on this machine's cores or on a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib

from unremember.errors import ConfigError, RunError
from unremember.models.load import first_line
from unremember.progress import Progress

INSTALL = "a sweep runs on Ray: pip install 'unremember[cluster]'"
QUIET: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}


@dataclasses.dataclass(frozen=True)
class Workers:
    """``slots`` jobs run at once; each has a core and, where there are GPUs, one of them."""

    slots: int
    gpus: int

    def run(
        self, title: str, job: Callable[..., dict[str, Any]], shared: Any, points: Sequence[Any]
    ) -> list[dict[str, Any]]:
        """``job(shared, point)`` of every point, in their order. What a job raises is raised here; RunError where a worker died."""
        import ray

        remote, held = ray.remote(num_cpus=1, num_gpus=int(self.gpus > 0))(job), ray.put(shared)
        asked = [remote.remote(held, point) for point in points]
        found, left = {}, list(asked)
        try:
            with Progress(title, len(asked)) as progress:
                while left:
                    (done,), left = ray.wait(left)
                    found[done] = ray.get(done)
                    progress.advance(1, 0)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise RunError(
                f"a worker was lost ({first_line(error)}): what is finished is kept, the same command carries on"
            ) from error
        return [found[one] for one in asked]


@contextlib.contextmanager
def workers(address: str = "") -> Iterator[Workers]:
    """Ray started here and stopped at the end, or the cluster at ``address`` (``host:port``, or ``auto``: the one of this machine).

    Raises ConfigError where Ray is not installed or nothing answers at the address.
    """
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(INSTALL) from error
    try:
        if address:
            answers(address)
            ray.init(address, **QUIET)
        else:
            ray.init("local", num_cpus=joblib.cpu_count(), **QUIET)
    except Exception as error:
        where = f"no Ray cluster answers at {address}" if address else "Ray does not start here"
        raise ConfigError(f"{where}: {first_line(error)}") from error
    try:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        yield Workers(gpus or int(there["CPU"]), gpus)
    finally:
        ray.shutdown()


def answers(address: str) -> None:
    """Raise OSError or ValueError where nothing listens at ``host:port``: Ray itself would try for minutes."""
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()
