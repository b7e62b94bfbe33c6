"""Long work as records on disk: run once at a time, by whichever process is alive, until it has ended for good.

    queued ──claim──> running ──finish / fail / cancelled──> done / failed / cancelled
       └────────────request_cancel────────────────────────────────────────^

A running job whose worker is gone can be claimed again; nothing else ever moves backwards.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, cast

from peewee import SqliteDatabase, fn

from tissuetalk.models.errors import UnknownJobError
from tissuetalk.tools.storage.database import JobTable, new_id, shown
from tissuetalk.tools.storage.workspace import Workspace

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
CancelOutcome = Literal["cancelled", "requested", "already_ended"]

LEASE_S = 60.0
"""How long a worker may be silent before its job is taken for abandoned while its process still lives."""

_ENDED = ("done", "failed", "cancelled")
_WRITE_EVERY_S = 0.5
_KEEP_ENDED_S = 30 * 24 * 3600.0


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

    def __init__(self, workspace: Workspace, *, lease_s: float = LEASE_S) -> None:
        self._database = workspace.database
        self._owners = workspace.owners
        self._clock = workspace.clock
        self._lease_s = lease_s
        self._guard = threading.Lock()
        self._held: dict[str, int] = {}
        self._written_at: dict[str, float] = {}
        with self._database.write() as db:
            long_ago = self._clock() - _KEEP_ENDED_S
            JobTable.delete().where(JobTable.state.in_(_ENDED), JobTable.updated_at < long_ago).execute(db)

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

    def takeable(self) -> list[JobRow]:
        """The unfinished jobs that nobody alive is running, oldest first."""
        with self._database.read() as db:
            records = [_record(db, row.job_id) for row in self.unfinished()]
        return [_row(each) for each in records if each.state == "queued" or self._is_abandoned(each)]

    def claim(self, job_id: str) -> bool:
        """Take a job to run it; True for exactly one thread of one process. Raises UnknownJobError.

        A running job is handed over when its worker's workspace is closed or its process dead, or when it has
        been silent for longer than the lease. One that somebody has cancelled meanwhile ends here.
        """
        with self._database.read() as db:
            before = _record(db, job_id)
        abandoned = before.state == "running" and self._is_abandoned(before)
        if before.state != "queued" and not abandoned:
            return False
        now = self._clock()
        # the attempt tells whether the record is still the one that was looked at
        unchanged = (
            (JobTable.job_id == job_id)
            & (JobTable.state == before.state)
            & (JobTable.attempts == before.attempts)
            & (JobTable.lease_until == before.lease_until)
        )
        claimed = {
            "state": "running",
            "worker": self._owners.token,
            "attempts": before.attempts + 1,
            "lease_until": now + self._lease_s,
            "updated_at": now,
        }
        with self._database.write() as db:
            ended = JobTable.update(state="cancelled", updated_at=now).where(
                unchanged, JobTable.cancel_requested
            )
            if ended.execute(db):
                return False
            if not JobTable.update(claimed).where(unchanged).execute(db):
                return False
        with self._guard:
            self._held[job_id] = before.attempts + 1
            self._written_at.pop(job_id, None)
        return True

    def progress(self, job_id: str, fraction: float, eta_s: float | None = None, message: str = "") -> bool:
        """Note how far it is and renew the lease; written at most twice a second. fraction: 0..1, never falls."""
        now = self._clock()
        with self._guard:
            if job_id not in self._held:
                return False
            if 0 <= now - self._written_at.get(job_id, -1.0) < _WRITE_EVERY_S:
                return True
            # noted before it is written: two threads that report at once make one write
            self._written_at[job_id] = now
        # the larger of what is stored and this: a late or repeated report never moves progress back
        reached = fn.MAX(JobTable.progress, min(max(fraction, 0.0), 1.0))
        lease_until = now + self._lease_s
        return self._report(job_id, progress=reached, eta_s=eta_s, message=message, lease_until=lease_until)

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
        ended = self._report(job_id, state=state, **fields)
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
            update = JobTable.update(updated_at=self._clock(), **fields).where(ours)
            return bool(update.execute(db))

    def _is_abandoned(self, record: JobTable) -> bool:
        # cheaper than asking for the lock, and it also ends a worker that hangs
        if record.lease_until <= self._clock():
            return True
        return not self._owners.is_alive(cast(str, record.worker))


def _record(db: SqliteDatabase, job_id: str) -> Any:
    found = JobTable.select().where(JobTable.job_id == job_id).bind(db).first()
    if found is None:
        raise UnknownJobError(
            f"there is no job {shown(job_id)}; use the job_id that came with the answer that started the work, "
            "or start the work again"
        )
    return found


def _row(record: Any) -> JobRow:
    return JobRow(**{field.name: getattr(record, field.name) for field in fields(JobRow)})
