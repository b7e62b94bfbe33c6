"""Work that can be watched, stopped, and go on as a job that outlives the call that started it, and its server.

Models are heavy: a few workers, a bounded queue behind them, then ``busy``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from tissuetalk.models.control import Control
from tissuetalk.models.errors import BusyError, CancelledError, TissuetalkError
from tissuetalk.tools.answers.explained import NOTICE, ExplainResult, JobError, JobStatus, Preliminary
from tissuetalk.tools.answers.results import Answer
from tissuetalk.tools.explain.request import ExplainRequest
from tissuetalk.tools.segment.request import SegmentArguments, SegmentRequest
from tissuetalk.tools.segment.unfinished import folder_of
from tissuetalk.tools.session import Session
from tissuetalk.tools.session.results import without_masks
from tissuetalk.tools.storage.jobs import JobRow, JobStore

LOOK_EVERY_S = 0.3
OWNER = "segment"
R = TypeVar("R")


class Task(Generic[R]):
    """One piece of work: its future answer, how far it is, and a way to stop it."""

    def __init__(self) -> None:
        self.future: Future[R] = Future()
        self.done_share = 0.0
        self.doing = "waiting for a free worker"
        self._first: tuple[float, float] | None = None
        self._stop = threading.Event()
        self.control = Control(self._report, self._stop.is_set)

    def _report(self, done: float, what: str) -> None:
        self.done_share, self.doing = max(self.done_share, min(done, 1.0)), what
        if self._first is None and done > 0:
            self._first = time.monotonic(), done

    def stop(self) -> None:
        """Ask the work to end at its next safe point; a task still waiting never starts."""
        self._stop.set()

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


@dataclass(frozen=True)
class SegmentJob:
    """A segment that was understood. ``as_json`` is what a later server needs to take it up."""

    request: SegmentRequest

    @classmethod
    def read(cls, session: Session, **arguments: Any) -> SegmentJob:
        return cls(session.understand(SegmentArguments.of(**arguments)))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> SegmentJob:
        return cls(SegmentRequest.from_json(stored))

    def as_json(self) -> dict[str, Any]:
        return self.request.as_json()

    def run(self, session: Session, control: Control) -> Answer[Any]:
        return session.segment_request(self.request, control)

    def done(self, session: Session, result_id: str) -> Answer[Any]:
        return session.result(result_id)

    def pending(self, session: Session, job_id: str) -> BaseModel:
        """The answer while nothing is known: no masks yet."""
        notes = ["still running; nothing is known yet"]
        return without_masks(session, self.request, notes=notes, job_id=job_id)


@dataclass(frozen=True)
class ExplainJob:
    """An explain that was understood."""

    result_id: str
    request: ExplainRequest

    @classmethod
    def read(cls, session: Session, *, result_id: str, **question: Any) -> ExplainJob:
        return cls(result_id, session.explain_request_of(result_id, **question))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ExplainJob:
        return cls(stored["result_id"], ExplainRequest.model_validate(stored["asked"]))

    def as_json(self) -> dict[str, Any]:
        return {"result_id": self.result_id, "asked": self.request.model_dump(mode="json")}

    def run(self, session: Session, control: Control) -> Answer[Any]:
        return session.explain_request(self.result_id, self.request, control)

    def done(self, session: Session, result_id: str) -> Answer[Any]:
        return session.explanation(self.result_id, self.request)

    def pending(self, session: Session, job_id: str) -> BaseModel:
        """The answer while nothing is known: no evidence yet."""
        return ExplainResult(
            result_id=self.result_id,
            kinds=list(self.request.kinds),
            evidence=[],
            meanings=[],
            stability=[],
            provenance=[],
            overlay=None,
            notice=f"Still running; nothing is known yet. {NOTICE}",
            job_id=job_id,
        )


Job = SegmentJob | ExplainJob
VERBS: dict[str, type[SegmentJob | ExplainJob]] = {"segment": SegmentJob, "explain": ExplainJob}
"""What may go on as a job: how it is read, run, taken up again and answered."""


class Jobs:
    """The workers of one process over a session: at most ``workers`` pieces at once and ``most_waiting`` behind them."""

    def __init__(self, session: Session, workers: int = 2, most_waiting: int = 64) -> None:
        self.session = session
        self.tasks: set[Task[Any]] = set()
        """Pieces of work that have not ended."""
        self._store = JobStore(session.workspace)
        self._followers: set[threading.Thread] = set()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tissuetalk")
        self._free = threading.Semaphore(workers + most_waiting)

    def submit(self, work: Callable[[Control], R]) -> Task[R]:
        """Start or queue the work. Raises BusyError when the queue is full."""
        if not self._free.acquire(blocking=False):
            raise BusyError("too many requests are waiting; try again in a few seconds.")
        task: Task[R] = Task()
        self.tasks.add(task)

        def run() -> R:
            task.control.report(0.0, "starting")
            try:
                return work(task.control)
            finally:
                self.tasks.discard(task)
                self._free.release()

        task.future = self._pool.submit(run)
        return task

    def start(self, job: Job) -> Task[Answer[Any]]:
        return self.submit(lambda control: job.run(self.session, control))

    def close(self) -> None:
        """Stop everything; pieces that have not started are dropped. Threads that follow jobs write their last word."""
        for task in list(self.tasks):
            task.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for thread in list(self._followers):
            thread.join()

    def hand_over(self, job: Job, task: Task[Answer[Any]]) -> Answer[Any]:
        """Turn running work into a job and say so."""
        verb = next(name for name, kind in VERBS.items() if isinstance(job, kind))
        job_id = self._store.create(verb, job.as_json(), OWNER)
        self._store.claim(job_id)
        self._follow(job_id, task)
        text = f"{job_id}: still running ({task.done_share:.0%}). Call job(job_id, action='wait') for the result."
        return Answer(job.pending(self.session, job_id), text)

    def resume(self) -> list[str]:
        """Take up the jobs nobody is running. Returns their ids."""
        taken = []
        for row in self._store.unfinished():
            if self._store.claim(row.job_id):
                self._follow(row.job_id, self.start(VERBS[row.kind].from_json(row.request)))
                taken.append(row.job_id)
        return taken

    def status(self, job_id: str) -> Answer[JobStatus]:
        """How far the job is, with the result when it is done and what is known of a slide before. Raises UnknownJobError."""
        row = self._store.get(job_id)
        done = None
        if row.state == "done":
            done = VERBS[row.kind].from_json(row.request).done(self.session, row.result["result_id"])
        error = None
        if row.state == "failed":
            error = JobError(code=row.error_code or "error", message=row.error_message or "")
        early, picture = self._early(row)
        result = JobStatus(
            job_id=job_id,
            state=row.state,
            progress=row.progress,
            eta_s=row.eta_s,
            result=None if done is None else done.result,
            preliminary=early,
            error=error,
        )
        if done is not None:
            return Answer(result, f"{job_id}: done.\n{done.text}", done.picture, done.links)
        left = "" if row.eta_s is None else f", about {row.eta_s:.0f} s left"
        because = "" if error is None else f" {error.code}: {error.message}"
        lines = [f"{job_id}: {row.state}, {row.progress:.0%} done{left}.{because}"]
        if early is not None:
            lines += [f"{each.name}: {each.statement}" for each in early.findings] + [early.caveat]
        return Answer(result, "\n".join(lines), picture)

    def cancel(self, job_id: str) -> Answer[JobStatus]:
        """Ask the job to stop; one that has ended stays as it is."""
        outcome = self._store.request_cancel(job_id)
        until = time.monotonic() + 1.0
        while outcome == "requested" and not self._store.get(job_id).ended and time.monotonic() < until:
            time.sleep(0.05)
        return self.status(job_id)

    def _early(self, row: JobRow) -> tuple[Preliminary | None, bytes | None]:
        """What a slide's run has said of itself so far, in whatever process it runs."""
        if row.state != "running":
            return None, None
        from tissuetalk.tools.segment.first_look import (  # only slides need what it imports
            JSON_NAME,
            PICTURE_NAME,
        )

        folder = folder_of(self.session.workspace.folder, row.request)
        try:
            early = Preliminary.model_validate_json((folder / JSON_NAME).read_bytes())
            return early, (folder / PICTURE_NAME).read_bytes()
        except FileNotFoundError:
            return None, None

    def _follow(self, job_id: str, task: Task[Answer[Any]]) -> None:
        """Writes progress, listens for a cancel, records the end. The thread ends with the work."""

        def watch() -> None:
            while not task.future.done():
                owned = self._store.progress(job_id, task.done_share, task.eta_s(), task.doing)
                if not owned or self._store.cancel_requested(job_id):
                    task.stop()
                time.sleep(LOOK_EVERY_S)
            self._record_end(job_id, task)
            self._followers.discard(threading.current_thread())

        thread = threading.Thread(target=watch, name=f"follow {job_id}", daemon=True)
        self._followers.add(thread)
        thread.start()

    def _record_end(self, job_id: str, task: Task[Answer[Any]]) -> None:
        error = CancelledError() if task.future.cancelled() else task.future.exception()
        if error is None:
            self._store.finish(job_id, {"result_id": task.future.result().result.result_id})
        elif isinstance(error, CancelledError) and self._store.cancel_requested(job_id):
            self._store.cancelled(job_id)
        elif isinstance(error, CancelledError):
            return  # the server is closing: the job stays claimable and goes on when a server is back
        elif isinstance(error, TissuetalkError):
            self._store.fail(job_id, error.code, str(error))
        else:
            self._store.fail(job_id, "error", "the work crashed; the server's log has the details.")
