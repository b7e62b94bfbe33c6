"""The workspace: everything that must still be there after a restart, in one folder.

workspace.sqlite   the index: results, images, uploads, jobs, and what was removed to make room
results/<id>/      finished results, each complete, with a manifest of its files
images/            uploads, named by the hash of their content
targets/           what examples taught and somebody named, one small file each
cache/             features by key, may vanish at any time
partial/           what is being written, one folder and one locked file per open workspace
unfinished/        slide runs that can be taken up again, one folder and one lock each
damaged/           what `doctor --repair` has set aside
reserve            given up on a full disk, so that the workspace can still be opened and emptied
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from peewee import SqliteDatabase

from tissuetalk.models.errors import (
    ImageTooLargeError,
    InvalidArgumentError,
    WorkspaceFullError,
    WorkspaceUnwritableError,
)
from tissuetalk.models.writing import disk_errors, flush, fsync_folder, remove
from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.database import ImageTable, UploadTable, is_id, shown
from tissuetalk.tools.storage.features import BlobCache
from tissuetalk.tools.storage.owners import held
from tissuetalk.tools.storage.results import Results
from tissuetalk.tools.storage.room import (
    GB,
    Removal,
    drop_row,
    mark_announced,
    oldest_first,
    removals,
)
from tissuetalk.tools.storage.targets import KeptTargets

DEFAULT_QUOTA_BYTES: Final = 10 * GB
_CACHE_SHARE = 4
"""One part in four of the quota is for the feature cache, the rest for results and uploads."""
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}")
UPLOAD: Final = re.compile(r"(?P<sha256>[0-9a-f]{64})(\.[a-z0-9]{1,8}){1,2}")
"""File names of uploads."""
_CHUNK_BYTES = 1 << 20
_RESERVE_BYTES = 256 * 1024


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
        folder = folder.expanduser().absolute()
        cache_bytes = quota_bytes // _CACHE_SHARE
        self._reserve = folder / "reserve"
        try:
            self._open(folder, quota_bytes - cache_bytes, clock)
        except WorkspaceFullError:
            if not self._reserve.is_file():
                raise
            remove(self._reserve)
            self._open(folder, quota_bytes - cache_bytes, clock)
        self.uploads_folder = self.folder / "images"
        self.targets = KeptTargets(self.folder / "targets", self.owners.folder)
        self.cache = BlobCache(self.folder / "cache", self.owners.folder, cache_bytes)
        self._fill_reserve()

    def remember_image(self, image_id: str, path: Path) -> None:
        """Note where an image lies, so that its id can be used instead of its path, also after a restart.

        The same content opened elsewhere replaces the older place; an upload becomes the most recently used. On a full
        disk it is not noted.
        """
        row = ImageTable.insert(image_id=image_id, path=str(path.absolute()), last_used=self.clock())
        with self._if_there_is_room() as db:
            row.on_conflict_replace().execute(db)
            self._upload_used(db, path)

    def image_path(self, image_id: str) -> Path | None:
        """Where an image was last opened, or None; an upload becomes the most recently used."""
        with self.database.read() as db:
            row = ImageTable.select().where(ImageTable.image_id == image_id).bind(db).first()
        path = None if row is None else Path(row.path)
        if path is not None and path.parent == self.uploads_folder:
            with self._if_there_is_room() as db:
                self._upload_used(db, path)
        return path

    def store_upload(
        self,
        stream: BinaryIO,
        suffix: str,
        max_bytes: int,
        require: Callable[[Path], None] = lambda part: None,
    ) -> Path:
        """Keep an upload as ``<sha256><suffix>``; the same content twice is one file.

        require: looks at the content before it is an upload, and raises to refuse it.
        Raises ImageTooLargeError beyond ``max_bytes``, WorkspaceFullError, what ``require`` raises; all leave nothing behind.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise InvalidArgumentError(
                f"{shown(suffix)} is no file ending; use one such as .png or .ome.tiff"
            )
        # in this owner's folder: if the process dies here, the next start removes it
        part = self.owners.folder / f"upload_{secrets.token_hex(8)}"
        with disk_errors(self.folder):
            try:
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
                require(part)
                return self._publish(part, f"{digest.hexdigest()}{suffix.lower()}", size_bytes)
            finally:
                remove(part)

    def _publish(self, part: Path, name: str, size_bytes: int) -> Path:
        path = self.uploads_folder / name

        def add(db: SqliteDatabase) -> None:
            UploadTable.delete().where(UploadTable.name == name).execute(db)
            part.rename(path)
            UploadTable.insert(name=name, size_bytes=size_bytes, last_used=self.clock()).execute(db)

        with self.database.write() as db:
            # the same picture sent twice is one file; a row whose file is gone is written anew
            if self._upload_used(db, path) and path.is_file():
                return path
        self._add(size_bytes, add)
        fsync_folder(self.uploads_folder)
        return path

    def removed(self, *, unannounced: bool = False, limit: int = 20) -> list[Removal]:
        """What was removed to make room, newest first; unannounced: only what no answer has said yet, each once."""
        with self.database.read() as db:
            found = removals(db, unannounced=unannounced, limit=limit)
        if not (unannounced and found):
            return found
        said: list[Removal] = []
        # looked up and marked in one transaction: of two answers at once one says it
        with self._if_there_is_room() as db:
            said = removals(db, unannounced=True, limit=limit)
            mark_announced(db)
        return said

    def delete(self, result_id: str) -> None:
        super().delete(result_id)
        self._fill_reserve()

    def close(self) -> None:
        """Give everything back; jobs that this workspace was running may be taken over. Safe to call twice."""
        self.owners.leave()
        self.database.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _upload_used(self, db: SqliteDatabase, path: Path) -> bool:
        used = UploadTable.update(last_used=self.clock()).where(UploadTable.name == path.name)
        return path.parent == self.uploads_folder and bool(used.execute(db))

    def _open(self, folder: Path, quota_bytes: int, clock: Callable[[], float]) -> None:
        super().__init__(folder, quota_bytes, clock)
        self.uploads_folder = self.folder / "images"
        with disk_errors(self.folder):
            try:
                self._start()
            except BaseException:
                self.database.close()
                raise

    def _start(self) -> None:
        """Check the database, become an owner and clean up after the dead; one process at a time."""
        with self.owners.registry():
            # looked up before anything is written: results without a database mean that the database was lost
            has_results = any(is_id("res", path.name) for path in (self.folder / "results").iterdir())
            self.database.prepare(may_create=not has_results)
            dead = self.owners.dead()
            self.owners.enter()
            with self.database.write() as db:
                self._reconcile(db)
            if dead:
                self._sweep()
            for token in dead:
                self.owners.bury(token)

    def _reconcile(self, db: SqliteDatabase) -> None:
        """Index files that have no row, forget rows without files: what a kill left between the two, or a lost database.

        Whoever adds one holds the same write lock from the first of the two steps to the second, so nothing that another
        process is about to finish is touched.
        """
        now = self.clock()
        for entry, _, _ in oldest_first(db):
            if not (is_id("res", entry.name) if entry.kind == "results" else UPLOAD.fullmatch(entry.name)):
                raise self.database.damaged("is damaged")
            if not (self.folder / entry.kind / entry.name).exists():
                drop_row(db, entry)
        for row in manifest.unindexed(db, self.folder / "results"):
            manifest.insert(db, row, row.created_at, last_used=now, size_bytes=manifest.size_of(row.folder))
        known = {entry.name for entry, _, _ in oldest_first(db)}
        for path in self.uploads_folder.iterdir():
            if path.name not in known and (named := UPLOAD.fullmatch(path.name)):
                UploadTable.insert(name=path.name, size_bytes=path.stat().st_size, last_used=now).execute(db)
                image_id = f"img_{named['sha256'][:32]}"
                image = ImageTable.insert(image_id=image_id, path=str(path), last_used=now)
                image.on_conflict_ignore().execute(db)

    def _sweep(self) -> None:
        """Parts of files that a killed process was adding to finished results; those somebody is reading wait."""
        for result in (self.folder / "results").iterdir():
            if is_id("res", result.name):
                with suppress(BlockingIOError), held(result, alone=True):
                    for path in manifest.left_in(result):
                        remove(path)

    def _fill_reserve(self) -> None:
        """Room that only opening and emptying the workspace may use."""
        with suppress(OSError, WorkspaceFullError, WorkspaceUnwritableError):
            if self._reserve.is_file() and self._reserve.stat().st_size == _RESERVE_BYTES:
                return
            try:
                # zeros would take no room on a disk that compresses
                self._reserve.write_bytes(secrets.token_bytes(_RESERVE_BYTES))
            except OSError:
                remove(self._reserve)
