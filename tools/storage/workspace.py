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

from peewee import Database as Connection

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
from tissuetalk.tools.storage.postgres import ServerDatabase
from tissuetalk.tools.storage.results import Results
from tissuetalk.tools.storage.room import (
    GB,
    Removal,
    StoredFile,
    drop_row,
    mark_announced,
    oldest_first,
    removals,
)
from tissuetalk.tools.storage.state import State
from tissuetalk.tools.storage.targets import KeptTargets
from tissuetalk.tools.storage.workers import Workers

DEFAULT_QUOTA_BYTES: Final = 10 * GB
_CACHE_SHARE = 4
"""One part in four of the quota is for the feature cache, the rest for results and uploads."""
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}")
UPLOAD: Final = re.compile(r"(?P<sha256>[0-9a-f]{64})(\.[a-z0-9]{1,8}){1,2}")
"""File names of uploads."""
STATE_MARK: Final = "state.id"
"""A file in the folder whose index is a state's without a bucket: which folder it is."""
_UPLOADED = "upload:"
"""Before the name of an upload, in place of a path, where machines share it."""
_CHUNK_BYTES = 1 << 20
_RESERVE_BYTES = 256 * 1024


def _ids_in(folder: Path, ours: Callable[[str], bool]) -> list[str]:
    return [path.name for path in folder.iterdir() if ours(path.name)]


