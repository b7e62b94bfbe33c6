"""Is a state whole that several servers share? Every object against its hash, the index against the bucket; also while they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tissuetalk.models.errors import InvalidArgumentError, TissuetalkError, UnknownResultError
from tissuetalk.models.writing import remove
from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.database import JobTable, ResultTable, UploadTable
from tissuetalk.tools.storage.mirror import Mirror
from tissuetalk.tools.storage.objects import Objects
from tissuetalk.tools.storage.owners import Owners
from tissuetalk.tools.storage.postgres import PendingTable, ServerDatabase
from tissuetalk.tools.storage.results import FOLDERS
from tissuetalk.tools.storage.state import State
from tissuetalk.tools.storage.verify import WorkspacePart, checked


def check_state(state: State) -> list[WorkspacePart]:
    """Of every tenant. Reads every object once, and keeps none. Raises InvalidArgumentError where files lie in a folder, StateAwayError."""
    if state.objects is None:
        raise InvalidArgumentError(
            "the files of this --state lie in a folder; look at it with --workspace and without --state."
        )
    found: list[WorkspacePart] = []
    for each in _tenants(state):
        name = each.tenant or "this service"
        with TemporaryDirectory(prefix="tissuetalk-") as scratch:
            found += [replace(part, name=f"{name}: {part.name}") for part in _parts(each, Path(scratch))]
    return found


def _tenants(state: State) -> Iterator[State]:
    database = ServerDatabase(state)
    try:
        with database.read() as db:
            asked = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(tissuetalk$|tenant_)' ORDER BY 1"
            untyped: Any = db
            schemas = [schema for (schema,) in untyped.execute_sql(asked).fetchall()]
    finally:
        database.close()
    for schema in schemas:
        yield state if schema == state.schema else state.of_tenant(schema.removeprefix("tenant_"))


def _parts(state: State, scratch: Path) -> list[WorkspacePart]:
    for name in FOLDERS:
        (scratch / name).mkdir()
    owners, database = Owners(scratch / "partial"), ServerDatabase(state)
    owners.folder.mkdir()
    assert state.objects is not None
    mirror = Mirror(database, Objects(state.objects), scratch, owners)
    try:
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
            WorkspacePart(
                "database", f"{len(results)} results, {len(uploads)} uploads, {jobs} unfinished jobs"
            ),
            WorkspacePart("bucket", f"{len(keys)} objects of results", waits=tuple(pending))
            if not unknown
            else WorkspacePart(
                "bucket", "", (f"{len(unknown)} results have no row: {', '.join(sorted(unknown)[:3])}",)
            ),
            checked("results", {name: _result_problems(mirror, name, results[name]) for name in results}),
            checked("uploads", {name: _upload_problems(mirror, name) for name in uploads}),
        ]
    finally:
        database.close()


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
