"""Settings of a server, and the desk that is built when a tool is first called."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tissuetalk.tools.desk import Desk
    from tissuetalk.tools.segment.settings import SlideSettings
    from tissuetalk.tools.work import WorkQueue


@dataclass(frozen=True)
class Settings:
    """What an operator decides; callers cannot change any of it.

    roots: the only folders images are read from and results saved to; roots_named: the operator typed them.
    workspace: where results live.
    patience_s: work that takes longer goes on as a job. workers: pieces of work at once.
    slides: when and how regions are worked on block by block.
    """

    roots: tuple[Path, ...]
    workspace: Path
    roots_named: bool = False
    reader: str = "rules"
    patience_s: float = 20.0
    workers: int = 2
    most_waiting: int = 64
    slides: SlideSettings | None = None


class LazyDesk:
    """Imports and builds the tools on first use, once, whatever thread asks first."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._desk: Desk | None = None
        self._queue: WorkQueue | None = None

    def desk(self) -> Desk:
        with self._lock:
            if self._desk is None:
                from tissuetalk.tools.desk import Desk
                from tissuetalk.tools.workbench import Workbench

                settings = self.settings
                bench = Workbench.at(
                    settings.roots,
                    settings.workspace,
                    reader=settings.reader,
                    roots_named=settings.roots_named,
                    slides=settings.slides,
                )
                self._desk = Desk(bench)
            return self._desk

    def queue(self) -> WorkQueue:
        with self._lock:
            if self._queue is None:
                from tissuetalk.tools.work import WorkQueue

                self._queue = WorkQueue(self.settings.workers, self.settings.most_waiting)
            return self._queue

    def _resume(self) -> None:
        from tissuetalk.tools.jobs import resume

        resume(self.desk(), self.queue())

    @asynccontextmanager
    async def lifespan(self, server: Any) -> AsyncIterator[None]:
        """Stops running work when the server goes; finished results are on disk already."""
        resuming = threading.Thread(target=self._resume, name="resume jobs", daemon=True)
        if has_unfinished_jobs(self.settings.workspace):
            resuming.start()
        try:
            yield None
        finally:
            if resuming.ident is not None:
                resuming.join()
            if self._queue is not None:
                self._queue.close()
            if self._desk is not None:
                self._desk.close()


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
