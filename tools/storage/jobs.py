"""Long work as records on disk: run once at a time, by whichever process is alive, until it has ended for good.

    queued ──claim──> running ──finish / fail / cancelled──> done / failed / cancelled
       └────────────request_cancel────────────────────────────────────────^

A running job whose worker is gone can be claimed again, unless it has taken its process with it three times; one that
is given back by a server that closes is queued again. Nothing else ever moves backwards.

Whether a worker is gone is seen by the lock it holds, and whether it is still awake by a number that grows while the
looker's own monotonic clock runs: the time of day decides nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, cast

from peewee import Database as Connection
from peewee import fn

from tissuetalk.models.errors import StateAwayError, UnknownJobError, WorkspaceFullError
from tissuetalk.tools.storage.database import JobTable, new_id, shown
from tissuetalk.tools.storage.room import forget_jobs
from tissuetalk.tools.storage.workspace import Workspace

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
CancelOutcome = Literal["cancelled", "requested", "already_ended"]

LEASE_S = 60.0
"""How long a looker sees a worker silent before it takes the job for abandoned while its process still lives."""
MOST_ATTEMPTS = 3
"""A job that was running when its process died this often is not tried again."""

_ENDED = ("done", "failed", "cancelled")
_WRITE_EVERY_S = 0.5
_WRITE_AGAIN_S = 1.0
_PATIENCE_S = 600.0
_KEEP_ENDED_S = 30 * 24 * 3600.0
_GIVEN_UP = (
    f"the server's process ended {MOST_ATTEMPTS} times while it worked on this, so it is not tried again; look at the image with "
    "view, try a smaller region or another model, and send the operator to the server's log."
)


@dataclass(frozen=True)
class JobRow:
    """A job as it is now. progress: 0..1. eta_s: seconds left, or None. attempts: how often it was started."""

    job_id: str
    kind: str
    request: dict[str, Any]
    owner: str
    state: JobState
    progress: float
    eta_s: float | None
    message: str
    result: Any
    error_code: str | None
    error_message: str | None
    cancel_requested: bool
    attempts: int
    created_at: datetime
    updated_at: datetime

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in _ENDED


class JobStore:
    """The jobs of a workspace. Two servers on one workspace share them and never run one twice at once.

    What a worker reports counts only while it holds the job: after a lost lease ``progress``, ``finish`` and
    ``fail`` return False and change nothing, and the worker should stop.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        lease_s: float = LEASE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = workspace.database
        self._owners = workspace.owners
        self._is_alive = workspace.is_alive
        self._clock = workspace.clock
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._closed = threading.Event()
        self._guard = threading.Lock()
        self._held: dict[str, int] = {}
        self._written_at: dict[str, float] = {}
        # of jobs of others: the number last seen, and when it was first seen
        self._seen: dict[str, tuple[float, float]] = {}
        with suppress(WorkspaceFullError), self._database.write() as db:
            forget_jobs(db, self._clock() - _KEEP_ENDED_S)

    def create(self, kind: str, request: Mapping[str, Any], owner: str) -> str:
        """Queue work. request: JSON values, enough to do it again after a restart. owner: who may see it."""
        job_id = new_id("job")
        now = self._clock()
        row = JobTable.insert(
            job_id=job_id, kind=kind, request=dict(request), owner=owner, created_at=now, updated_at=now
        )
        with self._database.write() as db:
            row.execute(db)
        return job_id

    def get(self, job_id: str) -> JobRow:
        """A job as it is now. Raises UnknownJobError."""
        with self._database.read() as db:
            return _row(_record(db, job_id))

    def unfinished(self) -> list[JobRow]:
        """Jobs to look after at a start: queued, or running somewhere, oldest first."""
        jobs = (
            JobTable.select().where(JobTable.state.in_(("queued", "running"))).order_by(JobTable.created_at)
        )
        with self._database.read() as db:
            return [_row(record) for record in jobs.execute(db)]

    def by_state(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        counted = JobTable.select(JobTable.state, fn.COUNT(JobTable.job_id)).group_by(JobTable.state)
        with self._database.read() as db:
            return dict(counted.tuples().execute(db))

    def is_abandoned(self, job_id: str) -> bool:
        """Whether it is running as far as its record goes, and nobody alive runs it. Raises UnknownJobError."""
        with self._database.read() as db:
            record = _record(db, job_id)
        return record.state == "running" and self._is_abandoned(record)

    def takeable(self) -> list[JobRow]:
        """The unfinished jobs that nobody alive is running, oldest first."""
        jobs = (
            JobTable.select().where(JobTable.state.in_(("queued", "running"))).order_by(JobTable.created_at)
        )
        with self._database.read() as db:
            records = list(jobs.execute(db))
        return [_row(each) for each in records if each.state == "queued" or self._is_abandoned(each)]

    def claim(self, job_id: str) -> bool:
        """Take a job to run it, now: the attempt counts. True for exactly one thread of one process. Raises UnknownJobError.

        A running job is handed over when its worker's workspace is closed or its process dead, or when it is seen silent
        for longer than the lease. It ends here when somebody has cancelled it meanwhile, or when its last attempt was
        the third that died.
        """
        with self._database.read() as db:
            before = _record(db, job_id)
        abandoned = before.state == "running" and self._is_abandoned(before)
        if before.state != "queued" and not abandoned:
            return False
        now = self._clock()
        # the beat tells whether the record is still the one that was looked at
        unchanged = (
            (JobTable.job_id == job_id) & (JobTable.state == before.state) & (JobTable.beat == before.beat)
        )
        claimed = {
            "state": "running",
            "worker": self._owners.token,
            "attempts": before.attempts + 1,
            "beat": JobTable.beat + 1,
            "updated_at": now,
        }
        with self._database.write() as db:
            ended = {"state": "cancelled"} if before.cancel_requested else None
            if before.attempts >= MOST_ATTEMPTS:
                ended = {"state": "failed", "error_code": "error", "error_message": _GIVEN_UP}
            if not JobTable.update(ended or claimed, updated_at=now).where(unchanged).execute(db) or ended:
                return False
        with self._guard:
            self._held[job_id] = before.attempts + 1
            self._written_at.pop(job_id, None)
        return True

    def release(self, job_id: str) -> bool:
        """Give a job back because the server closes in good order: it is queued again, and the attempt does not count."""
        return self._end(job_id, "queued", worker=None, attempts=JobTable.attempts - 1)

    def close(self) -> None:
        """Nobody waits any more for a full disk to take a last word."""
        self._closed.set()

    def progress(self, job_id: str, fraction: float, eta_s: float | None = None, message: str = "") -> bool:
        """Note how far it is and that the worker is awake; written at most twice a second. fraction: 0..1, never falls.

        On a full disk it is not noted; False once the job is somebody else's.
        """
        now = self._monotonic()
        with self._guard:
            if job_id not in self._held:
                return False
            if 0 <= now - self._written_at.get(job_id, -1.0) < _WRITE_EVERY_S:
                return True
            # noted before it is written: two threads that report at once make one write
            self._written_at[job_id] = now
        # the larger of what is stored and this: a late or repeated report never moves progress back
        reached = self._database.larger(JobTable.progress, min(max(fraction, 0.0), 1.0))
        try:
            return self._report(job_id, progress=reached, eta_s=eta_s, message=message)
        except (WorkspaceFullError, StateAwayError):
            return True

    def finish(self, job_id: str, result: Any) -> bool:
        """The work is done. result: JSON values. A request to cancel that came too late is overtaken."""
        return self._end(job_id, "done", progress=1.0, eta_s=0.0, result=result)

    def fail(self, job_id: str, code: str, message: str) -> bool:
        """The work ended with an error of the contract."""
        return self._end(job_id, "failed", eta_s=None, error_code=code, error_message=message)

    def cancelled(self, job_id: str, result: Any = None) -> bool:
        """The worker has stopped as asked. result: what was finished until then, as JSON values, or None."""
        return self._end(job_id, "cancelled", eta_s=None, result=result)

    def request_cancel(self, job_id: str) -> CancelOutcome:
        """Ask for an end: at once if nobody runs it, else the worker is told. Raises UnknownJobError."""
        with self._database.read() as db:
            before = _record(db, job_id)
        abandoned = before.state == "running" and self._is_abandoned(before)
        now = self._clock()
        this = JobTable.job_id == job_id
        idle = JobTable.state == "queued"
        if abandoned:
            # its worker is gone, so nobody would ever see the request
            idle |= (JobTable.state == "running") & (JobTable.attempts == before.attempts)
        with self._database.write() as db:
            ended = JobTable.update(state="cancelled", cancel_requested=True, updated_at=now).where(
                this, idle
            )
            if ended.execute(db):
                return "cancelled"
            told = JobTable.update(cancel_requested=True).where(this, JobTable.state == "running")
            return "requested" if told.execute(db) else "already_ended"

    def cancel_requested(self, job_id: str) -> bool:
        """Whether the worker should stop. Raises UnknownJobError."""
        return self.get(job_id).cancel_requested

    def _end(self, job_id: str, state: JobState, **fields: Any) -> bool:
        until = self._monotonic() + _PATIENCE_S
        while True:
            try:
                ended = self._report(job_id, state=state, **fields)
                break
            except (WorkspaceFullError, StateAwayError):
                # not said, a job that has ended would be run again; somebody may make room, or start the database
                if self._monotonic() > until or self._closed.wait(_WRITE_AGAIN_S):
                    raise
        with self._guard:
            self._held.pop(job_id, None)
            self._written_at.pop(job_id, None)
        return ended

    def _report(self, job_id: str, **fields: Any) -> bool:
        """Write to a job that is still ours, that is: running, by this workspace, in the attempt we claimed."""
        # without the attempt, a worker that lost its job and one that took it over in the same process would be one
        with self._guard:
            attempt = self._held.get(job_id)
        if attempt is None:
            return False
        ours = (
            (JobTable.job_id == job_id)
            & (JobTable.state == "running")
            & (JobTable.worker == self._owners.token)
            & (JobTable.attempts == attempt)
        )
        with self._database.write() as db:
            update = JobTable.update(updated_at=self._clock(), beat=JobTable.beat + 1, **fields).where(ours)
            return bool(update.execute(db))

    def _is_abandoned(self, record: JobTable) -> bool:
        """Whether nobody alive holds the lock of its worker, or the worker, stopped or hanging, was seen silent for the lease."""
        if not self._is_alive(cast(str, record.worker)):
            return True
        if record.worker == self._owners.token and record.job_id in self._held:
            return False
        now = self._monotonic()
        with self._guard:
            beat, since = self._seen.get(record.job_id, (None, now))
            if beat != record.beat:
                self._seen[record.job_id] = (record.beat, now)
                return False
        return now - since > self._lease_s


def _record(db: Connection, job_id: str) -> Any:
    found = JobTable.select().where(JobTable.job_id == job_id).bind(db).first()
    if found is None:
        raise UnknownJobError(
            f"there is no job {shown(job_id)}; use the job_id that came with the answer that started the work, "
            "or start the work again"
        )
    return found


def _row(record: Any) -> JobRow:
    return JobRow(**{field.name: getattr(record, field.name) for field in fields(JobRow)})
