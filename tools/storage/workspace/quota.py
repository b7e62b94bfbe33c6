"""Room for a new result or upload: the least recently used go first, never one that somebody is reading."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peewee import SqliteDatabase, fn

from tissuetalk.models.errors import WorkspaceFullError
from tissuetalk.tools.storage.workspace.database import PinRow, ResultRow, UploadRow
from tissuetalk.tools.storage.workspace.owner import Owners


@dataclass(frozen=True)
class Kept:
    """A finished result or an upload: ``name`` in the folder ``kind`` of the workspace."""

    kind: Literal["results", "images"]
    name: str


class Room:
    """What results and uploads may take together; the feature cache has its own share."""

    def __init__(self, root: Path, owners: Owners, quota_bytes: int) -> None:
        self._root = root
        self._owners = owners
        self._quota_bytes = quota_bytes

    def make(self, db: SqliteDatabase, size_bytes: int) -> list[Path]:
        """Take away until ``size_bytes`` more fit; called inside the transaction that adds them.

        Returns what to ``remove`` after the transaction. Raises WorkspaceFullError when it cannot fit.
        """
        if size_bytes > self._quota_bytes:
            raise WorkspaceFullError(
                f"this alone needs {_megabytes(size_bytes)} and the workspace may hold "
                f"{_megabytes(self._quota_bytes)}; ask for a smaller region or fewer targets, "
                "or start with a larger quota"
            )
        missing = used_bytes(db) + size_bytes - self._quota_bytes
        trash: list[Path] = []
        for kept, kept_bytes in _evictable(db) if missing > 0 else []:
            if missing <= 0:
                break
            trash.append(self.take_away(db, kept))
            missing -= kept_bytes
        if missing > 0:
            raise WorkspaceFullError(
                f"{_megabytes(missing)} are missing and everything else in the workspace is being read right now; "
                "wait for the running calls to end and try again, or start with a larger quota"
            )
        return trash

    def take_away(self, db: SqliteDatabase, kept: Kept) -> Path:
        """Delete the row and move the files out of sight, both inside the caller's transaction.

        A kill in between leaves a row without files or files without a row: either way it is gone at the next
        start. Returns what to ``remove`` after the transaction.
        """
        if kept.kind == "results":
            ResultRow.delete().where(ResultRow.result_id == kept.name).execute(db)
        else:
            UploadRow.delete().where(UploadRow.name == kept.name).execute(db)
        trash = self._owners.folder / f"trash_{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            (self._root / kept.kind / kept.name).rename(trash)
        return trash


def used_bytes(db: SqliteDatabase) -> int:
    """What finished results and uploads take together."""
    tables = (ResultRow, UploadRow)
    return sum(table.select(fn.COALESCE(fn.SUM(table.size_bytes), 0)).scalar(db) for table in tables)


def is_pinned(db: SqliteDatabase, name: str) -> bool:
    """Whether somebody, in whatever process, is reading this."""
    return bool(PinRow.select().where(PinRow.name == name).exists(db))


def _evictable(db: SqliteDatabase) -> list[tuple[Kept, int]]:
    """What may go, least recently used first, with its size in bytes."""
    pinned = {name for (name,) in PinRow.select(PinRow.name).tuples().execute(db)}
    results = ResultRow.select(ResultRow.last_used, ResultRow.result_id, ResultRow.size_bytes)
    uploads = UploadRow.select(UploadRow.last_used, UploadRow.name, UploadRow.size_bytes)
    found = [(used, Kept("results", name), size) for used, name, size in results.tuples().execute(db)]
    found += [(used, Kept("images", name), size) for used, name, size in uploads.tuples().execute(db)]
    found.sort(key=lambda entry: entry[0])
    return [(kept, size) for _, kept, size in found if kept.name not in pinned]


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
