"""Is a workspace whole? Every result's files, uploads, the index against the folders, leftovers; and what mends it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tissuetalk.models.errors import BusyError, InvalidArgumentError, StateAwayError, TissuetalkError
from tissuetalk.models.writing import disk_errors
from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.database import Database, FileDatabase, JobTable, is_id
from tissuetalk.tools.storage.mirror import TARGET
from tissuetalk.tools.storage.owners import Owners
from tissuetalk.tools.storage.postgres import ServerDatabase
from tissuetalk.tools.storage.room import oldest_first
from tissuetalk.tools.storage.state import State
from tissuetalk.tools.storage.targets import problem_of
from tissuetalk.tools.storage.workspace import STATE_MARK, UPLOAD, Workspace

_MOST_NAMED = 10
"""Problems of one part that are told one by one."""
MEND = "end the servers on this workspace and run doctor with --repair"


@dataclass(frozen=True)
class WorkspacePart:
    """One part of a workspace. problems: empty where it is whole; waits: what the next start clears up by itself."""

    name: str
    what: str
    problems: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()


def check(folder: Path, state: State | None = None) -> list[WorkspacePart]:
    """Every part of a workspace, also while servers run on it; reads every file once. state: that has its index.

    Raises InvalidArgumentError for no workspace.
    """
    _require(folder, state)
    results, uploads = _ids(folder / "results", "res_"), _ids(folder / "images", "")
    part, rows = _index(folder, state)
    known = {*results, *uploads}
    unseen = () if rows is None else tuple(f"{name} is not in the index" for name in sorted(known - rows))
    gone = () if rows is None else tuple(f"the files of {name} are gone" for name in sorted(rows - known))
    return [
        part,
        WorkspacePart(
            "index", "not read" if rows is None else f"{len(rows)} results and uploads", waits=unseen + gone
        ),
        checked("results", {name: manifest.problems(folder / "results" / name) for name in results}),
        checked("uploads", {name: _upload_problems(folder / "images" / name) for name in uploads}),
        checked("taught targets", {path.name: _target_problems(path) for path in _targets(folder)}),
        WorkspacePart(
            "leftovers", "parts of files that killed processes left", waits=tuple(_leftovers(folder))
        ),
    ]


def repair(folder: Path, state: State | None = None) -> list[str]:
    """Index anew what is whole and set aside what is not, in ``damaged/``; nothing is deleted. Returns what was done.

    state: that has its index. Raises BusyError while a server has the workspace open.
    """
    _require(folder, state)
    done = []
    aside = folder / "damaged"
    with disk_errors(folder):
        for name in ("results", "images", "partial"):
            (folder / name).mkdir(exist_ok=True, mode=0o700)
        owners = Owners(folder / "partial")
        with owners.registry():
            if owners.living():
                raise in_use(folder)
            if _index(folder, state)[0].problems:
                if state is None:
                    aside.mkdir(exist_ok=True, mode=0o700)
                    stamp = time.strftime("%Y%m%d-%H%M%S")
                    for suffix in ("", "-wal", "-shm"):
                        path = folder / f"workspace.sqlite{suffix}"
                        if path.exists():
                            path.rename(aside / f"{stamp}-{path.name}")
                with closing(_database(folder, state)) as database:
                    database.prepare(may_create=True)
                done.append(
                    "the database was set aside and made anew; the list of jobs, and where images lay, are lost"
                )
            for path, problems in _damaged(folder):
                aside.mkdir(exist_ok=True, mode=0o700)
                path.rename(aside / path.name)
                done.append(f"{path.name} was set aside: {problems[0]}")
    with Workspace(folder, state=state) as workspace, workspace.database.read() as db:
        done.append(f"{len(oldest_first(db))} results and uploads are in the index")
    return done


def _damaged(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for name in _ids(folder / "results", "res_"):
        if problems := manifest.problems(folder / "results" / name):
            yield folder / "results" / name, problems
    for name in _ids(folder / "images", ""):
        if problems := _upload_problems(folder / "images" / name):
            yield folder / "images" / name, problems
    for path in _targets(folder):
        if problems := _target_problems(path):
            yield path, problems


def _targets(folder: Path) -> list[Path]:
    """Files of learned targets."""
    place = folder / "targets"
    return sorted(path for path in place.iterdir() if TARGET.fullmatch(path.name)) if place.is_dir() else []


def _target_problems(path: Path) -> list[str]:
    problem = problem_of(path)
    return [problem] if problem and path.exists() else []


def is_open(folder: Path) -> bool:
    """Whether a server has the workspace open now."""
    owners = Owners(folder / "partial")
    with owners.registry():
        return bool(owners.living())


def in_use(folder: Path) -> BusyError:
    return BusyError(f"a server has the workspace {folder} open; end it, then run doctor --repair again")


def _require(folder: Path, state: State | None) -> None:
    if state is None and (folder / STATE_MARK).exists():
        raise InvalidArgumentError(
            f"the index of {folder} is in a database; set TISSUETALK_STATE to its address, as serve --state has it."
        )
    if not any((folder / name).exists() for name in ("workspace.sqlite", "results")):
        raise InvalidArgumentError(f"{folder} is no workspace; give the folder that serve --workspace names.")


def _ids(folder: Path, prefix: str) -> list[str]:
    """Names of results or uploads; anything else in the folder is somebody's own."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if (is_id("res", name) if prefix else UPLOAD.fullmatch(name))]


