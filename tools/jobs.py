"""Work that can be watched, stopped, and go on as a job that outlives the call that started it, and its server.

Models are heavy: a few workers for slides, a few for small pictures, and others for questions, each with a bounded queue
behind them, then ``busy``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from tissuetalk.models.control import Control
from tissuetalk.models.errors import (
    BusyError,
    CancelledError,
    ResourceError,
    StateAwayError,
    TissuetalkError,
)
from tissuetalk.tools.answers.explained import NOTICE, ExplainResult, JobError, JobStatus, Preliminary
from tissuetalk.tools.answers.results import Answer
from tissuetalk.tools.explain.request import ExplainRequest
from tissuetalk.tools.lanes import Lanes, MovedOnError, Task
from tissuetalk.tools.segment.request import SegmentArguments, SegmentRequest, read_as
from tissuetalk.tools.segment.unfinished import folder_of
from tissuetalk.tools.session import Session
from tissuetalk.tools.session.results import without_image, without_masks
from tissuetalk.tools.storage.jobs import MOST_ATTEMPTS, JobRow, JobStore

LOOK_EVERY_S = 0.3
LOOK_AFTER_OTHERS_S = 5.0
FEW = 4
LEFT_WAITING_S = 30.0
"""A job that waits this long in another server is begun by whoever comes to it first."""
OWNER = "segment"
R = TypeVar("R")


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

    def pending(self, session: Session, state: str, control: Control) -> BaseModel:
        """The answer while nothing is known: no masks yet. state: of the job, in words. control: of the work, stops this as well.

        How the words were read is said now: once the work is done their sentences are gone.
        """
        said = read_as(self.request.request)
        try:
            notes, now = [f"{state}; nothing is known yet"], replace(control, patience_s=0.0)
            return without_masks(session, self.request, now, notes=notes, read_as=said)
        except BusyError as error:
            return without_image({"notes": [f"{state}; {error}"], "read_as": said})


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

    def pending(self, session: Session, state: str, control: Control) -> BaseModel:
        """The answer while nothing is known: no evidence yet. state: of the job, in words."""
        return ExplainResult(
            result_id=self.result_id,
            kinds=list(self.request.kinds),
            evidence=[],
            meanings=[],
            stability=[],
            provenance=[],
            overlay=None,
            notice=f"{state.capitalize()}; nothing is known yet. {NOTICE}",
        )


Job = SegmentJob | ExplainJob
VERBS: dict[str, type[SegmentJob | ExplainJob]] = {"segment": SegmentJob, "explain": ExplainJob}
"""What may go on as a job: how it is read, run, taken up again and answered."""


class JobTask(Task[Answer[Any]]):
    """A job in a lane. job_id: of its record, once it has one; the worker that begins it claims the record first."""

    def __init__(
        self, job: Job, session: Session, store: JobStore, job_id: str | None = None, owner: str = ""
    ) -> None:
        super().__init__(self._run, owner)
        self.job, self.job_id = job, job_id
        self.claimed = False
        self._session, self._store = session, store
        self._begun = False
        self._guard = threading.Lock()

    def _run(self, control: Control) -> Answer[Any]:
        with self._guard:
            self._begun = True
            self._claim()
        control.report(0.0, "starting")
        try:
            return self.job.run(self._session, control)
        except MovedOnError:
            with self._guard:
                self._begun = False
                if self.claimed:  # nothing was begun, so no attempt is counted while it waits
                    self.claimed = not self._store.release(self.job_id or "")
            raise

    def record(self, job_id: str) -> None:
        """From now on this is the job of that record."""
        with self._guard:
            self.job_id = job_id
            if self._begun:
                self._claim()

    def goes_on(self) -> bool:
        """Says how far it is. Whether the job is still ours to do and wanted; looked at before or after a move, never within."""
        job_id = self.job_id or ""
        try:
            with self._guard:
                if not self.claimed:
                    return not self._store.get(job_id).ended
                owned = self._store.progress(job_id, self.done_share, self.eta_s(), self.doing)
            return owned and not self._store.cancel_requested(job_id)
        except (BusyError, ResourceError):  # a disk in trouble; whoever asks next is told
            return True

    def may_end(self) -> bool:
        """Whether its end is ours to write: it is claimed for that where it was given back and waits for nobody."""
        with self._guard:
            return self.claimed or self._store.claim(self.job_id or "")

    def _claim(self) -> None:
        """Raises CancelledError where somebody else has taken or ended the job while it waited."""
        if self.job_id is None or self.claimed:
            return
        if not self._store.claim(self.job_id):
            raise CancelledError(f"{self.job_id} was ended or taken up elsewhere; ask job(job_id) for it.")
        self.claimed = True


class Jobs:
    """What one process works on, over a session.

    lanes: may be shared with others, who take turns under their names (``owner``); whoever made them closes them.
    most: pieces of work that may be under way or wait; None for as many as the lanes take.
    """

    def __init__(self, session: Session, lanes: Lanes, owner: str = "", most: int | None = None) -> None:
        self.session, self.lanes, self._owner, self._most = session, lanes, owner, most
        self._entering = threading.Lock()
        self._store = JobStore(session.workspace)
        self._followers: set[threading.Thread] = set()
        self._followed: dict[str, JobTask] = {}
        self._suspects: deque[JobRow] = deque()
        self._suspect = ""
        self._closing = False
        self._guard = threading.Lock()
        self._others: threading.Thread | None = None
        self._closed = threading.Event()
        if session.workspace.workers is not None:
            self._others = threading.Thread(
                target=self._look_after_others, name="jobs of others", daemon=True
            )
            self._others.start()

    @property
    def tasks(self) -> list[Task[Any]]:
        """Pieces of work that have not ended."""
        return self.lanes.tasks(self._owner)

    def by_state(self) -> dict[str, int]:
        """How many jobs are recorded in each state."""
        return self._store.by_state()

    def ask(self, question: Callable[[Session], R]) -> Task[R]:
        """Start or queue something short. Raises BusyError when the queue is full."""
        task = Task(lambda control: question(self.session), self._owner)
        self.lanes.questions.enter(task)
        return task

    def start(self, job: Job, job_id: str | None = None) -> JobTask:
        """Start or queue a job; what turns out to be large goes on among its like. Raises BusyError when the queue is full.

        job_id: of a job that goes on, whatever ``most`` says.
        """
        task = JobTask(job, self.session, self._store, job_id, self._owner)
        with self._entering:  # two that come at once are counted one after the other
            if job_id is None and self._most is not None and self._at_work() >= self._most:
                raise BusyError(
                    f"{self._most} pieces of work are under way or waiting here, and no more are taken; try again later."
                )
            self.lanes.small.enter(task)
        return task

    def _at_work(self) -> int:
        return sum(len(lane.tasks(self._owner)) for lane in (self.lanes.small, self.lanes.large))

    def close(self) -> None:
        """Stop everything; pieces that have not started are dropped. Threads that follow jobs write their last word."""
        self._closing = True
        self._closed.set()
        if self._others is not None:
            self._others.join()
        self._store.close()
        tasks = self.tasks
        for task in tasks:
            task.stop()
        wait([task.future for task in tasks])
        for thread in list(self._followers):
            thread.join()

    def hand_over(self, task: JobTask) -> Answer[Any]:
        """Turn work into a job and say so. What is wrong with work that has not begun is raised, and it is dropped."""
        state = _state_of(task)
        try:
            pending = task.job.pending(self.session, state, task.control)
            verb = next(name for name, kind in VERBS.items() if isinstance(task.job, kind))
            job_id = self._store.create(verb, task.job.as_json(), OWNER)
        except TissuetalkError:
            task.stop()
            raise
        task.record(job_id)
        self._follow(job_id, task)
        text = f"{job_id}: {state}. Call job(job_id, action='wait') for the result."
        return Answer(pending.model_copy(update={"job_id": job_id}), text)

    def resume(self) -> list[str]:
        """Queue the jobs that nobody has finished; they are claimed when they begin. Returns their ids.

        Those on their last attempt go one at a time: one that is only ever beside a job that kills must not end with it.
        """
        return self._take_up_all(self._store.takeable())

    def _look_after_others(self) -> None:
        """Jobs whose server died, and those that have waited for one that is busy, while this one has nothing to do."""
        while not self._closed.wait(LOOK_AFTER_OTHERS_S):
            try:
                long_ago = datetime.now(UTC) - timedelta(seconds=LEFT_WAITING_S)
                at_work = len(self.tasks)
                rows = [row for row in self._store.takeable() if row.job_id not in self._followed]
                waiting = [
                    row
                    for row in rows
                    if row.state == "queued" and (row.created_at < long_ago or not at_work)
                ]
                # no more than are soon begun: they wait in the other server as well
                room = max(0, FEW - at_work)
                wanted = [row for row in rows if row.state == "running"] + waiting[:room]
                if wanted:
                    self.session.workspace.require_state()
                    self._take_up_all(wanted)
            except TissuetalkError:  # the state is away, which its heartbeat has logged
                continue

    def _take_up_all(self, rows: Sequence[JobRow]) -> list[str]:
        on_their_last = [row for row in rows if row.attempts >= MOST_ATTEMPTS - 1]
        known = {row.job_id for row in self._suspects}
        self._suspects.extend(row for row in on_their_last if row.job_id not in known)
        if self._suspect not in self._followed:
            self._next_suspect()
        taken = [row.job_id for row in on_their_last]
        for row in rows:
            if row not in on_their_last:
                if not self._take_up(row):
                    break  # the rest stays queued for the next start
                taken.append(row.job_id)
        return taken

    def _take_up(self, row: JobRow) -> bool:
        """Queue a job that nobody runs, once however many ask for it. False where the queue is full."""
        with self._guard:
            if row.job_id in self._followed:
                return True
            try:
                task = self.start(VERBS[row.kind].from_json(row.request), row.job_id)
            except BusyError:
                return False
            self._follow(row.job_id, task)
        return True

    def _next_suspect(self) -> None:
        if self._suspects and not self._closing:
            row = self._suspects.popleft()
            self._suspect = row.job_id
            self._take_up(row)

    def status(self, job_id: str) -> Answer[JobStatus]:
        """How far the job is, with the result when it is done and what is known of a slide before. Raises UnknownJobError."""
        row = self._store.get(job_id)
        if job_id not in self._followed and row not in self._suspects and self._store.is_abandoned(job_id):
            self._take_up(row)  # its server died, and this one lives
        done = None
        if row.state == "done":
            done = VERBS[row.kind].from_json(row.request).done(self.session, row.result["result_id"])
        error = None
        if row.state == "failed":
            error = JobError(code=row.error_code or "error", message=row.error_message or "")
        early, picture = self._early(row)
        task = self._followed.get(job_id)
        place = None if task is None or row.ended else task.place()
        if place is not None and row.state == "running" and not self._store.is_abandoned(job_id):
            place = None  # another server was free before this one
        state = row.state if place is None else "queued"
        result = JobStatus(
            job_id=job_id,
            state=state,
            progress=row.progress,
            eta_s=row.eta_s,
            queue_place=place,
            result=None if done is None else done.result,
            preliminary=early,
            error=error,
        )
        if done is not None:
            return Answer(result, f"{job_id}: done.\n{done.text}", done.picture, done.links)
        left = "" if row.eta_s is None else f", about {row.eta_s:.0f} s left"
        because = "" if error is None else f" {error.code}: {error.message}"
        doing = f" ({row.message})" if state == "running" and row.message else ""
        where = doing if place is None else f" at place {place}"
        lines = [f"{job_id}: {state}{where}, {row.progress:.0%} done{left}.{because}"]
        if early is not None:
            lines += [f"{each.name}: {each.statement}" for each in early.findings] + [early.caveat]
        return Answer(result, "\n".join(lines), picture)

    def cancel(self, job_id: str) -> Answer[JobStatus]:
        """Ask the job to stop; one that has ended stays as it is."""
        outcome = self._store.request_cancel(job_id)
        task = self._followed.get(job_id)
        if outcome != "already_ended" and task is not None:
            task.stop()
        # what has not begun ends at once; work ends at its next safe point
        until = time.monotonic() + (5.0 if task is not None and task.future.done() else 1.0)
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

    def _follow(self, job_id: str, task: JobTask) -> None:
        """Writes progress, listens for a cancel, records the end. The thread ends with the work."""

        def watch() -> None:
            while not task.future.done():
                if not task.goes_on():
                    task.stop()
                time.sleep(LOOK_EVERY_S)
            self._record_end(job_id, task)
            self._followed.pop(job_id, None)
            if job_id == self._suspect:
                self._next_suspect()
            self._followers.discard(threading.current_thread())

        thread = threading.Thread(target=watch, name=f"follow {job_id}", daemon=True)
        self._followed[job_id] = task
        self._followers.add(thread)
        thread.start()

    def _record_end(self, job_id: str, task: JobTask) -> None:
        """While the state is away its last word waits; where that ends the server, the job is taken up by another."""
        while not self._try_to_record_end(job_id, task):
            if self._closed.wait(LOOK_EVERY_S):
                return

    def _try_to_record_end(self, job_id: str, task: JobTask) -> bool:
        try:
            self._write_end(job_id, task)
        except StateAwayError:
            return False
        return True

    def _write_end(self, job_id: str, task: JobTask) -> None:
        error = task.future.exception()
        if error is None:
            self._store.finish(job_id, {"result_id": task.future.result().result.result_id})
        elif isinstance(error, CancelledError) and self._store.cancel_requested(job_id):
            self._store.cancelled(job_id)
        elif isinstance(error, CancelledError | StateAwayError):
            # the server is closing, or what was made could not be kept: the job goes on when a server is back, and can
            if task.claimed:
                self._store.release(job_id)
        elif not task.may_end():
            return  # somebody else has it now
        elif isinstance(error, TissuetalkError):
            self._store.fail(job_id, error.code, str(error))
        else:
            self._store.fail(job_id, "error", "the work crashed; the server's log has the details.")


def _state_of(task: JobTask) -> str:
    place = task.place()
    return f"still running ({task.done_share:.0%})" if place is None else f"queued at place {place}"
