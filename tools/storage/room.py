"""The quota: what counts, what may be taken away to make room, and the note that says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from peewee import Database as Connection
from peewee import Value

from tissuetalk.tools.storage.database import JobTable, RemovalTable, ResultTable, UploadTable

GB: Final = 10**9
KEEP_S: Final = 24 * 3600.0
"""What was used or made within a day is never removed for space."""
_KEEP_NOTES_S = 30 * 24 * 3600.0


@dataclass(frozen=True)
class StoredFile:
    """A finished result or an upload: ``name`` in the folder ``kind`` of the workspace."""

    kind: Literal["results", "images"]
    name: str


@dataclass(frozen=True)
class Keep:
    """How long what nobody uses is kept, in seconds; None for as long as there is room. Of jobs only those that have ended."""

    results_s: float | None = None
    uploads_s: float | None = None
    jobs_s: float | None = None

    @property
    def rules(self) -> bool:
        return any(each is not None for each in (self.results_s, self.uploads_s, self.jobs_s))

    def over(self, kind: str, unused_s: float) -> bool:
        most = self.results_s if kind == "results" else self.uploads_s
        return most is not None and unused_s >= most


@dataclass(frozen=True)
class Removal:
    """A result or upload that was taken away, to make room or because of its age."""

    name: str
    size_bytes: int
    removed_at: datetime
    last_used: datetime
    because: str = "to make room"

    def __str__(self) -> str:
        what = self.name if self.name.startswith("res_") else f"the upload {self.name[:12]}…"
        return (
            f"{what} ({self.size_bytes / 1e6:.1f} MB, last used {self.last_used:%Y-%m-%d}) was removed on "
            f"{self.removed_at:%Y-%m-%d %H:%M} UTC {self.because}"
        )


def oldest_first(db: Connection) -> list[tuple[StoredFile, int, float]]:
    """Every result and upload, the least recently used first, with its size in bytes and when it was last used."""
    results = ResultTable.select(
        ResultTable.last_used, Value("results"), ResultTable.result_id, ResultTable.size_bytes
    )
    uploads = UploadTable.select(
        UploadTable.last_used, Value("images"), UploadTable.name, UploadTable.size_bytes
    )
    rows = sorted([*results.tuples().execute(db), *uploads.tuples().execute(db)])
    return [(StoredFile(kind, name), size, last_used) for last_used, kind, name, size in rows]


def missing_bytes(db: Connection, size_bytes: int, quota_bytes: int) -> int:
    """How many bytes too many there would be with ``size_bytes`` more; below 0 when there is room."""
    # added up anew each time: a running total would drift when a process dies between file and row
    return sum(size for _, size, _ in oldest_first(db)) + size_bytes - quota_bytes


def removable(db: Connection, now: float) -> list[tuple[StoredFile, int, float]]:
    """What nobody has used for a day, the least recently used first."""
    return [(entry, size, used) for entry, size, used in oldest_first(db) if used <= now - KEEP_S]


def expired(db: Connection, now: float, keep: Keep) -> list[tuple[StoredFile, int, float]]:
    """What nobody has used for longer than it is kept, and no unfinished job was asked about."""
    unfinished = JobTable.select().where(JobTable.state.in_(("queued", "running")))
    wanted = [str(job.request) for job in unfinished.execute(db)]
    return [
        (entry, size, used)
        for entry, size, used in oldest_first(db)
        if keep.over(entry.kind, now - used) and not any(entry.name in each for each in wanted)
    ]


def forget_jobs(db: Connection, before: float) -> None:
    """Those that ended before that moment."""
    ended = JobTable.state.in_(("done", "failed", "cancelled"))
    JobTable.delete().where(ended, JobTable.updated_at < before).execute(db)


def drop_row(db: Connection, entry: StoredFile) -> None:
    """Forget a result or upload whose files are gone."""
    if entry.kind == "results":
        ResultTable.delete().where(ResultTable.result_id == entry.name).execute(db)
    else:
        UploadTable.delete().where(UploadTable.name == entry.name).execute(db)


def note_removal(db: Connection, entry: StoredFile, size_bytes: int, last_used: float, now: float) -> None:
    RemovalTable.delete().where(RemovalTable.removed_at < now - _KEEP_NOTES_S).execute(db)
    RemovalTable.insert(name=entry.name, size_bytes=size_bytes, last_used=last_used, removed_at=now).execute(
        db
    )


def removals(db: Connection, *, unannounced: bool, limit: int, keep: Keep | None = None) -> list[Removal]:
    """What was taken away within 30 days, newest first; unannounced: only what no answer has said. keep: the rules now."""
    chosen = RemovalTable.select().order_by(RemovalTable.removal_id.desc()).limit(limit)
    if unannounced:
        chosen = chosen.where(~RemovalTable.announced)
    found = []
    for row in chosen.execute(db):
        kind = "results" if row.name.startswith("res_") else "images"
        unused_s = row.removed_at.timestamp() - row.last_used
        because = (
            "because it had not been used for so long"
            if keep and keep.over(kind, unused_s)
            else "to make room"
        )
        last_used = datetime.fromtimestamp(row.last_used, UTC)
        found.append(Removal(row.name, row.size_bytes, row.removed_at, last_used, because))
    return found


def mark_announced(db: Connection) -> None:
    RemovalTable.update(announced=True).where(~RemovalTable.announced).execute(db)
