"""What all parts of a workspace stand on: who is alive, what is in the folder, and room for more.

The least recently used result or upload goes first, never one that somebody is reading. Who is alive is told by one
locked file per open workspace, which the system unlocks when its process dies.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from peewee import SqliteDatabase

from tissuetalk.models.errors import BusyError, WorkspaceFullError
from tissuetalk.tools.storage.files import disk_errors, remove
from tissuetalk.tools.storage.workspace.database import Database, PinTable, ResultTable, UploadTable

_REGISTRY_WAIT_S = 60.0
_TOKEN = re.compile(r"[0-9a-f]{16}")


class Owners:
    """The open workspaces on one folder, seen from one of them.

    ``partial/<token>.lock`` is locked as long as the workspace with that token is open, and everything it has
    half-written lies in ``partial/<token>/``. A lock dies with its process, whatever kills it, and means the same
    in every container that shares the disk, which a process number does not.
    """

    def __init__(self, partial: Path) -> None:
        self._partial = partial
        self.token = secrets.token_hex(8)
        self.folder = partial / self.token
        # thread_local=False: close() may run in another thread than the one that opened the workspace
        self._lock = FileLock(self._lock_path(self.token), thread_local=False)

    @contextmanager
    def registry(self) -> Iterator[None]:
        """The lock under which owners come and are looked at, so that no look is mistaken for a living owner.

        Never taken inside a database transaction. Raises BusyError when others hold it for a minute.
        """
        lock = FileLock(self._partial / "registry.lock", timeout=_REGISTRY_WAIT_S, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(f"another process is starting on {self._partial.parent}; try again") from None
        try:
            yield
        finally:
            lock.release()

    def enter(self) -> None:
        """Become an owner. Called under ``registry()``."""
        self._lock.acquire(blocking=False)
        self.folder.mkdir(exist_ok=True)

    def leave(self) -> None:
        """Stop being one: what is left half-written is removed, and jobs may be taken over."""
        # in this order: whoever finds the lock free may bury what is left
        remove(self.folder)
        self._lock.release()

    def is_alive(self, token: str) -> bool:
        """Whether the workspace with this token is still open somewhere."""
        if token == self.token:
            return self._lock.is_locked
        with self.registry():
            return not self._is_gone(token)

    def dead(self) -> list[str]:
        """Tokens that left something behind and whose process is gone. Called under ``registry()``, before entering."""
        tokens = {path.name.removesuffix(".lock") for path in self._partial.iterdir()}
        return sorted(token for token in tokens if _TOKEN.fullmatch(token) and self._is_gone(token))

    def bury(self, token: str) -> None:
        """Remove what a dead owner left half-written. Called under ``registry()``."""
        remove(self._partial / token)
        remove(self._lock_path(token))

    def _is_gone(self, token: str) -> bool:
        path = self._lock_path(token)
        if not path.exists():
            return True
        # taking the lock is the only sure test; it is given back at once
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        lock.release()
        return True

    def _lock_path(self, token: str) -> Path:
        return self._partial / f"{token}.lock"


@dataclass(frozen=True)
class StoredFile:
    """A finished result or an upload: ``name`` in the folder ``kind`` of the workspace."""

    kind: Literal["results", "images"]
    name: str


class Room:
    """The folder, its database and its owners, and what results and uploads may take together."""

    def __init__(self, folder: Path, quota_bytes: int, clock: Callable[[], float]) -> None:
        self.folder = folder.expanduser().absolute()
        self.clock = clock
        self._quota_bytes = quota_bytes
        with disk_errors(self.folder):
            # for this user alone: images and results are about patients
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("results", "images", "cache", "partial", "unfinished"):
                (self.folder / name).mkdir(exist_ok=True, mode=0o700)
            self.database = Database(self.folder / "workspace.sqlite")
            self.owners = Owners(self.folder / "partial")

    def _make_room(self, db: SqliteDatabase, size_bytes: int) -> list[Path]:
        """Take away until ``size_bytes`` more fit; called inside the transaction that adds them.

        Returns what to ``remove`` after the transaction. Raises WorkspaceFullError when it cannot fit.
        """
        if size_bytes > self._quota_bytes:
            raise WorkspaceFullError(
                f"this alone needs {size_bytes / 1e6:.1f} MB and the workspace may hold "
                f"{self._quota_bytes / 1e6:.1f} MB; ask for a smaller region or fewer targets, "
                "or start with a larger quota"
            )
        # sizes are added up anew each time: a running total would drift when a process dies between file and row
        entries = oldest_first(db)
        missing = sum(size for _, size in entries) + size_bytes - self._quota_bytes
        pinned = {name for (name,) in PinTable.select(PinTable.name).tuples().execute(db)}
        trash: list[Path] = []
        for entry, entry_bytes in entries:
            if missing <= 0:
                break
            if entry.name not in pinned:
                trash.append(self._take_away(db, entry))
                missing -= entry_bytes
        if missing > 0:
            raise WorkspaceFullError(
                f"{missing / 1e6:.1f} MB are missing and everything else in the workspace is being read right now; "
                "wait for the running calls to end and try again, or start with a larger quota"
            )
        return trash

    def _take_away(self, db: SqliteDatabase, entry: StoredFile) -> Path:
        """Delete the row and move the files out of sight, both inside the caller's transaction.

        A kill in between leaves a row without files or files without a row: either way it is gone at the next
        start. Returns what to ``remove`` after the transaction.
        """
        if entry.kind == "results":
            ResultTable.delete().where(ResultTable.result_id == entry.name).execute(db)
        else:
            UploadTable.delete().where(UploadTable.name == entry.name).execute(db)
        # a rename within the disk is quick enough for a transaction; the removal, which may take long, is not
        trash = self.owners.folder / f"trash_{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            (self.folder / entry.kind / entry.name).rename(trash)
        return trash


def oldest_first(db: SqliteDatabase) -> list[tuple[StoredFile, int]]:
    """Every result and upload, the least recently used first, with its size in bytes."""
    results = ResultTable.select(ResultTable.last_used, ResultTable.result_id, ResultTable.size_bytes)
    uploads = UploadTable.select(UploadTable.last_used, UploadTable.name, UploadTable.size_bytes)
    found = [(used, StoredFile("results", name), size) for used, name, size in results.tuples().execute(db)]
    found += [(used, StoredFile("images", name), size) for used, name, size in uploads.tuples().execute(db)]
    return [(entry, size) for _, entry, size in sorted(found, key=lambda row: row[0])]
