"""What a server runs on: settings, a session and its workers that are built when a tool is first called.

Work happens off the event loop: progress while it runs, a stop when the caller cancels, a job when it takes long.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mcp.server.mcpserver import Context

from tissuetalk.models.errors import BusyError, ResourceError, StateAwayError, TissuetalkError
from tissuetalk.models.logs import CALLS
from tissuetalk.server.observing import Observing
from tissuetalk.server.tracing import stage

if TYPE_CHECKING:
    from tissuetalk.tools.answers.explained import JobStatus
    from tissuetalk.tools.answers.results import Answer
    from tissuetalk.tools.jobs import Jobs
    from tissuetalk.tools.lanes import Lanes, Task
    from tissuetalk.tools.segment.grid import SlideSettings
    from tissuetalk.tools.session import Session
    from tissuetalk.tools.storage.archives import Archive
    from tissuetalk.tools.storage.room import Keep
    from tissuetalk.tools.storage.state import State
    from tissuetalk.tools.view import Viewing

R = TypeVar("R")
RETIRE_EVERY_S = 3600.0
REPORT_AFTER_S = 1.0
REPORT_EVERY_S = 0.5
WAIT_S = 2.0
"""Longest time in a queue before the caller is told: ``busy``, or a job."""


@dataclass(frozen=True)
class Settings:
    """What an operator decides; callers cannot change any of it.

    roots: the only folders images are read from and results saved to; None for the current folder, unnamed.
    workspace: where results live. reader: of words. quota_gb: what the workspace may hold, in 10^9 bytes.
    patience_s: work that takes longer goes on as a job. workers: slides at once, and as many small pictures beside them;
    most_waiting: behind each.
    slides: when and how regions are worked on block by block. state: what several server processes share.
    archives: that may be asked for slides, and given objects.
    """

    roots: tuple[Path, ...] | None
    workspace: Path
    reader: str = "rules"
    quota_gb: float = 10
    patience_s: float = 20.0
    workers: int = 2
    most_waiting: int = 64
    slides: SlideSettings | None = None
    state: State | None = None
    archives: tuple[Archive, ...] = ()
    keep: Keep | None = None
    jobs_at_once: int | None = None


class Service:
    """One per server, or per tenant of it. Imports and builds the tools on first use, once, whatever thread asks first.

    lanes, owner: where work is queued beside that of others, under a name to take turns by. observing: is told of every call.
    """

    def __init__(
        self,
        settings: Settings,
        lanes: Lanes | None = None,
        owner: str = "",
        observing: Observing | None = None,
    ) -> None:
        self.settings, self.owner = settings, owner
        self.observing = observing or Observing()
        self._lanes = lanes
        self._own_lanes: Lanes | None = None
        self._lock = threading.Lock()
        self._jobs: Jobs | None = None
        self._viewing: Viewing | None = None
        self._closing = threading.Event()
        self._log = logging.getLogger(CALLS)
        self._door = ThreadPoolExecutor(32, thread_name_prefix="tissuetalk door")

    def jobs(self) -> Jobs:
        with self._lock:
            if self._jobs is None:
                from tissuetalk.tools.jobs import Jobs
                from tissuetalk.tools.lanes import Lanes
                from tissuetalk.tools.session import Session

                settings = self.settings
                session = Session(
                    settings.roots,
                    settings.workspace,
                    reader=settings.reader,
                    slides=settings.slides,
                    quota_bytes=int(settings.quota_gb * 10**9),
                    state=settings.state,
                    archives=settings.archives,
                    patience_s=settings.patience_s,
                )
                lanes = self._lanes
                if lanes is None:
                    lanes = self._own_lanes = Lanes(settings.workers, settings.most_waiting)
                self._jobs = Jobs(session, lanes, self.owner, settings.jobs_at_once)
            return self._jobs

    def _resume(self) -> None:
        while not self._closing.is_set():
            try:
                self.jobs().resume()
                return
            except StateAwayError:
                self._closing.wait(5.0)
            except TissuetalkError as error:  # whoever calls a tool is told more
                self._log.warning("what was left unfinished could not be taken up: %s", error.code)
                return

    def _retire(self, keep: Keep) -> None:
        """Now and every hour."""
        while not self._closing.is_set():
            try:
                for _ in self.jobs().session.workspace.retire(keep):
                    self._log.info("", extra={"tool": "retention", "outcome": "removed"})
            except TissuetalkError as error:
                self._log.warning("what is over its time could not be removed: %s", error.code)
            self._closing.wait(RETIRE_EVERY_S)

    def viewing(self) -> Viewing:
        """What pages and apps draw from."""
        session = self.jobs().session
        with self._lock:
            if self._viewing is None:
                from tissuetalk.tools.view import Viewing

                self._viewing = Viewing(session)
            return self._viewing

    @asynccontextmanager
    async def lifespan(self, server: Any) -> AsyncIterator[None]:
        """Stops running work when the server goes; finished results are on disk already."""
        resuming = threading.Thread(target=self._resume, name="resume jobs", daemon=True)
        # one of several servers looks after the jobs of the others, whether it is called or not
        if self.settings.state is not None or has_unfinished_jobs(self.settings.workspace):
            resuming.start()
        keep = self.settings.keep
        retiring = threading.Thread(target=self._retire, args=(keep,), name="retention", daemon=True)
        if keep is not None and keep.rules:
            retiring.start()
        try:
            yield None
        finally:
            self._closing.set()
            for thread in (resuming, retiring):
                if thread.ident is not None:
                    thread.join()
            if self._viewing is not None:
                self._viewing.close()
            if self._jobs is not None:
                self._jobs.close()
                if self._own_lanes is not None:
                    self._own_lanes.close()
                self._jobs.session.close()
            self._door.shutdown(wait=False)

    def begun(self) -> Jobs | None:
        """What works here, where anything was asked for yet; never starts it."""
        return self._jobs

    async def call(self, work: Callable[[Session], R], ctx: Context | None) -> R:
        """The answer, however long it takes once it has begun; ``busy`` where it would have to wait. Cancelling stops it."""
        task = await self._aside(lambda: self.jobs().ask(work))
        try:
            with stage("answer"):
                while not await _watch(task, ctx):
                    place = task.place()
                    if task.withdraw():
                        raise BusyError(
                            f"everybody is at work; this would be place {place} in the queue. Ask again in a few seconds."
                        )
                return task.future.result()
        except asyncio.CancelledError:
            task.stop()
            raise

    async def call_or_job(self, verb: str, arguments: dict[str, Any], ctx: Context) -> Answer[Any]:
        """The answer, or a job where it must wait or takes over ``patience_s``. What is wrong with the arguments is said at once."""

        def read(session: Session) -> Any:
            from tissuetalk.tools.jobs import VERBS

            return VERBS[verb].read(session, **arguments)

        with stage("understand"):
            job = await self.call(read, ctx)
        task = await self._aside(lambda: self.jobs().start(job))
        try:
            with stage("work"):
                done = await _watch(task, ctx, self.settings.patience_s)
            if done:
                return task.future.result()
            with stage("hand over"):
                return await self._aside(lambda: self.jobs().hand_over(task))
        except asyncio.CancelledError:
            task.stop()
            raise

    async def with_news(self, answer: Answer[Any]) -> Answer[Any]:
        """The answer, which also says what was removed to make room since the last one."""
        if self._jobs is None:
            return answer
        workspace = self._jobs.session.workspace
        try:
            removed = await self._aside(lambda: workspace.removed(unannounced=True))
        except (BusyError, ResourceError):
            return answer  # what was done is done, and asked for again it would be refused; a later answer has the news
        notes = [f"note: {removal}." for removal in removed]
        return replace(answer, text="\n".join([answer.text, *notes]))

    async def job(self, job_id: str, action: str, ctx: Context) -> Answer[JobStatus]:
        """``wait`` returns when the job ends, or after ``patience_s`` with how far it is."""
        jobs = await self._aside(self.jobs)
        if action == "cancel":
            return await self._aside(lambda: jobs.cancel(job_id))
        answer = await self._aside(lambda: jobs.status(job_id))
        until = time.monotonic() + (self.settings.patience_s if action == "wait" else 0)
        while answer.result.state in ("queued", "running") and time.monotonic() < until:
            await ctx.report_progress(answer.result.progress, 1.0, answer.text.split("\n", 1)[0])
            await asyncio.sleep(REPORT_EVERY_S)
            answer = await self._aside(lambda: jobs.status(job_id))
        return answer

    async def _aside(self, work: Callable[[], R]) -> R:
        """Off the event loop, on threads that nothing long ever holds."""
        return await asyncio.get_running_loop().run_in_executor(self._door, work)


async def _watch(task: Task[Any], ctx: Context | None, patience_s: float = inf) -> bool:
    """True when the work is done, False when it must wait or patience ran out; reports progress on anything over a second."""
    started = time.monotonic()
    future = asyncio.wrap_future(task.future)
    # the original future carries the answer; marking the wrapper's error as seen keeps the loop quiet
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    reported = -1.0
    while not future.done():
        now = time.monotonic()
        queued = task.waiting_since
        left = patience_s - (now - started)
        if queued is not None:
            left = min(left, WAIT_S - (now - queued))
        if left <= 0:
            return False
        await asyncio.wait({future}, timeout=min(REPORT_EVERY_S, left + 0.01))
        if ctx is not None and now - started >= REPORT_AFTER_S and task.done_share > reported:
            reported = task.done_share
            await ctx.report_progress(reported, 1.0, task.doing)
    return True


def has_unfinished_jobs(workspace: Path) -> bool:
    """Whether an earlier server left work behind; asked without importing or creating anything."""
    path = workspace / "workspace.sqlite"
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            row = database.execute(
                "SELECT 1 FROM jobs WHERE state IN ('queued', 'running') LIMIT 1"
            ).fetchone()
    except sqlite3.Error:
        return False  # what is wrong with the file is said when a tool first opens it
    return row is not None
