"""The blocks of a slide, and other pieces of work, on a Ray cluster.

Workers exchange nothing but files, so the folders of slides and results must be the same on every machine; tissuetalk
must be installed there. A worker that is lost is started again and its block, or slide, is done again: blocks are files
that are written whole, so the second time finds what the first has left.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, Self, TypeVar

from tissuetalk.models.errors import BusyError, InvalidArgumentError, ModelUnavailableError
from tissuetalk.tools.segment.tiles import BlockSpec, run_block
from tissuetalk.tools.segment.windows import WindowSpec, run_window

Work = TypeVar("Work")
Done = TypeVar("Done")
ATTEMPTS = 4
"""How often a piece of work may lose its worker before it is given up: it may be what kills them."""
START_S = 300
_OBJECT_STORE_BYTES = 100 * 2**20
"""Files carry the data; Ray's own store holds file names only."""
_AHEAD = 3
"""Pieces handed to every worker ahead of time."""


class RayWorker:
    """One process of the pool. Model and slide stay open in it from one piece of work to the next."""

    def call(self, function: Callable[[Any], Any], work: Any) -> Any:
        return function(work)

    def pid(self) -> int:
        return os.getpid()


class Pool:
    """Workers of one kind; each piece goes to the one with least to do."""

    def __init__(self, ray: Any, workers: int, **resources: float) -> None:
        self._ray = ray
        actor = ray.remote(RayWorker).options(max_restarts=-1, max_task_retries=ATTEMPTS - 1, **resources)
        self.actors = [actor.remote() for _ in range(workers)]
        self._pending = [0] * workers
        self._references: dict[Future[Any], Any] = {}
        self._lock = Lock()

    def submit(self, function: Callable[[Work], Done], work: Work) -> Future[Done]:
        """What the function returns on a worker, or the error it raised, as if it had been raised here."""
        with self._lock:
            index = self._pending.index(min(self._pending))
            self._pending[index] += 1
        answer: Future[Done] = Future()
        answer.set_running_or_notify_cancel()

        def ended(future: Future[Any]) -> None:
            with self._lock:
                self._pending[index] -= 1
            error = future.exception()
            if error is None:
                answer.set_result(future.result())
            else:
                answer.set_exception(self._named(error))

        reference = self.actors[index].call.remote(function, work)
        reference.future().add_done_callback(ended)
        with self._lock:
            self._references[answer] = reference
        answer.add_done_callback(lambda future: self._references.pop(future, None))
        return answer

    def drop(self, answer: Future[Any]) -> None:
        """Give up a piece of work that no worker has begun; one that has begun goes on to its end."""
        if (reference := self._references.get(answer)) is not None:
            self._ray.cancel(reference)

    def _named(self, error: BaseException) -> BaseException:
        """Our own error out of Ray's wrapper; a worker lost too often is said to be lost."""
        if isinstance(error, self._ray.exceptions.RayTaskError):
            cause: BaseException = error.cause
            return cause
        if isinstance(error, self._ray.exceptions.RayError):
            return BusyError(
                f"the Ray worker was lost {ATTEMPTS} times ({type(error).__name__}); look at its memory and "
                "log, then run the same command again: finished work is kept."
            )
        return error


class Cluster(AbstractContextManager["Cluster"]):
    """A connection to Ray with a pool of workers: one per GPU where there are GPUs, else one per core.

    address: of a running cluster, or None for one on this machine that ends with the connection.
    Raises ModelUnavailableError without Ray, InvalidArgumentError when nobody answers at the address.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self._ray = ray_library()
        self._started = not self._ray.is_initialized()
        if self._started:
            _connect(self._ray, address, workers)
        self._begin(workers)

    def _begin(self, workers: int | None) -> None:
        resources = self._ray.cluster_resources()
        cores, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        if gpus:
            self.models = Pool(self._ray, workers or gpus, num_gpus=1, num_cpus=1)
            self.finishers = Pool(self._ray, max(1, cores - gpus), num_cpus=1)
        else:
            self.models = self.finishers = Pool(self._ray, workers or cores, num_cpus=1)
        self.workers = len(self.models.actors)
        first = [actor.pid.remote() for actor in self.models.actors]
        if not self._ray.wait(first, num_returns=1, timeout=START_S)[0]:
            self.__exit__()
            raise BusyError(
                f"no Ray worker could start within {START_S} s: the cluster has no free core or GPU; try again later."
            )

    def runner(self, *_: object, **__: object) -> RayRunner:
        """For one slide; the pool goes on when it is closed."""
        return RayRunner(self)

    def __exit__(self, *_: object) -> None:
        for pool in {self.models, self.finishers}:
            for actor in pool.actors:
                self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self


class RayRunner:
    """Blocks and windows of one slide on the workers of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.in_flight = _AHEAD * cluster.workers
        self._given: dict[Future[str], Pool] = {}

    def block(self, spec: BlockSpec) -> Future[str]:
        return self._give(self._cluster.models, run_block, spec)

    def window(self, spec: WindowSpec) -> Future[str]:
        return self._give(self._cluster.finishers, run_window, spec)

    def _give(self, pool: Pool, function: Callable[[Work], str], spec: Work) -> Future[str]:
        answer = pool.submit(function, spec)
        self._given[answer] = pool
        answer.add_done_callback(lambda future: self._given.pop(future, None))
        return answer

    def close(self) -> None:
        """Drop what has not begun and wait for what has; the workers are the cluster's and stay."""
        left = dict(self._given)
        for answer, pool in left.items():
            pool.drop(answer)
        wait(left)


def ray_library() -> Any:
    """Ray. Raises ModelUnavailableError with the command that installs it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about this machine leaves it
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModelUnavailableError(
            "--engine ray needs Ray, which is not installed; run: pip install 'tissuetalk[ray]', or use --engine local."
        ) from error
    return ray


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        _start_here(ray, workers or os.cpu_count() or 1, quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InvalidArgumentError(
            f"no Ray cluster answers at {address[:200]!r}; start one with `ray start --head`, or leave --ray-address out."
        ) from error


def _start_here(ray: Any, cores: int, quiet: dict[str, Any]) -> None:
    try:
        ray.init(
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            address="local",
            **quiet,
        )
    except Exception as error:  # Ray raises a bare Exception when its daemons take longer than 30 s
        ray.shutdown()
        if type(error) is not Exception:
            raise
        raise BusyError(
            "this machine is too busy to start Ray now; try again, or use --engine local."
        ) from error
