"""A bounded queue of work that can be watched and stopped. Models are heavy: a few workers, then `busy`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from tissuetalk.models.errors import BusyError

Progress = Callable[[float, str], None]
Stop = Callable[[], bool]

R = TypeVar("R")


class Task(Generic[R]):
    """One piece of work: its future answer, how far it is, and a way to stop it."""

    def __init__(self) -> None:
        self.future: Future[R] = Future()
        self.done_share = 0.0
        self.doing = "waiting for a free worker"
        self.started_at: float | None = None
        self._first: tuple[float, float] | None = None
        self._stop = threading.Event()

    def report(self, done: float, what: str) -> None:
        self.done_share, self.doing = max(self.done_share, min(done, 1.0)), what
        if self._first is None and done > 0:
            self._first = time.monotonic(), done

    def stop(self) -> None:
        """Ask the work to end at its next safe point; a task still waiting never starts."""
        self._stop.set()

    def stopping(self) -> bool:
        return self._stop.is_set()

    def eta_s(self) -> float | None:
        """Seconds left at the pace since the first report of progress; None before there is anything to go by.

        Work that goes on where an earlier run stopped begins well above 0: what was done then says nothing of the pace.
        """
        if self._first is None:
            return None
        since, share = self._first
        if self.done_share - share <= 0.02:
            return None
        return (time.monotonic() - since) * (1 - self.done_share) / (self.done_share - share)


class WorkQueue:
    """At most ``workers`` pieces at once and ``most_waiting`` behind them."""

    def __init__(self, workers: int = 2, most_waiting: int = 64) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tissuetalk")
        self._free = threading.Semaphore(workers + most_waiting)
        self._tasks: set[Task[object]] = set()

    def submit(self, work: Callable[[Progress, Stop], R]) -> Task[R]:
        """Start or queue the work. Raises BusyError when the queue is full."""
        if not self._free.acquire(blocking=False):
            raise BusyError("too many requests are waiting; try again in a few seconds.")
        task: Task[R] = Task()
        self._tasks.add(task)  # type: ignore[arg-type]  # a set of tasks of any answer, only used to stop them

        def run() -> R:
            task.started_at = time.monotonic()
            task.report(0.0, "starting")
            try:
                return work(task.report, task.stopping)
            finally:
                self._tasks.discard(task)
                self._free.release()

        task.future = self._pool.submit(run)
        return task

    def close(self) -> None:
        """Stop everything; pieces that have not started are dropped."""
        for task in list(self._tasks):
            task.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
