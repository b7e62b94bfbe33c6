"""A copy of a workspace in one file, taken while servers use it, and a workspace made from one.

The file is a plain tar. The index is copied by SQLite itself, as it was at one moment; every result that it names is held while its
files are read, and has them in its manifest. What comes back is checked as `doctor --workspace` does before it takes its place.
A backup that comes back may have been touched by anybody: names, kinds and sizes are looked at before anything is written.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tissuetalk.models.errors import InvalidArgumentError, UnknownResultError
from tissuetalk.models.packed import add_bytes, add_file, described, opened, plain_parts, unpack
from tissuetalk.models.writing import disk_errors, fsync_tree, place_errors, remove, whole_file
from tissuetalk.tools.storage import verify
from tissuetalk.tools.storage.database import is_id
from tissuetalk.tools.storage.mirror import TARGET
from tissuetalk.tools.storage.owners import held, partials
from tissuetalk.tools.storage.workspace import UPLOAD

ABOUT: Final = "backup.json"
FORMAT: Final = 1
INDEX: Final = "workspace.sqlite"
BESIDE: Final = ("signing.key", "audit.jsonl")
"""Of a server with accounts, beside the workspaces of its tenants."""
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def backup(workspace: Path, out: Path) -> dict[str, int]:
    """Write ``out``, which must not exist. Returns how many results, uploads and targets are in it.

    Raises InvalidArgumentError for what is no workspace or no place for a file, WorkspaceFullError.
    """
    places = list(_workspaces(workspace))
    if not places:
        raise InvalidArgumentError(
            f"{workspace} is no workspace; give the folder that serve --workspace names."
        )
    if out.exists():
        raise InvalidArgumentError(f"{out} exists; choose a new name, nothing is ever overwritten.")
    counts = {"results": 0, "uploads": 0, "targets": 0}
    with place_errors(out), whole_file(out, durable=True) as partial, tarfile.open(partial, "w:") as tar:
        about = {"format": FORMAT, "made_at": time.time(), "workspaces": [str(place) for place in places]}
        add_bytes(tar, ABOUT, json.dumps(about).encode())
        for place in places:
            _add_workspace(tar, workspace, place, counts)
        for name in BESIDE:
            with suppress(FileNotFoundError):
                add_file(tar, workspace / name, name)
    return counts


def _workspaces(folder: Path) -> Iterator[PurePosixPath]:
    """The workspace itself, and those of the tenants in it, from the folder."""
    if (folder / INDEX).is_file():
        yield PurePosixPath(".")
    for each in sorted((folder / "tenants").iterdir()) if (folder / "tenants").is_dir() else ():
        if _TENANT.fullmatch(each.name) and (each / INDEX).is_file():
            yield PurePosixPath("tenants", each.name)


def _add_workspace(tar: tarfile.TarFile, top: Path, place: PurePosixPath, counts: dict[str, int]) -> None:
    folder = top / place
    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(scratch) / INDEX
        uri = f"{(folder / INDEX).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as live, closing(sqlite3.connect(copied)) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = delete")
            results = [row for (row,) in copy.execute("SELECT result_id FROM results")]
            uploads = [row for (row,) in copy.execute("SELECT name FROM uploads")]
        add_file(tar, copied, str(place / INDEX))
    for result_id in (each for each in results if is_id("res", each)):
        # deleted meanwhile: the start on what comes back forgets its row
        with suppress(FileNotFoundError), held(folder / "results" / result_id):
            _add_result(tar, folder / "results" / result_id, place / "results" / result_id)
            counts["results"] += 1
    targets = [path.name for path in folder.glob("targets/*") if TARGET.fullmatch(path.name)]
    for kind, names in (
        ("images", [each for each in uploads if UPLOAD.fullmatch(each)]),
        ("targets", targets),
    ):
        for name in names:
            with suppress(FileNotFoundError):
                add_file(tar, folder / kind / name, str(place / kind / name))
                counts["uploads" if kind == "images" else kind] += 1


def _add_result(tar: tarfile.TarFile, folder: Path, place: PurePosixPath) -> None:
    """Every whole file of it; what is being added this moment is left out."""
    skipped = set(partials(folder)) | {
        part for each in folder.rglob("*") if each.is_dir() for part in partials(each)
    }
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path not in skipped:
            add_file(tar, path, str(place / path.relative_to(folder).as_posix()))


def restore(file: Path, workspace: Path) -> list[verify.WorkspacePart]:
    """Make ``workspace``, which must be missing or empty, from a backup. Returns what the doctor said of it.

    Raises InvalidArgumentError for what is no backup of ours, or is damaged; then nothing is left behind.
    """
    if workspace.exists() and (not workspace.is_dir() or any(workspace.iterdir())):
        raise InvalidArgumentError(f"{workspace} is not empty; name a new folder.")
    if not file.is_file():
        raise InvalidArgumentError(f"{file} is no file; name what tissuetalk backup wrote.")
    with place_errors(workspace):
        workspace.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=workspace.parent, prefix=".restore-"))  # for this user alone
        try:
            with opened(file) as tar:
                places = _places(described(tar, ABOUT, FORMAT))
                allowed = {str(place) for place in places}
                with disk_errors(partial):
                    unpack(tar, partial, lambda name: _is_ours(name, allowed))
            found = [part for place in places for part in _checked(partial / place, workspace / place)]
            fsync_tree(partial)
            partial.replace(workspace)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise InvalidArgumentError(f"{file.name} is no whole backup of a workspace ({error}).") from error
        finally:
            remove(partial)
    return found


def _places(told: Mapping[str, Any]) -> list[PurePosixPath]:
    """The workspaces in it."""
    named = [PurePosixPath(str(each)) for each in told.get("workspaces", ())]
    wrong = [each for each in named if str(each) != "." and not _is_tenant(each)]
    if not named or wrong:
        raise tarfile.ReadError("it names a workspace that no server makes")
    return named


def _is_tenant(place: PurePosixPath) -> bool:
    return len(place.parts) == 2 and place.parts[0] == "tenants" and bool(_TENANT.fullmatch(place.parts[1]))


def _is_ours(name: str, places: set[str]) -> bool:
    """Whether a backup has such a file, of one of the workspaces it names."""
    if not (parts := plain_parts(name)):
        return False
    if name == ABOUT or name in BESIDE:
        return True
    inside, here = (parts[2:], "/".join(parts[:2])) if parts[0] == "tenants" else (parts, ".")
    if here not in places or not inside:
        return False
    kind, *rest = inside
    return (
        inside == [INDEX]
        or (kind == "results" and 2 <= len(rest) <= 12 and is_id("res", rest[0]))
        or (kind == "images" and len(rest) == 1 and UPLOAD.fullmatch(rest[0]) is not None)
        or (kind == "targets" and len(rest) == 1 and TARGET.fullmatch(rest[0]) is not None)
    )


def _checked(folder: Path, final: Path) -> list[verify.WorkspacePart]:
    """The doctor's parts. final: where the folder will lie. Raises InvalidArgumentError where one is broken."""
    for name in ("results", "images", "partial"):
        (folder / name).mkdir(exist_ok=True, mode=0o700)
    if not (folder / INDEX).is_file():
        raise tarfile.ReadError("an index is missing")
    try:
        with closing(sqlite3.connect(folder / INDEX)) as index:
            index.execute("PRAGMA trusted_schema = OFF")
            if index.execute(
                "SELECT count(*) FROM sqlite_master WHERE type IN ('trigger', 'view')"
            ).fetchone()[0]:
                raise tarfile.ReadError("its index has what we never write")
            for (name,) in index.execute("SELECT name FROM uploads").fetchall():
                if named := UPLOAD.fullmatch(name):  # where uploads lie is written down with the old folder
                    place = str(final.absolute() / "images" / name)
                    image_id = f"img_{named['sha256'][:32]}"
                    index.execute("UPDATE images SET path = ? WHERE image_id = ?", (place, image_id))
            index.commit()
    except sqlite3.Error as error:
        raise tarfile.ReadError("its index is damaged") from error
    try:
        parts = verify.check(folder)
    except UnknownResultError as error:
        raise tarfile.ReadError("a result is damaged") from error
    if wrong := [problem for part in parts for problem in part.problems]:
        raise tarfile.ReadError(f"{'; '.join(wrong)[:500]}")
    return parts
