"""Results, uploads and taught targets in a bucket, and what this machine has of them in the workspace's folder.

A row in the database says that a thing is there. Objects are put up before it and taken away after it; a note of whose they
are (PendingTable) goes before either, so that whatever a dead process left is found and removed by another.

results/<id>/<path>                 as finished, manifest.json last
results/<id>/added/<sha256>/<path>  what was added to it later, as explanations are
images/<name>, targets/<name>       one object each, its SHA-256 in the name
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from peewee import Database as Connection
from pydantic import ValidationError

from tissuetalk.models.errors import StateAwayError, UnknownImageError, UnknownResultError
from tissuetalk.models.writing import remove, whole_file
from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.database import ResultTable, UploadTable
from tissuetalk.tools.storage.objects import DamagedObjectError, Objects
from tissuetalk.tools.storage.owners import Owners
from tissuetalk.tools.storage.postgres import NameTable, PendingTable, ServerDatabase, WorkerTable
from tissuetalk.tools.storage.room import StoredFile

TARGET: Final = re.compile(r"(?P<key>[0-9a-f]{32})-(?P<sha256>[0-9a-f]{64})\.safetensors")
"""File names of taught targets."""
_ADDED = "added"


class Mirror:
    """folder: the workspace's. owners: whose scratch things are fetched to before they are whole."""

    def __init__(self, database: ServerDatabase, objects: Objects, folder: Path, owners: Owners) -> None:
        self._database, self.objects, self._folder, self._owners = database, objects, folder, owners

    def put(self, entry: StoredFile, place: Path) -> None:
        """A finished result's folder or an upload's file; nobody sees it before its row. Raises StateAwayError."""
        with self._database.write() as db:
            PendingTable.insert(kind=entry.kind, name=entry.name, token=self._owners.token).execute(db)
        key = f"{entry.kind}/{entry.name}"
        if place.is_file():
            self.objects.put({key: place})
            return
        files = [path for path in sorted(place.rglob("*")) if path.is_file() and path.name != manifest.NAME]
        self.objects.put({f"{key}/{path.relative_to(place).as_posix()}": path for path in files})
        self.objects.put({f"{key}/{manifest.NAME}": place / manifest.NAME})

    def put_is_done(self, db: Connection, entry: StoredFile, place: Path) -> None:
        """In the transaction that writes its row."""
        mine = (PendingTable.name == entry.name) & (PendingTable.token == self._owners.token)
        if not PendingTable.delete().where(mine).execute(db):
            raise StateAwayError(
                "this server was not heard of for too long, so what it put up was cleared away; ask again"
            )
        self.note_names(db, entry.name, place)

    def note_names(self, db: Connection, result_id: str, place: Path) -> None:
        """What a result in a folder can be found by."""
        for path in (*place.glob("masks/*.png"), *place.glob("learned/*.safetensors")):
            NameTable.insert(name=path.stem, result_id=result_id).on_conflict_ignore().execute(db)

    def put_failed(self, entry: StoredFile) -> None:
        """It is not to be. Where the bucket or the database is away, somebody's ``sweep`` does it later."""
        with self._database.write() as db:
            mine = (PendingTable.name == entry.name) & (PendingTable.token == self._owners.token)
            PendingTable.update(token=None).where(mine).execute(db)
        self._sweep_one(entry)

    def remove_later(self, db: Connection, entry: StoredFile) -> None:
        """In the transaction that drops its row."""
        PendingTable.insert(kind=entry.kind, name=entry.name, token=None).execute(db)
        NameTable.delete().where(NameTable.result_id == entry.name).execute(db)

    def sweep(self) -> None:
        """Objects that are nobody's. Raises StateAwayError."""
        alive = WorkerTable.select(WorkerTable.token)
        nobodys = PendingTable.select(PendingTable.kind, PendingTable.name).where(
            PendingTable.token.is_null() | PendingTable.token.not_in(alive)
        )
        with self._database.read() as db:
            found = [StoredFile(kind, name) for kind, name in nobodys.tuples().execute(db)]
        for entry in dict.fromkeys(found):
            self._sweep_one(entry)

    def _sweep_one(self, entry: StoredFile) -> None:
        """The same upload may be sent by somebody else right now, so it is looked at and removed as one step."""
        with self._database.write() as db:
            alive = WorkerTable.select(WorkerTable.token)
            this = PendingTable.name == entry.name
            wanted = not self.gone_here(db, entry.kind, [entry.name])
            coming = PendingTable.select().where(this, PendingTable.token.in_(alive)).bind(db).exists()
            if not (wanted or coming):
                self.objects.remove(f"{entry.kind}/{entry.name}")
            gone = PendingTable.token.is_null() | PendingTable.token.not_in(alive)
            PendingTable.delete().where(this, gone).execute(db)

    def result_named(self, name: str) -> str | None:
        """The result that has a mask, or was made with a taught target of this SHA-256."""
        with self._database.read() as db:
            found = NameTable.select().where(NameTable.name == name).bind(db).first()
        return None if found is None else str(found.result_id)

    def place_of(self, result_id: str) -> Path:
        """Where it lies on this machine once it was fetched."""
        return self._folder / "results" / result_id

    def fetch_result(self, result_id: str, size_bytes: int) -> Path:
        """A whole result here, checked against its manifest, and what was added to it since.

        size_bytes: of the result as the database has it. Raises UnknownResultError where it is damaged, StateAwayError.
        """
        place = self.place_of(result_id)
        if place.is_dir() and manifest.size_of(place) == size_bytes:
            return place
        try:
            if not place.is_dir():
                self._fetch_whole(result_id, place)
            self._fetch_added(result_id, place)
        except (DamagedObjectError, ValidationError) as error:
            raise UnknownResultError(
                f"files of {result_id} in the object store are damaged ({error if isinstance(error, DamagedObjectError) else manifest.NAME}); "
                "segment the image again"
            ) from error
        return place

    def _fetch_whole(self, result_id: str, place: Path) -> None:
        scratch = self._owners.folder / f"fetch_{os.urandom(8).hex()}"
        try:
            scratch.mkdir()
            content = self.objects.content(f"results/{result_id}/{manifest.NAME}")
            (scratch / manifest.NAME).write_bytes(content)
            files = manifest.Manifest.model_validate_json(content).files
            self.objects.get(
                {f"results/{result_id}/{name}": (_within(scratch, name), files[name][1]) for name in files}
            )
            try:
                scratch.rename(place)
            except OSError:  # somebody else has fetched it meanwhile
                if not place.is_dir():
                    raise
        finally:
            remove(scratch)

    def _added(self, result_id: str) -> dict[str, tuple[str, str]]:
        """What was added later, the newest of each: its SHA-256 and key, by its path."""
        before = f"results/{result_id}/{_ADDED}/"
        found = self.objects.below(before.rstrip("/"))
        newest = sorted(found, key=lambda key: (found[key], key))
        parts = {key: key.removeprefix(before).partition("/") for key in newest}
        return {path: (sha256, key) for key, (sha256, _, path) in parts.items()}

    def _fetch_added(self, result_id: str, place: Path) -> None:
        scratch = self._owners.folder / f"fetch_{os.urandom(8).hex()}"
        try:
            added = self._added(result_id)
            wanted = {path: each for path, each in added.items() if _sha256(place / path) != each[0]}
            self.objects.get({key: (_within(scratch, path), sha) for path, (sha, key) in wanted.items()})
            for path in wanted:
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                (scratch / path).replace(place / path)
        finally:
            remove(scratch)

    def put_added(self, result_id: str, place: Path) -> None:
        """What a reader has added to a result. Raises StateAwayError."""
        finished = manifest.Manifest.model_validate_json((place / manifest.NAME).read_bytes()).files
        there = self._added(result_id)
        files = {}
        for path in (each for each in sorted(place.rglob("*")) if each.is_file()):
            name = path.relative_to(place).as_posix()
            if name in finished or name == manifest.NAME:
                continue
            sha256 = _sha256(path)
            if there.get(name, ("",))[0] != sha256:
                files[f"results/{result_id}/{_ADDED}/{sha256}/{name}"] = path
        self.objects.put(files)

    def fetch_upload(self, name: str) -> Path:
        """Its file, here. Raises UnknownImageError where it is gone or damaged, StateAwayError."""
        place, sha256 = self._folder / "images" / name, name.partition(".")[0]
        if place.is_file():
            return place
        part = self._owners.folder / f"fetch_{os.urandom(8).hex()}"
        try:
            self.objects.get({f"images/{name}": (part, sha256)})
            part.replace(place)
        except DamagedObjectError as error:
            raise UnknownImageError(
                "the object store no longer has this file as it was sent; send it again"
            ) from error
        finally:
            remove(part)
        return place

    def fetch_targets(self) -> None:
        """The folder of taught targets as the bucket has them. Raises StateAwayError."""
        folder, there = self._folder / "targets", self.objects.below("targets")
        stamps = {key.rpartition("/")[2]: stamp for key, stamp in there.items()}
        for path in folder.iterdir():
            if path.name not in stamps:
                remove(path)
        for name, stamp in stamps.items():
            # what is in it is looked at by whoever reads it
            if not (folder / name).exists() and TARGET.fullmatch(name):
                with suppress(DamagedObjectError):  # forgotten meanwhile
                    content = self.objects.content(f"targets/{name}")
                    with whole_file(folder / name, scratch=self._owners.folder) as part:
                        part.write_bytes(content)
                    os.utime(folder / name, (stamp, stamp))

    def glance(self, result_id: str) -> Path:
        """A folder with a result's answer alone, for a list of many. Raises StateAwayError."""
        place = self.place_of(result_id)
        if place.is_dir():
            return place
        folder = self._owners.folder / "glances" / result_id
        if not folder.is_dir():
            folder.mkdir(parents=True)
            with suppress(DamagedObjectError):  # the list says so
                (folder / "result.json").write_bytes(self.objects.content(f"results/{result_id}/result.json"))
        return folder

    def gone_here(self, db: Connection, folder: str, names: Iterable[str]) -> list[str]:
        """Of these names of things on this machine, those that have no row any more."""
        table, column = (
            (ResultTable, ResultTable.result_id) if folder == "results" else (UploadTable, UploadTable.name)
        )
        known = {name for (name,) in table.select(column).tuples().execute(db)}
        return [name for name in names if name not in known]


def _within(folder: Path, name: str) -> Path:
    """Raises DamagedObjectError for a name that leads out of the folder: whoever writes to the bucket is not trusted with paths."""
    path = folder / name
    if (
        not name
        or (path.is_absolute() and name.startswith("/"))
        or ".." in Path(name).parts
        or "\\" in name
        or "\0" in name
    ):
        raise DamagedObjectError("it names a file outside its folder")
    return path


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