def _database(folder: Path, state: State | None) -> Database:
    return FileDatabase(folder / "workspace.sqlite") if state is None else ServerDatabase(state)


def _index(folder: Path, state: State | None) -> tuple[WorkspacePart, set[str] | None]:
    """What the database is like, and the results and uploads it names where it can be read."""
    database = _database(folder, state)
    if isinstance(database, FileDatabase) and not database.path.is_file():
        return WorkspacePart("database", "workspace.sqlite", (f"workspace.sqlite is missing; {MEND}",)), None
    try:
        database.prepare(may_create=False)
        database.read_all()
        with database.read() as db:
            rows = {entry.name for entry, _, _ in oldest_first(db)}
            jobs = JobTable.select().where(JobTable.state.in_(("queued", "running"))).count(db)
    except StateAwayError:
        raise
    except TissuetalkError as error:
        return WorkspacePart("database", "", (str(error),)), None
    finally:
        database.close()
    return WorkspacePart("database", f"sound; {jobs} unfinished jobs"), rows


def checked(name: str, problems: dict[str, list[str]]) -> WorkspacePart:
    """A part of many things, by what is wrong with each."""
    wrong = [f"{which}: {'; '.join(each[:3])}" for which, each in problems.items() if each]
    told = wrong[:_MOST_NAMED]
    if len(wrong) > len(told):
        told.append(f"and {len(wrong) - len(told)} more")
    if told:
        told.append(f"delete them, or {MEND}, which sets them aside")
    return WorkspacePart(name, f"{len(problems) - len(wrong)} of {len(problems)} whole", tuple(told))


def _upload_problems(path: Path) -> list[str]:
    named = UPLOAD.fullmatch(path.name)
    assert named is not None, "only uploads are asked about"
    try:
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == named["sha256"]
    except FileNotFoundError:
        return []  # removed meanwhile
    except OSError as error:
        return [f"cannot be read ({error.strerror})"]
    return [] if whole else ["its content is not what its name says"]


def _leftovers(folder: Path) -> Iterator[str]:
    if (folder / "partial").is_dir():
        owners = Owners(folder / "partial")
        with owners.registry():
            yield from (f"partial/{token}" for token in owners.dead())
    for name in _ids(folder / "results", "res_"):
        yield from (str(part.relative_to(folder)) for part in manifest.left_in(folder / "results" / name))
