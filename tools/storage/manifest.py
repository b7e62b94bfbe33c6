"""What a result consists of, kept beside its files: enough to check them and to index them anew without the database."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peewee import Database as Connection
from pydantic import BaseModel, ValidationError

from tissuetalk.models.errors import UnknownResultError
from tissuetalk.models.writing import remove, tree_bytes, write_whole
from tissuetalk.tools.storage.database import ResultTable, is_id
from tissuetalk.tools.storage.owners import partials
from tissuetalk.tools.storage.result_folder import ResultFolder

if TYPE_CHECKING:
    from tissuetalk.tools.storage.results import Draft

NAME: Final = "manifest.json"


class Manifest(BaseModel):
    """created_at: seconds since 1970. files: size in bytes and SHA-256 of each as the result was finished, by its path."""

    image_id: str
    kind: str
    created_at: float
    files: dict[str, tuple[int, str]]


@dataclass(frozen=True)
class ResultRow:
    """What the index says of a result, read from its folder."""

    result_id: str
    folder: Path
    image_id: str
    kind: str
    created_at: float


def write(draft: Draft, now: float) -> int:
    """Note the files of a result that is about to be finished. Returns their bytes; the note itself does not count."""
    files = {}
    for parent, _, _ in os.walk(draft.folder):
        for path in partials(Path(parent)):  # a run of a slide that was killed and taken up again left them
            remove(path)
        for path in (entry for entry in Path(parent).iterdir() if entry.is_file()):
            if path.name != NAME:
                files[path.relative_to(draft.folder).as_posix()] = (path.stat().st_size, _sha256(path))
    noted = Manifest(image_id=draft.image_id, kind=draft.kind, created_at=now, files=files)
    write_whole(draft.folder / NAME, noted.model_dump_json())
    return sum(size for size, _ in files.values())


def size_of(folder: Path) -> int:
    """Bytes of a result, without the note about it."""
    noted = 0
    with suppress(FileNotFoundError):
        noted = (folder / NAME).stat().st_size
    return tree_bytes(folder) - noted


def read(folder: Path) -> ResultRow:
    """What a folder says of itself, by its manifest or, where an older version wrote it, by its result.

    Raises UnknownResultError when it says nothing.
    """
    with suppress(FileNotFoundError, ValidationError):
        noted = _noted(folder)
        return ResultRow(folder.name, folder, noted.image_id, noted.kind, noted.created_at)
    made = ResultFolder.existing(folder)
    return ResultRow(
        folder.name, folder, made.result().image.image_id, "segment", (folder / "result.json").stat().st_mtime
    )


def insert(db: Connection, row: ResultRow | Draft, created_at: float, **fields: float) -> None:
    """Into the index."""
    known = {"result_id": row.result_id, "image_id": row.image_id, "kind": row.kind}
    ResultTable.insert(**known, created_at=created_at, **fields).execute(db)


def unindexed(db: Connection, results: Path) -> list[ResultRow]:
    """Whole results that have no row: killed just before it was written, or their database is lost."""
    known = {result_id for (result_id,) in ResultTable.select(ResultTable.result_id).tuples().execute(db)}
    found = []
    for path in results.iterdir():
        if is_id("res", path.name) and path.name not in known:
            with suppress(UnknownResultError):  # stays as it is: `doctor --workspace` says what is wrong
                found.append(read(path))
    return found


def left_in(folder: Path) -> list[Path]:
    """Parts that a killed process has left in a result; files are added to it and to the folders directly in it."""
    return [
        part
        for each in (folder, *(path for path in folder.iterdir() if path.is_dir()))
        for part in partials(each)
    ]


def problems(folder: Path) -> list[str]:
    """What is wrong with the files of a result; empty when they are as they were when it was finished."""
    try:
        noted = _noted(folder)
    except FileNotFoundError:
        return _problems_of_old(folder)
    except (OSError, ValidationError) as error:
        return [f"{NAME} cannot be read ({type(error).__name__})"]
    wrong = []
    for name, (size, sha256) in noted.files.items():
        path = folder / name
        try:
            if path.stat().st_size != size:
                wrong.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
            elif _sha256(path) != sha256:
                wrong.append(f"{name} has changed")
        except FileNotFoundError:
            wrong.append(f"{name} is missing")
        except OSError as error:
            wrong.append(f"{name} cannot be read ({error.strerror})")
    return wrong


def _problems_of_old(folder: Path) -> list[str]:
    """A version that wrote no manifest: the record, and the files it always has."""
    try:
        result = ResultFolder.existing(folder).result()
        json.loads((folder / "request.json").read_bytes())["image"]
    except (UnknownResultError, OSError, ValueError, LookupError, TypeError):
        return ["result.json or request.json is missing or damaged"]
    links = [mask.resources.mask for mask in result.masks]
    links += [mask.resources.instances for mask in result.masks if mask.resources.instances is not None]
    return [f"{link} is missing" for link in links if not (folder / link).is_file()]


def _noted(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / NAME).read_bytes())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