class Workspace(Results, AbstractContextManager["Workspace"]):
    """One folder, used by any number of threads and processes at once.

    quota_bytes: what finished results, uploads and cached features may take; unfinished work comes on top.
    clock: seconds since 1970, replaced in tests. state: a database and a bucket that several machines share; the folder then
    is this machine's own, for what it has fetched and what it is making.

    Raises WorkspaceUnwritableError when the folder cannot be written or holds a database that is not ours,
    WorkspaceFullError when its disk is full. Close it, or use it in a ``with`` block.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quota_bytes: int = DEFAULT_QUOTA_BYTES,
        clock: Callable[[], float] = time.time,
        state: State | None = None,
    ) -> None:
        folder = folder.expanduser().absolute()
        cache_bytes = quota_bytes // _CACHE_SHARE
        self._reserve = folder / "reserve"
        try:
            self._open(folder, quota_bytes - cache_bytes, clock, state)
        except WorkspaceFullError:
            if not self._reserve.is_file():
                raise
            remove(self._reserve)
            self._open(folder, quota_bytes - cache_bytes, clock, state)
        self.uploads_folder = self.folder / "images"
        self.targets = KeptTargets(self.folder / "targets", self.owners.folder, self.mirror)
        self.cache = BlobCache(self.folder / "cache", self.owners.folder, cache_bytes)
        self._fill_reserve()

    def remember_image(self, image_id: str, path: Path) -> None:
        """Note where an image lies, so that its id can be used instead of its path, also after a restart.

        The same content opened elsewhere replaces the older place; an upload becomes the most recently used. On a full
        disk it is not noted.
        """
        path = path.absolute()
        # an upload has another folder on every machine
        known = self.mirror is not None and path.parent == self.uploads_folder
        place = {"path": f"{_UPLOADED}{path.name}" if known else str(path), "last_used": self.clock()}
        row = ImageTable.insert(image_id=image_id, **place)
        with self._if_there_is_room() as db:
            row.on_conflict(conflict_target=[ImageTable.image_id], update=place).execute(db)
            self._upload_used(db, path)

    def image_path(self, image_id: str) -> Path | None:
        """Where an image was last opened, or None; an upload becomes the most recently used."""
        with self.database.read() as db:
            row = ImageTable.select().where(ImageTable.image_id == image_id).bind(db).first()
        path = None if row is None else Path(row.path)
        if self.mirror is not None and row is not None and row.path.startswith(_UPLOADED):
            path = self._fetched_upload(row.path.removeprefix(_UPLOADED))
        if path is not None and path.parent == self.uploads_folder:
            with self._if_there_is_room() as db:
                self._upload_used(db, path)
        return path

    def _fetched_upload(self, name: str) -> Path | None:
        assert self.mirror is not None, "only a bucket has uploads that are not here"
        if not UPLOAD.fullmatch(name):
            return None
        with self.database.read() as db:
            if not UploadTable.select().where(UploadTable.name == name).bind(db).exists():
                return None
        return self.mirror.fetch_upload(name)

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
        path, entry = self.uploads_folder / name, StoredFile("images", name)

        def add(db: Connection) -> None:
            if self.mirror is not None:
                self.mirror.put_is_done(db, entry, part)
            UploadTable.delete().where(UploadTable.name == name).execute(db)
            part.rename(path)
            UploadTable.insert(name=name, size_bytes=size_bytes, last_used=self.clock()).execute(db)

        with self.database.write() as db:
            # the same picture sent twice is one file; a row whose file is gone is written anew
            if self._upload_used(db, path) and path.is_file():
                return path
        with self._put_up(entry, part):
            self._add(size_bytes, add)
        fsync_folder(self.uploads_folder)
        return path

    def removed(self, *, unannounced: bool = False, limit: int = 20) -> list[Removal]:
        """What was removed to make room or because of its age, newest first; unannounced: only what no answer has said yet, each once."""
        with self.database.read() as db:
            found = removals(db, unannounced=unannounced, limit=limit, keep=self.keep)
        if not (unannounced and found):
            return found
        said: list[Removal] = []
        # looked up and marked in one transaction: of two answers at once one says it
        with self._if_there_is_room() as db:
            said = removals(db, unannounced=True, limit=limit, keep=self.keep)
            mark_announced(db)
        return said

    def delete(self, result_id: str) -> None:
        super().delete(result_id)
        self._fill_reserve()

    def close(self) -> None:
        """Give everything back; jobs that this workspace was running may be taken over. Safe to call twice."""
        if self.workers is not None:
            self.workers.leave()
        self.owners.leave()
        self.database.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _upload_used(self, db: Connection, path: Path) -> bool:
        used = UploadTable.update(last_used=self.clock()).where(UploadTable.name == path.name)
        return path.parent == self.uploads_folder and bool(used.execute(db))

    def is_alive(self, token: str) -> bool:
        """Whether the workspace with this token is still open somewhere."""
        return self.owners.is_alive(token) if self.workers is None else self.workers.is_alive(token)

    def require_state(self) -> None:
        """Raises StateAwayError while a bucket does not answer, so that no work is begun that could not be kept."""
        if self.mirror is not None:
            self.mirror.objects.require()

    def _open(self, folder: Path, quota_bytes: int, clock: Callable[[], float], state: State | None) -> None:
        super().__init__(folder, quota_bytes, clock, state)
        self.uploads_folder = self.folder / "images"
        self.workers: Workers | None = None
        if isinstance(self.database, ServerDatabase):
            self.workers = Workers(self.database, self.owners.token, self._look_after_state)
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
            if self.mirror is not None:
                self.mirror.objects.require()
                # a list of all objects takes long, and is needed once
                has_results = self.database.is_new() and bool(self.mirror.objects.below("results"))
            self.database.prepare(may_create=not has_results)
            dead = self.owners.dead()
            self.owners.enter()
            if self.workers is not None:
                self._require_same_place()
                self.workers.enter()
            with self.database.write() as db:
                if self.mirror is None:
                    self._reconcile(db)
            if self.mirror is not None:
                self._forget_gone()
            if dead:
                self._sweep()
            for token in dead:
                self.owners.bury(token)

    def _reconcile(self, db: Connection) -> None:
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

    def _require_same_place(self) -> None:
        """A database belongs to one bucket or one folder: elsewhere its rows would be taken for lost. Raises WorkspaceUnwritableError."""
        assert isinstance(self.database, ServerDatabase)
        place = "objects"
        if self.mirror is None:
            mark = self.folder / STATE_MARK
            with suppress(FileExistsError), mark.open("x", encoding="utf-8") as new:
                new.write(secrets.token_hex(16))
            place = mark.read_text("utf-8")
        with self.database.write() as db:
            if self.database.setting(db, "place", place) != place:
                raise WorkspaceUnwritableError(
                    "the results of this --state lie elsewhere: in the folder that --workspace named when it was new, or in a "
                    "bucket. Name the same one; for several machines begin with --objects"
                )

    def _look_after_state(self) -> None:
        """What the heartbeat does now and then. Raises StateAwayError."""
        if self.mirror is not None:
            self.mirror.sweep()
            self._forget_gone()
        assert self.workers is not None
        self.workers.bury_dead()

    def _forget_gone(self) -> None:
        """This machine's copies of what was deleted on another; those somebody is reading wait."""
        assert self.mirror is not None
        names = {
            "results": _ids_in(self.folder / "results", lambda name: is_id("res", name)),
            "images": _ids_in(self.uploads_folder, lambda name: UPLOAD.fullmatch(name) is not None),
        }
        # alone, so that nothing is between its name and its row
        with self.database.write() as db:
            for kind, known in names.items():
                for name in self.mirror.gone_here(db, kind, known):
                    with suppress(BlockingIOError, FileNotFoundError):
                        remove(self._put_away(StoredFile("results" if kind == "results" else "images", name)))

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
