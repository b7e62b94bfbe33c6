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
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from peewee import SqliteDatabase

from tissuetalk.tools.storage.features import BlobCache
from tissuetalk.tools.storage.files import disk_errors, remove
from tissuetalk.tools.storage.workspace.database import PinTable, is_id
from tissuetalk.tools.storage.workspace.images import Images, is_upload_name
from tissuetalk.tools.storage.workspace.results import Results
from tissuetalk.tools.storage.workspace.room import Entry, oldest_first

DEFAULT_QUOTA_BYTES = 10 * 2**30
_CACHE_SHARE = 4
"""One part in four of the quota is for the feature cache, the rest for results and uploads."""


class Workspace(Results, Images):
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
                    PinTable.delete().where(PinTable.owner.in_(dead)).execute(db)
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
        rows = {entry for entry, _ in oldest_first(db)}
        results, images = (self.folder / "results").iterdir(), self.uploads_folder.iterdir()
        files = {Entry("results", path.name) for path in results if is_id("res", path.name)}
        files |= {Entry("images", path.name) for path in images if is_upload_name(path.name)}
        return [self._take_away(db, entry) for entry in rows ^ files]
