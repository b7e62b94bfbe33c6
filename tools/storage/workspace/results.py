"""Finished results: committed in one step, read while pinned, listed, copied out and deleted."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from peewee import SQL

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
from tissuetalk.tools.storage.workspace.database import PinTable, ResultTable, is_id, new_id, shown
from tissuetalk.tools.storage.workspace.room import Room, StoredFile


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
