"""The workspace: everything that must still be there after a restart, in one folder.

workspace.sqlite   results, images, uploads, pins and jobs
results/<id>/      finished results, each complete
images/            uploads, named by the hash of their content
cache/             features by key, may vanish at any time
partial/           what is being written, one folder and one locked file per open workspace
unfinished/        slide runs that can be taken up again, one folder and one lock each
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from peewee import SqliteDatabase

from tissuetalk.models.errors import UnknownImageError
from tissuetalk.tools.storage.workspace.cache import BlobCache
from tissuetalk.tools.storage.workspace.database import Database, PinRow, ResultRow, UploadRow
from tissuetalk.tools.storage.workspace.disk import disk_errors, remove
from tissuetalk.tools.storage.workspace.ids import is_id
from tissuetalk.tools.storage.workspace.images import Images, SeenImage, is_upload_name
from tissuetalk.tools.storage.workspace.owner import Owners
from tissuetalk.tools.storage.workspace.quota import Kept, Room
from tissuetalk.tools.storage.workspace.results import Draft, Results, StoredResult

DEFAULT_QUOTA_BYTES = 10 * 2**30
_CACHE_SHARE = 4
"""One part in four of the quota is for the feature cache, the rest for results and uploads."""


class Workspace:
    """One folder, used by any number of threads and processes at once.

    quota_bytes: what finished results, uploads and cached features may take; unfinished work comes on top.
    clock: seconds since 1970, replaced in tests.

    Raises WorkspaceUnwritableError when the folder cannot be written or holds a database that is not ours,
    WorkspaceFullError when its disk is full. Close it, or use it in a ``with`` block.
    """

    def __init__(
        self, folder: Path, *, quota_bytes: int = DEFAULT_QUOTA_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder.expanduser().absolute()
        self.clock = clock
        self.cache_bytes = cache_bytes = quota_bytes // _CACHE_SHARE
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("results", "images", "cache", "partial", "unfinished"):
                (self.folder / name).mkdir(exist_ok=True, mode=0o700)
            self.database = Database(self.folder / "workspace.sqlite")
            self.owners = Owners(self.folder / "partial")
            self._room = Room(self.folder, self.owners, quota_bytes - cache_bytes)
            self._results = Results(self.folder, self.database, self.owners, self._room, self.clock)
            self._images = Images(self.folder, self.database, self.owners, self._room, self.clock)
            self._cache = BlobCache(self.folder / "cache", self.owners.folder, cache_bytes)
            self._start()

    def new_result(self, *, image_id: str, kind: str) -> AbstractContextManager[Draft]:
        """A folder to write into, which becomes a result when the block ends and vanishes when it fails.

        Raises WorkspaceFullError, with nothing left behind, when the disk is full or the quota too small.
        """
        return self._results.new(image_id, kind)

    def adopt_result(self, folder: Path, *, result_id: str, image_id: str, kind: str) -> None:
        """A folder in the workspace that holds a whole result becomes one, in one step; on failure it stays.

        Raises WorkspaceFullError when the disk is full or the quota too small.
        """
        self._results.adopt(folder, result_id, image_id, kind)

    def result(self, result_id: str) -> StoredResult:
        """A finished result, now the most recently used. Raises UnknownResultError."""
        return self._results.get(result_id)

    def reading(self, result_id: str) -> AbstractContextManager[StoredResult]:
        """A result that nobody removes while the block runs. Raises UnknownResultError."""
        return self._results.reading(result_id)

    def results(self, limit: int = 100) -> list[StoredResult]:
        """Finished results, newest first."""
        return self._results.newest(limit)

    def delete(self, result_id: str) -> None:
        """Remove a result for good. Raises UnknownResultError, or BusyError while somebody reads it."""
        self._results.delete(result_id)

    def save(self, result_id: str, folder: Path) -> None:
        """Copy a result to a folder that is missing or empty. Raises InvalidArgumentError for any other."""
        self._results.save(result_id, folder)

    def remember_image(
        self,
        image_id: str,
        *,
        path: Path,
        sha256: str,
        width: int,
        height: int,
        mpp: float | None = None,
        mpp_source: str = "unknown",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Note where an image lies, so that its id can be used instead of its path, also after a restart."""
        self._images.remember(
            SeenImage(image_id, path.absolute(), sha256, width, height, mpp, mpp_source, details or {})
        )

    def image(self, image_id: str) -> SeenImage:
        """What is known of an image. Raises UnknownImageError."""
        return self._images.get(image_id)

    def image_path(self, image_id: str) -> Path | None:
        """Where an image was last seen, or None."""
        try:
            return self.image(image_id).path
        except UnknownImageError:
            return None

    @property
    def uploads_folder(self) -> Path:
        """Where uploads lie."""
        return self._images.folder

    def store_upload(self, stream: BinaryIO, suffix: str, max_bytes: int) -> Path:
        """Keep an uploaded file under the hash of its content. Raises ImageTooLargeError, WorkspaceFullError."""
        return self._images.store(stream, suffix, max_bytes)

    def discard_upload(self, path: Path) -> None:
        """Remove an upload that turned out not to be an image. Anything else is left alone."""
        self._images.discard_upload(path)

    def reading_image(self, path: Path) -> AbstractContextManager[None]:
        """Keep an upload where it is while the block runs; any other path is accepted and needs nothing."""
        return self._images.reading(path)

    def cache_get(self, key: str) -> bytes | None:
        """Cached bytes, or None; damaged ones count as None."""
        return self._cache.get(key)

    def cache_put(self, key: str, content: bytes) -> bool:
        """Cache bytes; False when they do not fit."""
        return self._cache.put(key, content)

    def close(self) -> None:
        """Give everything back; jobs that this workspace was running may be taken over. Safe to call twice."""
        self.owners.leave()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        """Check the database, become an owner and clean up after the dead; one process at a time."""
        try:
            with self.owners.registry():
                has_results = any(is_id("res", path.name) for path in (self.folder / "results").iterdir())
                self.database.prepare(may_create=not has_results)
                dead = self.owners.dead()
                self.owners.enter()
                with self.database.write() as db:
                    PinRow.delete().where(PinRow.owner.in_(dead)).execute(db)
                    trash = self._reconcile(db)
                for token in dead:
                    self.owners.bury(token)
        except BaseException:
            self.database.close()
            raise
        for path in trash:
            remove(path)

    def _reconcile(self, db: SqliteDatabase) -> list[Path]:
        """Take away rows without files and files without a row: what a kill left between the two.

        Whoever adds or removes one holds the same write lock from the first of the two steps to the second, so
        nothing that another process is about to finish is touched. Returns what to remove after the transaction.
        """
        rows = {
            Kept("results", name) for (name,) in ResultRow.select(ResultRow.result_id).tuples().execute(db)
        }
        rows |= {Kept("images", name) for (name,) in UploadRow.select(UploadRow.name).tuples().execute(db)}
        results, images = ((self.folder / kind).iterdir() for kind in ("results", "images"))
        files = {Kept("results", path.name) for path in results if is_id("res", path.name)}
        files |= {Kept("images", path.name) for path in images if is_upload_name(path.name)}
        return [self._room.take_away(db, kept) for kept in rows ^ files]
