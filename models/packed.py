"""Plain tars: files put in by name, and taken out of one that anybody may have touched.

Names, kinds and sizes of what is inside are looked at before anything is written.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tissuetalk.models.errors import WorkspaceFullError
from tissuetalk.models.reading import json_in

MOST_FILES: Final = 20_000_000
_MOST_ABOUT = 2**20
_MOST_AT_ONCE = 2**22
"""Bytes that reading a header may ask for; a tar can claim that one of its headers has gigabytes."""


class _InSmallPieces(io.BufferedReader):
    """A file that refuses to be read in one piece that is too large."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > _MOST_AT_ONCE:
            raise tarfile.ReadError("a header is larger than any that we write")
        return super().read(size)


@contextmanager
def opened(file: Path) -> Iterator[tarfile.TarFile]:
    """To read. What is wrong with it is a TarError, an EOFError or a ValueError."""
    with (
        file.open("rb", buffering=0) as raw,
        _InSmallPieces(raw) as bounded,
        tarfile.open(fileobj=bounded, mode="r:") as tar,
    ):
        yield tar


def add_file(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """As long as it was when it was opened: an audit log grows meanwhile."""
    with path.open("rb") as file:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = path.stat().st_size, 0o600
        tar.addfile(entry, file)


def add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    tar.addfile(entry, io.BytesIO(content))


def described(tar: tarfile.TarFile, name: str, format_: int) -> dict[str, Any]:
    """What the first file, of this name and format, says of the others."""
    first = tar.next()
    if first is None or first.name != name or not first.isreg() or first.size > _MOST_ABOUT:
        raise tarfile.ReadError("it does not begin as one")
    content = tar.extractfile(first)
    assert content is not None, "regular files have content"
    found = json_in(content.read(_MOST_ABOUT))
    if not isinstance(found, dict) or found.get("format") != format_:
        raise tarfile.ReadError("another version wrote it")
    return found


def plain_parts(name: str) -> list[str]:
    """The parts of a path that stays below where it is laid; none where it might not."""
    parts = name.split("/")
    odd = any(each in ("", ".", "..") or "\\" in each or "\0" in each or ":" in each for each in parts)
    return [] if odd or len(name) > 500 else parts


def unpack(tar: tarfile.TarFile, folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Every file as it is named. is_ours: whether such a file may be in it.

    Raises OSError, TarError, and WorkspaceFullError before a file that has no room.
    """
    free, total = shutil.disk_usage(folder).free, 0
    for number, entry in enumerate(tar):
        if number > MOST_FILES or not entry.isreg() or entry.issparse():
            raise tarfile.ReadError("it holds something that is no plain file")
        if not is_ours(entry.name):
            raise tarfile.ReadError("it holds a file that does not belong there")
        total += entry.size
        if entry.size < 0 or total > free:
            raise WorkspaceFullError(
                f"what is in {entry.size} bytes and more has no room; choose another disk."
            )
        target = folder / entry.name
        content = tar.extractfile(entry)
        assert content is not None, "regular files have content"
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with content, target.open("xb") as written:
                shutil.copyfileobj(content, written, 2**20)
        except (FileExistsError, NotADirectoryError) as error:
            raise tarfile.ReadError("two of its files have the same place") from error
        if target.stat().st_size != entry.size:
            raise tarfile.ReadError("it is cut off")
