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
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Self

from peewee import SqliteDatabase

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError
from tissuetalk.tools.storage.features import BlobCache
from tissuetalk.tools.storage.files import disk_errors, flush, fsync_folder, remove
from tissuetalk.tools.storage.workspace.database import ImageTable, PinTable, UploadTable, is_id, shown
from tissuetalk.tools.storage.workspace.results import Results, StoredFile, oldest_first

DEFAULT_QUOTA_BYTES = 10 * 2**30
_CACHE_SHARE = 4
"""One part in four of the quota is for the feature cache, the rest for results and uploads."""
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}")
_UPLOAD = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,8}){1,2}")
_CHUNK_BYTES = 1 << 20


class Workspace(Results):
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
        self.cache = BlobCache(self.folder / "cache", self.owners.folder, cache_bytes)
        with disk_errors(self.folder):
            self._start()

    @property
    def uploads_folder(self) -> Path:
        return self.folder / "images"

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
                sha256, size_bytes = _receive(stream, part, max_bytes)
                return self._publish(part, f"{sha256}{suffix.lower()}", size_bytes)
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

    def __enter__(self) -> Self:
        return self

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


def _receive(stream: BinaryIO, part: Path, max_bytes: int) -> tuple[str, int]:
    """Copy a stream to a flushed file; returns its SHA-256 and size in bytes."""
    digest = hashlib.sha256()
    size_bytes = 0
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
    return digest.hexdigest(), size_bytes
