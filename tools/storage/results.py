"""Finished results in the workspace's folder: committed in one step, held while they are read, removed only to make room."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from peewee import Database as Connection

from tissuetalk.models.errors import (
    BusyError,
    InvalidArgumentError,
    StateAwayError,
    TissuetalkError,
    UnknownResultError,
    WorkspaceFullError,
    WorkspaceUnwritableError,
)
from tissuetalk.models.writing import (
    copy_folder,
    disk_errors,
    fsync_folder,
    fsync_tree,
    full_disk,
    is_disk_full,
    place_errors,
    remove,
)
from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.database import Database, FileDatabase, ResultTable, is_id, new_id, shown
from tissuetalk.tools.storage.mirror import Mirror
from tissuetalk.tools.storage.objects import Objects
from tissuetalk.tools.storage.owners import Owners, held
from tissuetalk.tools.storage.postgres import ServerDatabase
from tissuetalk.tools.storage.room import (
    GB,
    KEEP_S,
    Keep,
    StoredFile,
    drop_row,
    expired,
    forget_jobs,
    missing_bytes,
    note_removal,
    removable,
)
from tissuetalk.tools.storage.state import State

FOLDERS = ("results", "images", "cache", "partial", "unfinished", "targets")
_ATTEMPTS = 5
"""At making room: others fill it meanwhile."""


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


class Results:
    """The folder with its database and owners, and the finished results in it.

    quota_bytes: for results and uploads together. What nobody has used for a day makes room, the least recently used first.
    """

    def __init__(
        self, folder: Path, quota_bytes: int, clock: Callable[[], float], state: State | None = None
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.quota_bytes = quota_bytes
        self.keep: Keep | None = None
        self._perhaps_deleted: set[str] = set()
        with disk_errors(self.folder):
            # for this user alone: images and results are about patients
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in FOLDERS:
                (self.folder / name).mkdir(exist_ok=True, mode=0o700)
        self.owners = Owners(self.folder / "partial")
        self.database: Database = FileDatabase(self.folder / "workspace.sqlite")
        self.mirror: Mirror | None = None
        if state is not None:
            self.database = shared = ServerDatabase(state)
            if state.objects is not None:
                self.mirror = Mirror(shared, Objects(state.objects), self.folder, self.owners)

    @contextmanager
    def new_result(self, *, image_id: str, kind: str) -> Iterator[Draft]:
        """A folder to write into, which becomes a result when the block ends and vanishes when it fails.

        Raises WorkspaceFullError, with nothing left behind, when the disk is full or the quota too small.
        """
        result_id = new_id("res")
        draft = Draft(result_id, self.owners.folder / result_id, image_id, kind)
        with disk_errors(self.folder):
            draft.folder.mkdir()
        try:
            with self._names_a_full_disk():
                yield draft
            self.adopt_result(draft)
        finally:
            remove(draft.folder)

    def adopt_result(self, draft: Draft) -> None:
        """A folder in the workspace that holds a whole result becomes one, in one step; on failure it stays.

        Files first and flushed, then the name, then the row: readers go by rows, so they see all or nothing.
        Raises WorkspaceFullError when the disk is full or the quota too small.
        """
        target = self.folder / "results" / draft.result_id
        now = self.clock()
        entry = StoredFile("results", draft.result_id)

        def add(db: Connection) -> None:
            if self.mirror is not None:
                self.mirror.put_is_done(db, entry, draft.folder)
            draft.folder.rename(target)
            manifest.insert(db, draft, now, last_used=now, size_bytes=size_bytes)

        with disk_errors(self.folder):
            size_bytes = manifest.write(draft, now)
            # a row in the database may survive a power cut that the files behind it did not; so files go first
            fsync_tree(draft.folder)
            try:
                with self._put_up(entry, draft.folder):
                    self._add(size_bytes, add)
            except BaseException:  # whatever it was, the row is not there, so the files must not be either
                if target.exists():
                    target.rename(draft.folder)
                raise
            fsync_folder(target.parent)

    @contextmanager
    def _put_up(self, entry: StoredFile, place: Path) -> Iterator[None]:
        """What lies at ``place`` is in the bucket, where there is one, before the block writes its row; on failure it goes again."""
        if self.mirror is None:
            yield
            return
        try:
            self.mirror.put(entry, place)
            yield
        except BaseException:
            with suppress(StateAwayError, BusyError):  # the heartbeat looks after it
                self.mirror.put_failed(entry)
            raise

    def import_result(
        self, folder: Path, result_id: str, image_id: str, without: Collection[str] = ()
    ) -> None:
        """A copy of a result that lies elsewhere, under its own id; nothing is done where it is here already.

        without: names of files that stay behind. Raises InvalidArgumentError for what is no id, UnknownResultError for a
        folder that lacks files of its masks, WorkspaceFullError.
        """
        if not is_id("res", result_id):
            raise InvalidArgumentError(f"{shown(result_id)} is no result's id; segment the image again")
        with suppress(UnknownResultError):
            self._find(result_id)
            return
        draft = Draft(result_id, self.owners.folder / result_id, image_id, "segment")
        try:
            with disk_errors(self.folder):
                copy_folder(folder, draft.folder, without={manifest.NAME, *without})
            if wrong := manifest.problems(draft.folder):
                raise UnknownResultError(
                    f"{folder} cannot be shown: {'; '.join(wrong)[:300]}. Segment again."
                )
            self.adopt_result(draft)
        finally:
            remove(draft.folder)

    def result(self, result_id: str) -> StoredResult:
        """A finished result, now the most recently used. Raises UnknownResultError."""
        stored = self._here(result_id)
        self._used(result_id)
        return stored

    @contextmanager
    def reading(self, result_id: str) -> Iterator[StoredResult]:
        """A result that nobody removes while the block runs. Files added to it meanwhile count for the quota.

        Reading needs no room on the disk. Raises UnknownResultError; WorkspaceFullError where the block has to write
        something and the disk is full.
        """
        stored = self._here(result_id)
        with ExitStack() as stack:
            try:
                stack.enter_context(held(stored.folder))
            except FileNotFoundError as error:
                raise _no_result(result_id) from error
            self._used(result_id)
            try:
                with self._names_a_full_disk(), _names_damage(stored):
                    yield stored
            finally:
                # measured while still held: nobody can take the folder away meanwhile
                size_bytes = manifest.size_of(stored.folder)
                if size_bytes != stored.size_bytes:
                    if self.mirror is not None:
                        self.mirror.put_added(result_id, stored.folder)
                    self._used(result_id, size_bytes=size_bytes)

    def results(self, limit: int = 100) -> list[StoredResult]:
        """Finished results, newest first; ``limit`` at most. With a bucket ``folder`` may hold the answer alone."""
        newest = ResultTable.select().order_by(ResultTable.created_at.desc(), self.database.in_order.desc())
        with self.database.read() as db:
            found = [self._stored(row) for row in newest.limit(max(limit, 0)).execute(db)]
        if (mirror := self.mirror) is not None:
            found = [replace(stored, folder=mirror.glance(stored.result_id)) for stored in found]
        # a row whose files are gone waits for a disk with room to be deleted
        return [stored for stored in found if stored.folder.is_dir()]

    def result_with(self, mask_id: str) -> str | None:
        """The id of the newest result that has the mask."""
        if not is_id("msk", mask_id):
            return None
        if self.mirror is not None:
            return self.mirror.result_named(mask_id)
        found = (self.folder / "results").glob(f"*/masks/{mask_id}.png")
        ids = {path.parent.parent.name for path in found}
        return next((stored.result_id for stored in self.results(10**6) if stored.result_id in ids), None)

    def learned_in_results(self, sha256: str) -> Path | None:
        """A learned target that a result keeps beside its masks."""
        if self.mirror is not None and (result_id := self.mirror.result_named(sha256)) is not None:
            self._here(result_id)
        return next((self.folder / "results").glob(f"*/learned/{sha256}.safetensors"), None)

    def retire(self, keep: Keep) -> list[str]:
        """Take away what nobody has used for longer than it is kept, and note it; what is being read stays. Returns the names."""
        self.keep = keep
        if keep.jobs_s is not None:
            with self.database.write() as db:
                forget_jobs(db, self.clock() - keep.jobs_s)
        with self.database.read() as db:
            old = expired(db, self.clock(), keep)
        gone = [entry.name for entry, size, last_used in old if self._take_away(entry, size, last_used)]
        self._sweep_bucket()
        return gone

    def used_share(self) -> float:
        """Of the quota for results and uploads."""
        with self.database.read() as db:
            return 1 + missing_bytes(db, 0, self.quota_bytes) / self.quota_bytes

    def delete(self, result_id: str) -> None:
        """Remove a result for good, also from a full disk. Raises UnknownResultError, or BusyError while somebody reads it."""
        if result_id not in self._perhaps_deleted:
            self._find(result_id)
        with disk_errors(self.folder):
            try:
                trash = self._put_away(StoredFile("results", result_id))
            except BlockingIOError as error:
                raise BusyError(
                    f"{result_id} is being read by a running call; delete it again when that has ended"
                ) from error
            fsync_folder(self.folder / "results")
            remove(trash)
            if self.mirror is not None:
                # a database that goes away may have taken the row with it, unsaid: then whoever asks again is not refused
                self._perhaps_deleted.add(result_id)
                with self.database.write() as db:
                    self._drop(db, StoredFile("results", result_id))
                self._perhaps_deleted.discard(result_id)
                self._sweep_bucket()
                return
            # a full disk has room now; where the row cannot go, nobody sees it without its files, and it goes at the next start
            with suppress(WorkspaceFullError, BusyError), self.database.write() as db:
                drop_row(db, StoredFile("results", result_id))

    def save(
        self, result_id: str, folder: Path, *, within: Path | None = None, more: Path | None = None
    ) -> None:
        """Copy a result to ``folder``, which must be missing or empty; it appears there complete or not at all.

        within: a real folder above, below which no link is followed. more: a folder of files to lay over those of the result.
        Raises InvalidArgumentError for a folder in use or not writable, WorkspaceFullError when its disk is full.
        """
        target = Path(os.path.realpath(folder.parent)) / folder.name if within is None else folder
        if target.is_relative_to(os.path.realpath(self.folder)):
            raise InvalidArgumentError(
                f"{shown(str(folder))} lies in the workspace itself; choose a folder outside"
            )
        with self.reading(result_id) as stored, self.owners.writing(target), place_errors(target, within):
            copy_folder(
                stored.folder,
                target,
                durable=True,
                within=within or Path(target.anchor),
                without={manifest.NAME},
                more=more,
            )

    def _add(self, size_bytes: int, add: Callable[[Connection], None]) -> None:
        """Run ``add`` in a transaction once ``size_bytes`` more fit. Raises WorkspaceFullError when they cannot."""
        if size_bytes > self.quota_bytes:
            raise WorkspaceFullError(
                f"this alone needs {size_bytes / 1e6:.1f} MB and the workspace may hold {self.quota_bytes / 1e6:.1f} MB; ask "
                "for a smaller region or fewer targets, or start with a larger quota: tissuetalk serve --quota GB"
            )
        for _ in range(_ATTEMPTS):
            with self.database.write() as db:
                missing = missing_bytes(db, size_bytes, self.quota_bytes)
                if missing <= 0:
                    add(db)
                    return
            self._make_room(missing)
        raise BusyError("other calls fill the workspace at the same time; try again in a moment")

    def _make_room(self, missing: int) -> None:
        """Take away what nobody has used for a day until ``missing`` bytes are free, and note it. Raises WorkspaceFullError."""
        asked = missing
        with self.database.read() as db:
            old = removable(db, self.clock())
        if sum(size for _, size, _ in old) < missing:
            old = []  # taken away for nothing
        for entry, size, last_used in old:
            if missing <= 0:
                break
            if self._take_away(entry, size, last_used):
                missing -= size
        self._sweep_bucket()
        if missing > 0:
            raise WorkspaceFullError(
                f"{asked / 1e6:.1f} MB are missing of the {self.quota_bytes / GB:.3g} GB that results and uploads may take, and "
                f"what is in use or younger than {KEEP_S / 3600:.0f} hours is never removed for space; delete results that are no "
                "longer needed (library, action='delete') and try again, or start with a larger quota: tissuetalk serve --quota GB"
            )

    def _take_away(self, entry: StoredFile, size_bytes: int, last_used: float) -> bool:
        """Remove it and note that. False while it is being read."""
        try:
            trash = self._put_away(entry)
        except BlockingIOError:
            return False
        with self.database.write() as db:
            self._drop(db, entry)
            note_removal(db, entry, size_bytes, last_used, self.clock())
        remove(trash)
        return True

    def _put_away(self, entry: StoredFile) -> Path:
        """Move files out of sight, first: a kill after it leaves a row without files, which the next start drops.

        Returns what to ``remove``. Raises BlockingIOError while they are read.
        """
        place = self.folder / entry.kind / entry.name
        trash = self.owners.folder / f"trash_{secrets.token_hex(8)}"
        hold = held(place, alone=True) if entry.kind == "results" else nullcontext()
        with suppress(FileNotFoundError), hold:
            try:
                place.rename(trash)
            except OSError as error:
                if not is_disk_full(error):  # no room for one more name
                    raise
                remove(place)
        return trash

    def _drop(self, db: Connection, entry: StoredFile) -> None:
        drop_row(db, entry)
        if self.mirror is not None:
            self.mirror.remove_later(db, entry)

    def _sweep_bucket(self) -> None:
        if self.mirror is not None:
            with suppress(StateAwayError, BusyError):  # the heartbeat looks after it
                self.mirror.sweep()

    def _here(self, result_id: str) -> StoredResult:
        """With its files in the folder. Raises UnknownResultError."""
        stored = self._find(result_id)
        if self.mirror is not None:
            self.mirror.fetch_result(result_id, stored.size_bytes)
        return stored

    def _find(self, result_id: str) -> StoredResult:
        with self.database.read() as db:
            row = ResultTable.select().where(ResultTable.result_id == result_id).bind(db).first()
        # only what has a row is ever part of a path
        if row is None or (self.mirror is None and not (self.folder / "results" / result_id).is_dir()):
            raise _no_result(result_id)
        return self._stored(row)

    def _used(self, result_id: str, **fields: Any) -> None:
        with self._if_there_is_room() as db:
            used = ResultTable.update(last_used=self.clock(), **fields)
            used.where(ResultTable.result_id == result_id).execute(db)

    @contextmanager
    def _if_there_is_room(self) -> Iterator[Connection]:
        """A transaction for what an answer can do without: where the disk is full or read-only it is left out."""
        with suppress(WorkspaceFullError, WorkspaceUnwritableError), self.database.write() as db:
            yield db

    @contextmanager
    def _names_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if is_disk_full(error):
                raise full_disk(self.folder) from error
            raise

    def _stored(self, row: Any) -> StoredResult:
        folder = self.folder / "results" / row.result_id
        return StoredResult(row.result_id, folder, row.image_id, row.kind, row.created_at, row.size_bytes)


@contextmanager
def _names_damage(stored: StoredResult) -> Iterator[None]:
    """A crash over files that are not as they were written is no crash of ours. Raises UnknownResultError."""
    try:
        yield
    except TissuetalkError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_disk_full(error):
            raise
        if not (wrong := manifest.problems(stored.folder)):
            raise
        raise UnknownResultError(
            f"files of {stored.result_id} are damaged ({'; '.join(wrong[:3])}); segment the image again, and have the operator "
            "look with tissuetalk doctor --workspace"
        ) from error


def _no_result(result_id: str) -> UnknownResultError:
    """Always the same sentence, whether the id is wrong or its result was removed or deleted."""
    return UnknownResultError(
        f"there is no result {shown(result_id)} (it may have been deleted, or removed to make room); "
        "library(action='results') lists what is there, or segment the image again"
    )
