"""The workspace: everything that must still be there after a restart, in one folder.

workspace.sqlite   results, images, uploads, pins and jobs
results/<id>/      finished results, each complete
images/            uploads, named by the hash of their content
cache/             features by key, may vanish at any time
partial/           what is being written, one folder and one locked file per open workspace
unfinished/        slide runs that can be taken up again, one folder and one lock each
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from peewee import SQL, SqliteDatabase, Value

from tissuetalk.models.errors import (
    BusyError,
    ImageTooLargeError,
    InvalidArgumentError,
    UnknownResultError,
    WorkspaceFullError,
)
from tissuetalk.models.writing import (
    copy_folder,
    disk_errors,
    flush,
    fsync_folder,
    fsync_tree,
    full_disk,
    is_disk_full,
    place_errors,
    remove,
    tree_bytes,
)
from tissuetalk.tools.storage.database import (
    Database,
    ImageTable,
    Owners,
    PinTable,
    ResultTable,
    UploadTable,
    is_id,
    new_id,
    shown,
)
from tissuetalk.tools.storage.features import BlobCache

DEFAULT_QUOTA_BYTES = 10 * 2**30
_CACHE_SHARE = 4
"""One part in four of the quota is for the feature cache, the rest for results and uploads."""
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}")
_UPLOAD = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,8}){1,2}")
_CHUNK_BYTES = 1 << 20


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


class Results:
    """The folder with its database and owners, and the finished results in it: committed in one step, read while pinned.

    quota_bytes: for results and uploads together. The least recently used goes first, never one that somebody reads.
    """

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
            self.adopt_result(draft)
        finally:
            remove(draft.folder)

    def adopt_result(self, draft: Draft) -> None:
        """A folder in the workspace that holds a whole result becomes one, in one step; on failure it stays.

        Files first and flushed, then the name, then the row: readers go by rows, so they see all or nothing.
        Raises WorkspaceFullError when the disk is full or the quota too small.
        """
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
                if target.exists():
                    target.rename(draft.folder)
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
        with disk_errors(self.folder), self.database.write() as db:
            if PinTable.select().where(PinTable.name == result_id).exists(db):
                raise BusyError(
                    f"{result_id} is being read by a running call; delete it again when that has ended"
                )
            if not ResultTable.select().where(ResultTable.result_id == result_id).exists(db):
                raise _no_result(result_id)
            trash = self._take_away(db, StoredFile("results", result_id))
        remove(trash)

    def save(self, result_id: str, folder: Path, *, within: Path | None = None) -> None:
        """Copy a result to ``folder``, which must be missing or empty; it appears there complete or not at all.

        within: a real folder above, below which no link is followed.
        Raises InvalidArgumentError for a folder in use or not writable, WorkspaceFullError when its disk is full.
        """
        target = Path(os.path.realpath(folder.parent)) / folder.name if within is None else folder
        if target.is_relative_to(os.path.realpath(self.folder)):
            raise InvalidArgumentError(
                f"{shown(str(folder))} lies in the workspace itself; choose a folder outside"
            )
        with self.reading(result_id) as stored, place_errors(target):
            copy_folder(stored.folder, target, durable=True, within=within or Path(target.anchor))

    def _use(self, result_id: str, *, pin: bool) -> tuple[StoredResult, int | None]:
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


class Workspace(Results, AbstractContextManager["Workspace"]):
    """One folder, used by any number of threads and processes at once.

    quota_bytes: what finished results, uploads and cached features may take; unfinished work comes on top.
    clock: seconds since 1970, replaced in tests.

    Raises WorkspaceUnwritableError when the folder cannot be written or holds a database that is not ours,
    WorkspaceFullError when its disk is full. Close it, or use it in a ``with`` block.
    """

    def __init__(
        self, folder: Path, *, quota_bytes: int = DEFAULT_QUOTA_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        cache_bytes = quota_bytes // _CACHE_SHARE
        super().__init__(folder, quota_bytes - cache_bytes, clock)
        self.uploads_folder = self.folder / "images"
        self.cache = BlobCache(self.folder / "cache", self.owners.folder, cache_bytes)
        with disk_errors(self.folder):
            self._start()

    def remember_image(self, image_id: str, path: Path) -> None:
        """Note where an image lies, so that its id can be used instead of its path, also after a restart.

        The same content opened elsewhere replaces the older place.
        """
        row = ImageTable.insert(image_id=image_id, path=str(path.absolute()), last_used=self.clock())
        with self.database.write() as db:
            row.on_conflict_replace().execute(db)

    def image_path(self, image_id: str) -> Path | None:
        """Where an image was last opened, or None; an upload becomes the most recently used."""
        with self.database.write() as db:
            row = ImageTable.select().where(ImageTable.image_id == image_id).bind(db).first()
            path = None if row is None else Path(row.path)
            if path is not None and path.parent == self.uploads_folder:
                UploadTable.update(last_used=self.clock()).where(UploadTable.name == path.name).execute(db)
        return path

    def store_upload(self, stream: BinaryIO, suffix: str, max_bytes: int) -> Path:
        """Keep an upload as ``<sha256><suffix>``; the same content twice is one file.

        Raises ImageTooLargeError beyond ``max_bytes``, WorkspaceFullError; both leave nothing behind.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise InvalidArgumentError(
                f"{shown(suffix)} is no file ending; use one such as .png or .ome.tiff"
            )
        # in this owner's folder: if the process dies here, the next start removes it
        part = self.owners.folder / f"upload_{secrets.token_hex(8)}"
        try:
            with disk_errors(self.folder):
                digest, size_bytes = hashlib.sha256(), 0
                with part.open("wb") as file:
                    while chunk := stream.read(_CHUNK_BYTES):
                        size_bytes += len(chunk)
                        if size_bytes > max_bytes:
                            raise ImageTooLargeError(
                                f"an upload may have {max_bytes / 1e6:.0f} MB; send a smaller image, "
                                "or put the file into an allowed root and name its path"
                            )
                        digest.update(chunk)
                        file.write(chunk)
                    flush(file)
                return self._publish(part, f"{digest.hexdigest()}{suffix.lower()}", size_bytes)
        finally:
            remove(part)

    def _publish(self, part: Path, name: str, size_bytes: int) -> Path:
        path = self.uploads_folder / name
        with self.database.write() as db:
            # the same picture sent twice is one file; a row whose file is gone is written anew
            stored = UploadTable.update(last_used=self.clock()).where(UploadTable.name == name).execute(db)
            if stored and path.is_file():
                return path
            UploadTable.delete().where(UploadTable.name == name).execute(db)
            trash = self._make_room(db, size_bytes)
            part.rename(path)
            UploadTable.insert(name=name, size_bytes=size_bytes, last_used=self.clock()).execute(db)
        fsync_folder(self.uploads_folder)
        for old in trash:
            remove(old)
        return path

    def discard_upload(self, path: Path) -> None:
        """Remove an upload that turned out not to be an image. Anything else is left alone."""
        if path.parent != self.uploads_folder or not _UPLOAD.fullmatch(path.name):
            return
        with disk_errors(self.folder), self.database.write() as db:
            trash = self._take_away(db, StoredFile("images", path.name))
        remove(trash)

    def close(self) -> None:
        """Give everything back; jobs that this workspace was running may be taken over. Safe to call twice."""
        self.owners.leave()
        self.database.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        """Check the database, become an owner and clean up after the dead; one process at a time."""
        try:
            with self.owners.registry():
                # looked up before anything is written: results without a database mean that the database was lost
                has_results = any(is_id("res", path.name) for path in (self.folder / "results").iterdir())
                self.database.prepare(may_create=not has_results)
                dead = self.owners.dead()
                self.owners.enter()
                with self.database.write() as db:
                    PinTable.delete().where(PinTable.owner.in_(dead)).execute(db)
                    trash = self._reconcile(db)
                for token in dead:
                    self.owners.bury(token)
        except BaseException:
            self.database.close()
            raise
        # outside the registry: other processes need not wait for large folders
        for path in trash:
            remove(path)

    def _reconcile(self, db: SqliteDatabase) -> list[Path]:
        """Take away rows without files and files without a row: what a kill left between the two.

        Whoever adds or removes one holds the same write lock from the first of the two steps to the second, so
        nothing that another process is about to finish is touched. Returns what to remove after the transaction.
        """
        rows = {entry for entry, _ in oldest_first(db)}
        results, images = (self.folder / "results").iterdir(), self.uploads_folder.iterdir()
        files = {StoredFile("results", path.name) for path in results if is_id("res", path.name)}
        files |= {StoredFile("images", path.name) for path in images if _UPLOAD.fullmatch(path.name)}
        return [self._take_away(db, entry) for entry in rows ^ files]


def oldest_first(db: SqliteDatabase) -> list[tuple[StoredFile, int]]:
    """Every result and upload, the least recently used first, with its size in bytes."""
    results = ResultTable.select(
        ResultTable.last_used, Value("results"), ResultTable.result_id, ResultTable.size_bytes
    )
    uploads = UploadTable.select(
        UploadTable.last_used, Value("images"), UploadTable.name, UploadTable.size_bytes
    )
    rows = sorted([*results.tuples().execute(db), *uploads.tuples().execute(db)])
    return [(StoredFile(kind, name), size) for _, kind, name, size in rows]


def _no_result(result_id: str) -> UnknownResultError:
    """Always the same sentence, whether the id is wrong or its result was evicted or deleted."""
    return UnknownResultError(
        f"there is no result {shown(result_id)} (it may have been deleted, or removed to make room); "
        "list the results with library, or segment the image again"
    )
