"""Finished results: committed in one step, read while pinned, listed, copied out, deleted, evicted.

The least recently used result or upload goes first, never one that somebody is reading.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from peewee import SQL, SqliteDatabase

from tissuetalk.models.errors import (
    BusyError,
    InvalidArgumentError,
    UnknownResultError,
    WorkspaceFullError,
)
from tissuetalk.tools.storage.files import (
    disk_errors,
    fsync_folder,
    fsync_tree,
    full_disk,
    is_disk_full,
    remove,
    tree_bytes,
)
from tissuetalk.tools.storage.workspace.database import (
    Database,
    PinTable,
    ResultTable,
    UploadTable,
    is_id,
    new_id,
    shown,
)
from tissuetalk.tools.storage.workspace.owners import Owners


@dataclass(frozen=True)
class Draft:
    """A result being written: put files into ``folder``; nobody sees them before all are there."""

    result_id: str
    folder: Path
    image_id: str
    kind: str


@dataclass(frozen=True)
class StoredResult(Draft):
    """A finished result. Its files may be removed to make room unless it is read inside ``reading()``."""

    created_at: datetime
    size_bytes: int


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


class Results(Room):
    """The ``results/`` folder and its table."""

    @contextmanager
    def new_result(self, *, image_id: str, kind: str) -> Iterator[Draft]:
        """A folder to write into, which becomes a result when the block ends and vanishes when it fails.

        Raises WorkspaceFullError, with nothing left behind, when the disk is full or the quota too small.
        """
        result_id = new_id("res")
        draft = Draft(result_id, self.owners.folder / result_id, image_id, kind)
        try:
            with disk_errors(self.folder):
                draft.folder.mkdir()
            try:
                yield draft
            except OSError as error:
                if is_disk_full(error):
                    raise full_disk(self.folder) from error
                raise
            self._commit(draft)
        finally:
            remove(draft.folder)

    def adopt_result(self, folder: Path, *, result_id: str, image_id: str, kind: str) -> None:
        """A folder in the workspace that holds a whole result becomes one, in one step; on failure it stays.

        Raises WorkspaceFullError when the disk is full or the quota too small.
        """
        self._commit(Draft(result_id, folder, image_id, kind), give_back=True)

    def _commit(self, draft: Draft, *, give_back: bool = False) -> None:
        """Files first and flushed, then the name, then the row: readers go by rows, so they see all or nothing."""
        target = self.folder / "results" / draft.result_id
        with disk_errors(self.folder):
            # a row in the database may survive a power cut that the files behind it did not; so files go first
            fsync_tree(draft.folder)
            size_bytes = tree_bytes(draft.folder)
            try:
                with self.database.write() as db:
                    trash = self._make_room(db, size_bytes)
                    draft.folder.rename(target)
                    now = self.clock()
                    ResultTable.insert(
                        result_id=draft.result_id,
                        image_id=draft.image_id,
                        kind=draft.kind,
                        created_at=now,
                        last_used=now,
                        size_bytes=size_bytes,
                    ).execute(db)
            except BaseException:  # whatever it was, the row is not there, so the files must not be either
                if give_back and target.exists():
                    target.rename(draft.folder)
                remove(target)
                raise
            fsync_folder(target.parent)
        for path in trash:
            remove(path)

    def result(self, result_id: str) -> StoredResult:
        """A finished result, now the most recently used. Raises UnknownResultError."""
        return self._use(result_id, pin=False)[0]

    @contextmanager
    def reading(self, result_id: str) -> Iterator[StoredResult]:
        """A result that nobody removes while the block runs. Files added to it meanwhile count for the quota.

        Raises UnknownResultError.
        """
        stored, pin_id = self._use(result_id, pin=True)
        try:
            yield stored
        finally:
            # measured while still pinned: nobody can take the folder away meanwhile
            size_bytes = tree_bytes(stored.folder)
            with self.database.write() as db:
                PinTable.delete().where(PinTable.pin_id == pin_id).execute(db)
                if size_bytes != stored.size_bytes:
                    row = ResultTable.result_id == result_id
                    ResultTable.update(size_bytes=size_bytes).where(row).execute(db)

    def results(self, limit: int = 100) -> list[StoredResult]:
        """Finished results, newest first; ``limit`` at most."""
        # rowid breaks ties of results made within one tick of the clock
        newest = ResultTable.select().order_by(ResultTable.created_at.desc(), SQL("rowid").desc())
        with self.database.read() as db:
            return [self._stored(row) for row in newest.limit(max(limit, 0)).execute(db)]

    def delete(self, result_id: str) -> None:
        """Remove a result for good. Raises UnknownResultError, or BusyError while somebody reads it."""
        if not is_id("res", result_id):
            raise _no_result(result_id)
        with disk_errors(self.folder), self.database.write() as db:
            if PinTable.select().where(PinTable.name == result_id).exists(db):
                raise BusyError(
                    f"{result_id} is being read by a running call; delete it again when that has ended"
                )
            if not ResultTable.select().where(ResultTable.result_id == result_id).exists(db):
                raise _no_result(result_id)
            trash = self._take_away(db, StoredFile("results", result_id))
        remove(trash)

    def save(self, result_id: str, folder: Path) -> None:
        """Copy a result to ``folder``, which must be missing or empty; it appears there complete or not at all.

        Raises InvalidArgumentError for a folder in use or not writable, WorkspaceFullError when its disk is full.
        """
        target = folder.parent.resolve() / folder.name if folder.is_symlink() else folder.resolve()
        if target.is_relative_to(self.folder.resolve()):
            raise InvalidArgumentError(
                f"{shown(str(folder))} lies in the workspace itself; choose a folder outside"
            )
        with self.reading(result_id) as stored:
            # beside the target, not in the workspace: only within one disk is the last rename a single step
            part = target.parent / f".{target.name}.{secrets.token_hex(8)}.part"
            try:
                _require_free(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(stored.folder, part)
                fsync_tree(part)
                if target.is_dir():
                    target.rmdir()
                part.rename(target)
            except OSError as error:
                if is_disk_full(error):
                    raise WorkspaceFullError(
                        f"the disk of {shown(str(folder))} is full; free some space or save elsewhere"
                    ) from error
                raise InvalidArgumentError(
                    f"cannot save to {shown(str(folder))} ({error.strerror}); choose a new folder in a writable place"
                ) from error
            finally:
                remove(part)

    def _use(self, result_id: str, *, pin: bool) -> tuple[StoredResult, int | None]:
        if not is_id("res", result_id):
            raise _no_result(result_id)
        with self.database.write() as db:
            row = ResultTable.select().where(ResultTable.result_id == result_id).bind(db).first()
            if row is None or not (self.folder / "results" / result_id).is_dir():
                raise _no_result(result_id)
            ResultTable.update(last_used=self.clock()).where(ResultTable.result_id == result_id).execute(db)
            pin_id = PinTable.insert(name=result_id, owner=self.owners.token).execute(db) if pin else None
        return self._stored(row), pin_id

    def _stored(self, row: Any) -> StoredResult:
        folder = self.folder / "results" / row.result_id
        return StoredResult(row.result_id, folder, row.image_id, row.kind, row.created_at, row.size_bytes)


def oldest_first(db: SqliteDatabase) -> list[tuple[StoredFile, int]]:
    """Every result and upload, the least recently used first, with its size in bytes."""
    results = ResultTable.select(ResultTable.last_used, ResultTable.result_id, ResultTable.size_bytes)
    uploads = UploadTable.select(UploadTable.last_used, UploadTable.name, UploadTable.size_bytes)
    found = [(used, StoredFile("results", name), size) for used, name, size in results.tuples().execute(db)]
    found += [(used, StoredFile("images", name), size) for used, name, size in uploads.tuples().execute(db)]
    return [(entry, size) for _, entry, size in sorted(found, key=lambda row: row[0])]


def _no_result(result_id: str) -> UnknownResultError:
    """Always the same sentence, whether the id is wrong or its result was evicted or deleted."""
    return UnknownResultError(
        f"there is no result {shown(result_id)} (it may have been deleted, or removed to make room); "
        "list the results with library, or segment the image again"
    )


def _require_free(target: Path) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise InvalidArgumentError(
            f"{shown(str(target))} already exists and is not an empty folder; choose a new folder, "
            "nothing is ever overwritten"
        )
