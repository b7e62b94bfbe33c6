"""Is a state whole that several servers share? Every object against its hash, the index against the bucket; and what mends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from peewee import Database as Connection

from tissuetalk.models.errors import (
    BusyError,
    InvalidArgumentError,
    TissuetalkError,
    UnknownImageError,
    UnknownResultError,
)
from tissuetalk.models.writing import remove
from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.database import JobTable, ResultTable, UploadTable, is_id
from tissuetalk.tools.storage.mirror import Mirror
from tissuetalk.tools.storage.objects import Objects
from tissuetalk.tools.storage.owners import Owners
from tissuetalk.tools.storage.postgres import NameTable, PendingTable, ServerDatabase
from tissuetalk.tools.storage.results import FOLDERS
from tissuetalk.tools.storage.room import StoredFile, drop_row, oldest_first
from tissuetalk.tools.storage.state import State
from tissuetalk.tools.storage.verify import WorkspacePart, check, checked, in_use, is_open, repair
from tissuetalk.tools.storage.workers import Workers
from tissuetalk.tools.storage.workspace import STATE_MARK, UPLOAD


def check_state(state: State, folder: Path) -> list[WorkspacePart]:
    """Of every tenant, also while servers run. Reads every object once, and keeps none. folder: with the files, where no bucket has them.

    Raises InvalidArgumentError for a folder that is not the state's, StateAwayError.
    """
    found: list[WorkspacePart] = []
    if state.objects is None:
        for name, place, each in _folders(state, folder):
            found += [replace(part, name=f"{name}: {part.name}") for part in check(place, each)]
        return found
    for name, mirror, database in _each(state):
        found += [replace(part, name=f"{name}: {part.name}") for part in _parts(mirror, database)]
    return found


def repair_state(state: State, folder: Path) -> list[str]:
    """Index anew what is whole, and set aside what is not, below ``damaged/`` in the bucket or folder. Returns what was done.

    Raises BusyError while a server is at work for any tenant, and as ``check_state``.
    """
    done: list[str] = []
    if state.objects is None:
        places = _folders(state, folder)
        for _, place, _ in places:
            if is_open(place):
                raise in_use(place)
        for name, place, each in places:
            done += [f"{name}: {said}" for said in repair(place, each)]
        return done
    _require_nobody(state)
    for name, mirror, database in _each(state):
        Workers(database, "", mirror.sweep).bury_dead()
        mirror.sweep()
        done += [f"{name}: {each}" for each in _mended(mirror, database)]
        with database.read() as db:
            done.append(f"{name}: {len(oldest_first(db))} results and uploads are in the index")
    return done


def belongs_to_state(folder: Path) -> bool:
    """Whether the index of this workspace, or of its tenants, is in the database of a state without a bucket."""
    return any(True for _ in _marked(folder))


def _marked(folder: Path) -> Iterator[Path]:
    for place in (folder, *sorted((folder / "tenants").glob("*"))):
        if (place / STATE_MARK).is_file():
            yield place


def _folders(state: State, folder: Path) -> list[tuple[str, Path, State]]:
    """The tenants in a folder, their names first."""
    places = list(_marked(folder))
    if not places:
        raise InvalidArgumentError(
            "the files of this --state lie in the folder that serve --workspace names: doctor --workspace FOLDER; or set "
            "TISSUETALK_OBJECTS, if a bucket has them."
        )
    return [
        ("this service", place, state)
        if place == folder
        else (place.name, place, state.of_tenant(place.name))
        for place in places
    ]


def _require_nobody(state: State) -> None:
    """Looked at for all tenants before anything is mended. Raises BusyError."""
    for each in _tenants(state):
        with closing(ServerDatabase(each)) as database:
            if Workers(database, "", lambda: None).any_alive():
                raise BusyError(
                    "servers are at work on this state; end them, wait 20 seconds, then ask again."
                )


def _mended(mirror: Mirror, database: ServerDatabase) -> Iterator[str]:
    with database.read() as db:
        rows = {entry for entry, _, _ in oldest_first(db)}
    there = {StoredFile("results", key.split("/")[1]) for key in mirror.objects.below("results")}
    there |= {StoredFile("images", key.split("/")[1]) for key in mirror.objects.below("images")}
    ours = {each for each in there if is_id("res", each.name) or UPLOAD.fullmatch(each.name)}
    for entry in sorted(rows | ours, key=str):
        try:
            place, problems = _fetched(mirror, entry)
        except (UnknownResultError, UnknownImageError) as error:
            place, problems = None, [str(error)]
        if place is None or problems:
            if entry in there:
                mirror.objects.move(f"{entry.kind}/{entry.name}", f"damaged/{entry.name}")
            with database.write() as db:
                drop_row(db, entry)
                NameTable.delete().where(NameTable.result_id == entry.name).execute(db)
            yield f"{entry.name} was set aside: {problems[0]}"
        elif entry not in rows:
            with database.write() as db:
                _index(db, mirror, entry, place)
            yield f"{entry.name} was put into the index"
        if place is not None:
            remove(place)


def _fetched(mirror: Mirror, entry: StoredFile) -> tuple[Path, list[str]]:
    if entry.kind == "images":
        return mirror.fetch_upload(entry.name), []
    place = mirror.fetch_result(entry.name, 0)
    return place, manifest.problems(place)


def _index(db: Connection, mirror: Mirror, entry: StoredFile, place: Path) -> None:
    now = time.time()
    if entry.kind == "images":
        UploadTable.insert(name=entry.name, size_bytes=place.stat().st_size, last_used=now).execute(db)
        return
    row = manifest.read(place)
    manifest.insert(db, row, row.created_at, last_used=now, size_bytes=manifest.size_of(place))
    mirror.note_names(db, entry.name, place)


def _each(state: State) -> Iterator[tuple[str, Mirror, ServerDatabase]]:
    """Every tenant's, under its name, with a folder that is gone when the next one comes."""
    for each in _tenants(state):
        with TemporaryDirectory(prefix="tissuetalk-") as scratch:
            folder, database = Path(scratch), ServerDatabase(each)
            owners = Owners(folder / "partial")
            for name in (*FOLDERS, f"partial/{owners.token}"):
                (folder / name).mkdir()
            assert each.objects is not None, "those of a tenant lie below those of the state"
            try:
                yield (
                    each.tenant or "this service",
                    Mirror(database, Objects(each.objects), folder, owners),
                    database,
                )
            finally:
                database.close()


