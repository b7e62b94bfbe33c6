"""Slides and results at fsspec addresses: ``file://``, ``zip://``, ``memory://``, ``s3://`` and whatever is installed.

OpenSlide wants a file on a disk. So a slide at ``file://`` is read where it lies, and one at any other address is copied
whole to a local folder first. Slides of several files (MRXS, a DICOM series) are read from local folders only. Results
are written locally and copied to their address when a slide is finished.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tissuetalk.models.errors import (
    InvalidArgumentError,
    ModelUnavailableError,
    UnknownImageError,
    UnreadableImageError,
)
from tissuetalk.models.images.parts import series_of
from tissuetalk.models.writing import disk_errors, is_disk_full, whole_file

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SEVERAL_FILES = (".mrxs", ".dcm")


def is_address(text: str) -> bool:
    """Whether it names a protocol, rather than being a path."""
    return _ADDRESS.match(text) is not None


def expand(patterns: Sequence[str]) -> list[str]:
    """Every file the paths, patterns and addresses name, sorted, each once; paths are made absolute.

    Raises UnknownImageError for a pattern that names nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        named = _expanded(pattern)
        if not named:
            raise UnknownImageError(f"nothing is called {pattern!r}; check the path or the pattern.")
        found.update(named)
    # a DICOM slide has a file per level: of those of one series in one folder, the largest
    chosen: dict[tuple[str, str], str] = {}
    for slide in sorted(found):
        path = local_path(slide)
        is_dicom = path is not None and path.suffix.lower() == ".dcm"
        series = (series_of(path) if path and is_dicom else None) or slide
        key = ("" if path is None else str(path.parent), series)
        # the largest file of a series is its finest level
        if key not in chosen or (path and path.stat().st_size > Path(chosen[key]).stat().st_size):
            chosen[key] = slide
    return sorted(chosen.values())


def _expanded(pattern: str) -> list[str]:
    """``zip://*.svs::s3://…/a.zip`` keeps the part behind ``::``, which says where the archive lies."""
    # a file may have a name that reads as a pattern
    if not is_address(pattern) and Path(pattern).is_file():
        return [str(Path(pattern).absolute())]
    if not is_address(pattern):
        with _store(str(Path(pattern).absolute())) as (system, path):
            return [str(match) for match in system.glob(path) if system.isfile(match)]
    head, *behind = pattern.split("::", 1)
    protocol = head.split("://", 1)[0]
    with _store(pattern) as (system, path):
        matches = system.glob(path) if any(sign in path for sign in "*?[") else [path]
        return ["::".join([f"{protocol}://{match}", *behind]) for match in matches if system.isfile(match)]


def local_path(address: str) -> Path | None:
    """Where a slide can be read in place, or None when it must be copied first."""
    if not is_address(address):
        return Path(address)
    return Path(address.removeprefix("file://")) if address.startswith("file://") else None


def stamp(address: str) -> str:
    """Changes when the content does, as far as its store knows: size and time of a file, ETag of an object.

    Raises UnknownImageError when it is gone.
    """
    path = local_path(address)
    if path is not None:
        try:
            status = path.stat()
        except OSError as error:
            raise UnknownImageError(f"{address} is gone; put it back, or leave it out.") from error
        return f"{status.st_size} {status.st_mtime_ns}"
    with _store(address) as (system, inner):
        return str(system.ukey(inner))


def fetch(address: str, folder: Path) -> Path:
    """The slide as a local file; copied into ``folder`` unless it lies on a disk here or was copied before."""
    path = local_path(address)
    # OpenSlide reads it in place
    if path is not None:
        return path
    name = address.split("::", 1)[0].rstrip("/").rsplit("/", 1)[-1]
    if name.lower().endswith(_SEVERAL_FILES):
        raise UnreadableImageError(
            f"{name} is a slide of several files; copy all of them to a local folder and give its path."
        )
    # the stamp is part of the name: a slide that changed at its address is fetched again
    key = hashlib.sha256(f"{address} {stamp(address)}".encode()).hexdigest()[:16]
    copy = folder / key / name
    if not copy.is_file():
        with disk_errors(folder):
            copy.parent.mkdir(parents=True, exist_ok=True)
        with (
            _store(address) as (system, inner),
            whole_file(copy) as partial,
            system.open(inner, "rb") as far,
            partial.open("wb") as near,
        ):
            shutil.copyfileobj(far, near, 2**20)
    return copy


def put(local: Path, address: str) -> None:
    """Copy a file, or a folder with all below it, to an address. What was there is replaced."""
    with _store(address) as (system, inner):
        for path in sorted(local.rglob("*")) if local.is_dir() else [local]:
            if path.is_file():
                target = f"{inner}/{path.relative_to(local).as_posix()}" if local.is_dir() else inner
                system.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
                system.put_file(str(path), target)


def content(address: str) -> bytes | None:
    """A small file, or None when there is none."""
    with _store(address) as (system, inner):
        if not system.isfile(inner):
            return None
        found: bytes = system.cat_file(inner)
        return found


@contextmanager
def _store(address: str) -> Iterator[tuple[Any, str]]:
    """fsspec's file system and the path in it; whatever the store refuses is said with what to do about it."""
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # it has no types

        system, path = url_to_fs(address)
        yield system, str(path)
    except FileNotFoundError as error:
        raise UnknownImageError(f"there is nothing at {address}; check the address.") from error
    except ImportError as error:
        raise ModelUnavailableError(f"{address} needs one more package: {error}.") from error
    except ValueError as error:
        raise InvalidArgumentError(f"{address} is not an address that can be read: {error}.") from error
    except OSError as error:
        # the local disk, not the address: who called knows which folder it is
        if is_disk_full(error):
            raise
        raise UnreadableImageError(
            f"{address} cannot be reached ({error.strerror or type(error).__name__}); check access and try again."
        ) from error
