"""What a server runs on: settings, a session and its workers that are built when a tool is first called.

Work happens off the event loop: progress while it runs, a stop when the caller cancels, a job when it takes long.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mcp.server.mcpserver import Context

if TYPE_CHECKING:
    from tissuetalk.tools.answers.explained import JobStatus
    from tissuetalk.tools.answers.results import Answer
    from tissuetalk.tools.jobs import Jobs, Task
    from tissuetalk.tools.segment.grid import SlideSettings
    from tissuetalk.tools.session import Session

R = TypeVar("R")
REPORT_AFTER_S = 1.0
REPORT_EVERY_S = 0.5


@dataclass(frozen=True)
class Settings:
    """What an operator decides; callers cannot change any of it.

    roots: the only folders images are read from and results saved to; None for the current folder, unnamed.
    workspace: where results live. reader: of words.
    patience_s: work that takes longer goes on as a job. workers: pieces of work at once.
    slides: when and how regions are worked on block by block.
    """

    roots: tuple[Path, ...] | None
    workspace: Path
    reader: str = "rules"
    patience_s: float = 20.0
    workers: int = 2
    most_waiting: int = 64
    slides: SlideSettings | None = None


class Service:
    """One per server. Imports and builds the tools on first use, once, whatever thread asks first."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._jobs: Jobs | None = None

    def jobs(self) -> Jobs:
        with self._lock:
            if self._jobs is None:
                from tissuetalk.tools.jobs import Jobs
                from tissuetalk.tools.session import Session

                settings = self.settings
                session = Session(
                    settings.roots, settings.workspace, reader=settings.reader, slides=settings.slides
                )
                self._jobs = Jobs(session, settings.workers, settings.most_waiting)
            return self._jobs

    @asynccontextmanager
    async def lifespan(self, server: Any) -> AsyncIterator[None]:
        """Stops running work when the server goes; finished results are on disk already."""
        resuming = threading.Thread(target=lambda: self.jobs().resume(), name="resume jobs", daemon=True)
        if has_unfinished_jobs(self.settings.workspace):
            resuming.start()
        try:
            yield None
        finally:
            if resuming.ident is not None:
                resuming.join()
            if self._jobs is not None:
                self._jobs.close()
                self._jobs.session.close()

    async def call(self, work: Callable[[Session], R], ctx: Context | None) -> R:
        """The answer, however long it takes. Cancelling this coroutine stops the work."""
        task = await asyncio.to_thread(lambda: self.jobs().submit(lambda _: work(self.jobs().session)))
        return await self._answer(task, ctx)

    async def call_or_job(self, verb: str, arguments: dict[str, Any], ctx: Context) -> Answer[Any]:
        """The answer, or after ``patience_s`` a job that goes on. What is wrong with the arguments is said at once."""

        def read(session: Session) -> Any:
            from tissuetalk.tools.jobs import VERBS

            return VERBS[verb].read(session, **arguments)

        job = await self.call(read, ctx)
        task = await asyncio.to_thread(lambda: self.jobs().start(job))
        return await self._answer(
            task, ctx, self.settings.patience_s, lambda: self.jobs().hand_over(job, task)
        )

    async def job(self, job_id: str, action: str, ctx: Context) -> Answer[JobStatus]:
        """``wait`` returns when the job ends, or after ``patience_s`` with how far it is."""
        jobs = await asyncio.to_thread(self.jobs)
        if action == "cancel":
            return await asyncio.to_thread(jobs.cancel, job_id)
        answer = await asyncio.to_thread(jobs.status, job_id)
        until = time.monotonic() + (self.settings.patience_s if action == "wait" else 0)
        while answer.result.state in ("queued", "running") and time.monotonic() < until:
            await ctx.report_progress(answer.result.progress, 1.0, answer.text.split("\n", 1)[0])
            await asyncio.sleep(REPORT_EVERY_S)
            answer = await asyncio.to_thread(jobs.status, job_id)
        return answer

    async def _answer(
        self,
        task: Task[R],
        ctx: Context | None,
        patience_s: float | None = None,
        otherwise: Callable[[], R] | None = None,
    ) -> R:
        """What the task comes to; when patience runs out, what ``otherwise`` makes of it."""
        try:
            if await _watch(task, ctx, patience_s):
                return task.future.result()
            assert otherwise is not None, "patience ends only where there is something else to say"
            return await asyncio.to_thread(otherwise)
        except asyncio.CancelledError:
            task.stop()
            raise


async def _watch(task: Task[Any], ctx: Context | None, patience_s: float | None) -> bool:
    """True when the work is done, False when patience ran out; reports progress on anything over a second."""
    started = time.monotonic()
    future = asyncio.wrap_future(task.future)
    # the original future carries the answer; marking the wrapper's error as seen keeps the loop quiet
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    reported = -1.0
    while not future.done():
        waited = time.monotonic() - started
        if patience_s is not None and waited >= patience_s:
            return False
        left = REPORT_EVERY_S if patience_s is None else patience_s - waited + 0.01
        await asyncio.wait({future}, timeout=min(REPORT_EVERY_S, left))
        if ctx is not None and waited >= REPORT_AFTER_S and task.done_share > reported:
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