def _tenants(state: State) -> Iterator[State]:
    with closing(ServerDatabase(state)) as database, database.read() as db:
        asked = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(tissuetalk$|tenant_)' ORDER BY 1"
        untyped: Any = db
        schemas = [schema for (schema,) in untyped.execute_sql(asked).fetchall()]
    for schema in schemas:
        yield state if schema == state.schema else state.of_tenant(schema.removeprefix("tenant_"))


def _parts(mirror: Mirror, database: ServerDatabase) -> list[WorkspacePart]:
    # before the rows: what is being put up has one in time
    keys = mirror.objects.below("results")
    with database.read() as db:
        results = {row.result_id: row.size_bytes for row in ResultTable.select().execute(db)}
        uploads = [row.name for row in UploadTable.select().execute(db)]
        jobs = JobTable.select().where(JobTable.state.in_(("queued", "running"))).count(db)
        pending = [f"{row.kind}/{row.name}" for row in PendingTable.select().execute(db)]
    unknown = {key.split("/")[1] for key in keys} - {
        *results,
        *(each.partition("/")[2] for each in pending),
    }
    return [
        WorkspacePart("database", f"{len(results)} results, {len(uploads)} uploads, {jobs} unfinished jobs"),
        WorkspacePart("bucket", f"{len(keys)} objects of results", waits=tuple(pending))
        if not unknown
        else WorkspacePart(
            "bucket", "", (f"{len(unknown)} results have no row: {', '.join(sorted(unknown)[:3])}",)
        ),
        checked("results", {name: _result_problems(mirror, name, results[name]) for name in results}),
        checked("uploads", {name: _upload_problems(mirror, name) for name in uploads}),
    ]


def _result_problems(mirror: Mirror, result_id: str, size_bytes: int) -> list[str]:
    try:
        folder = mirror.fetch_result(result_id, size_bytes)
        return manifest.problems(folder)
    except UnknownResultError as error:
        return [str(error)]
    finally:
        remove(mirror.place_of(result_id))


def _upload_problems(mirror: Mirror, name: str) -> list[str]:
    try:
        remove(mirror.fetch_upload(name))
    except TissuetalkError as error:
        return [str(error)]
    return []
