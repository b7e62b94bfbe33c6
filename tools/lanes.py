"""Queues with a few workers each, so that short questions never stand behind long work.

A task waits in one lane at a time and knows its place there. It can be withdrawn while it waits, and work that turns out
to be large moves to the lane of large work.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from tissuetalk.models.control import Control
from tissuetalk.models.errors import BusyError, CancelledError, InterruptedWorkError
from tissuetalk.models.memory import give_back

R = TypeVar("R")


SMALL_PX = 4_000_000
"""Full-resolution pixels up to which work counts as small: seconds on any machine."""
QUESTIONS_AT_ONCE = 6
GIVE_BACK_EVERY_S = 10.0


class MovedOnError(Exception):
    """Raised by work that belongs to another lane, before any of it is done. Work may see it pass, nobody else does."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane.name)
        self.lane = lane


class Task(Generic[R]):
    """One piece of work: its future answer, how far it is, its place while it waits, and a way to stop it."""

    def __init__(self, work: Callable[[Control], R], owner: str = "") -> None:
        self.work, self.owner = work, owner
        self.future: Future[R] = Future()
        self.done_share = 0.0
        self.lane: Lane | None = None
        self.waiting_since: float | None = None
        """Monotonic time at which it was queued; None once it has begun."""
        self._doing = ""
        self._first: tuple[float, float] | None = None
        self._stop = threading.Event()
        self.control = Control(self._report, self._stop.is_set, self._covers)
        self.future.set_running_or_notify_cancel()  # only ``stop`` and ``withdraw`` end it early

    @property
    def doing(self) -> str:
        place = self.place()
        return self._doing if place is None else f"place {place} in the queue"

    def place(self) -> int | None:
        """1 for the next to begin; None once it has begun."""
        return None if self.lane is None else self.lane.place_of(self)

    def _report(self, done: float, what: str) -> None:
        self.done_share, self._doing = max(self.done_share, min(done, 1.0)), what
        if self._first is None and done > 0:
            self._first = time.monotonic(), done

    def _covers(self, pixels: int) -> None:
        self.control.check()  # what was stopped must not wait behind others' slides to say so
        if pixels > SMALL_PX and self.lane is not None and self.lane.large is not None:
            raise MovedOnError(self.lane.large)

    def withdraw(self) -> bool:
        """Leave the queue. False when it has begun or ended."""
        if self.lane is None or not self.lane.withdraw(self):
            return False
        self.future.set_exception(CancelledError("stopped before it began; call again to start it."))
        return True

    def stop(self) -> None:
        """Ask the work to end at its next safe point; a task still waiting ends here."""
        self._stop.set()
        self.withdraw()

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


class Lane:
    """At most ``workers`` tasks at once and, of each owner, ``most_waiting`` behind them.

    Owners take turns: the next is whoever has fewest at work, among equals whoever was served longest ago. Tasks of one
    owner are served as they came. large: where work goes on that covers more than ``SMALL_PX``; None keeps it.
    """

    def __init__(self, name: str, workers: int, most_waiting: int, large: Lane | None = None) -> None:
        self.name, self.large = name, large
        self._workers, self._most_waiting = workers, most_waiting
        self._waiting: deque[Task[Any]] = deque()
        self._running: set[Task[Any]] = set()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self._changed = threading.Condition()
        self._turns: dict[str, int] = {}
        """When each owner was served last, as a number that grows; those with nothing here are forgotten."""

    def tasks(self, owner: str = "") -> list[Task[Any]]:
        """Everything of an owner that waits or runs."""
        with self._changed:
            return [task for task in (*self._running, *self._waiting) if task.owner == owner]

    def lengths(self) -> tuple[int, int]:
        """How many tasks are at work, and how many wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def enter(self, task: Task[Any]) -> None:
        """Begin or queue the task. Raises BusyError when too many wait."""
        with self._changed:
            if self._closed:
                raise CancelledError("the server is closing; call again when it is back.")
            free = self._workers - len(self._running)
            waiting = sum(other.owner == task.owner for other in self._waiting)
            if waiting >= self._most_waiting + free:
                raise BusyError(
                    f"{waiting} requests are waiting, more than can be queued; try again in a few seconds."
                )
            task.lane, task.waiting_since = self, time.monotonic()
            self._waiting.append(task)
            if len(self._waiting) > self._idle and len(self._threads) < self._workers:
                thread = threading.Thread(target=self._work, name=f"tissuetalk {self.name}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def place_of(self, task: Task[Any]) -> int | None:
        with self._changed:
            return self._in_turn().index(task) + 1 if task in self._waiting else None

    def withdraw(self, task: Task[Any]) -> bool:
        """Take a task out of the queue. False when it has begun."""
        with self._changed:
            if task not in self._waiting:
                return False
            self._waiting.remove(task)
            return True

    def close(self) -> None:
        """Stop everything of everybody; what has not begun is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            tasks = [*self._running, *self._waiting]
        for task in tasks:
            task.stop()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            self._do(task)
            del task  # an idle worker keeps no answer alive
            give_back(GIVE_BACK_EVERY_S)

    def _do(self, task: Task[Any]) -> None:
        try:
            try:
                answer = task.work(task.control)
            finally:
                with self._changed:
                    self._running.discard(task)
        except MovedOnError as moved:
            try:
                moved.lane.enter(task)
            except InterruptedWorkError as error:
                task.future.set_exception(error)
        except BaseException as error:  # noqa: BLE001  # whatever it was belongs to whoever waits for the answer
            task.future.set_exception(error)
        else:
            task.future.set_result(answer)

    def _next(self) -> Task[Any] | None:
        """The next task, now running; None when the lane is closed."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._idle -= 1
            if self._closed:
                return None
            task = self._in_turn()[0]
            self._waiting.remove(task)
            self._served(task.owner)
            task.waiting_since = None
            self._running.add(task)
            return task

    def _served(self, owner: str) -> None:
        here = {task.owner for task in (*self._running, *self._waiting)}
        last = max(self._turns.values(), default=0)
        self._turns = {each: turn for each, turn in self._turns.items() if each in here} | {owner: last + 1}

    def _in_turn(self) -> list[Task[Any]]:
        """Those who wait, in the order in which they will be served if nobody else comes and nothing ends."""
        if len({task.owner for task in self._waiting}) < 2:
            return list(self._waiting)
        at_work, turns = Counter(task.owner for task in self._running), dict(self._turns)
        by_owner: dict[str, deque[Task[Any]]] = {}
        for task in self._waiting:
            by_owner.setdefault(task.owner, deque()).append(task)
        order = []
        while by_owner:
            owner = min(by_owner, key=lambda each: (at_work[each], turns.get(each, 0)))
            order.append(by_owner[owner].popleft())
            at_work[owner] += 1
            turns[owner] = max(turns.values(), default=0) + 1
            if not by_owner[owner]:
                del by_owner[owner]
        return order


class Lanes:
    """The lanes of one machine, for everybody who works on it. workers: slides at once, and as many small pictures beside them."""

    def __init__(self, workers: int = 2, most_waiting: int = 64) -> None:
        self.large = Lane("large", workers, most_waiting)
        self.small = Lane("small", workers, most_waiting, large=self.large)
        self.questions = Lane("questions", QUESTIONS_AT_ONCE, most_waiting)

    @property
    def all(self) -> tuple[Lane, ...]:
        return self.questions, self.small, self.large

    def tasks(self, owner: str = "") -> list[Task[Any]]:
        """Pieces of work of an owner that have not ended."""
        return [task for lane in self.all for task in lane.tasks(owner)]

    def close(self) -> None:
        for lane in self.all:
            lane.close()
