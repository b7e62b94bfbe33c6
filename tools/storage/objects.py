"""A bucket, or whatever fsspec calls by an address: files put there whole and read back into a folder, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError, StateAwayError
from tissuetalk.models.writing import is_disk_full

_AT_ONCE = 16
_CLIENT = {"connect_timeout": 5, "read_timeout": 10, "retries": {"total_max_attempts": 1}}
"""A bucket that is gone is noticed within seconds, also while it only hangs."""


class DamagedObjectError(Exception):
    """An object is missing, or is not what was put there."""


class Objects:
    """Keys are paths below the address. Any number of threads and processes may use the same one."""

    def __init__(self, address: str) -> None:
        self._address = address

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """fsspec's file system and the path in it. Listings are never kept: other processes write, too."""
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # it has no types

        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if self._address.startswith("s3://"):
            options |= {"config_kwargs": _CLIENT}
        try:
            system, root = url_to_fs(self._address, **options)
        except ImportError as error:
            raise ModelUnavailableError(
                "--objects needs a package for its kind of address; run: pip install 'tissuetalk[service]'"
            ) from error
        except ValueError as error:
            raise InvalidArgumentError(
                "--objects is no address that fsspec knows, such as s3://tissuetalk/results."
            ) from error
        system.retries = 2  # s3fs tries again on its own, above what botocore does
        return system, str(root)

    def put(self, files: Mapping[str, Path]) -> None:
        """Files by their keys; each is there whole or not at all. Raises StateAwayError."""
        with self._errors() as (system, root):
            if "file" in system.protocol:
                for key in files:
                    system.makedirs(f"{root}/{key}".rsplit("/", 1)[0], exist_ok=True)
            near = [str(path) for path in files.values()]
            system.put(near, [f"{root}/{key}" for key in files], batch_size=_AT_ONCE)

    def get(self, files: Mapping[str, tuple[Path, str]]) -> None:
        """Objects to files, by key: where to, and the SHA-256 it must have. Raises DamagedObjectError, StateAwayError."""
        for path, _ in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors() as (system, root):
            far = [f"{root}/{key}" for key in files]
            system.get(far, [str(path) for path, _ in files.values()], batch_size=_AT_ONCE)
        for key, (path, sha256) in files.items():
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise DamagedObjectError(f"{key} has changed")

    def content(self, key: str) -> bytes:
        """A small object. Raises DamagedObjectError where there is none, StateAwayError."""
        with self._errors() as (system, root):
            found: bytes = system.cat_file(f"{root}/{key}")
            return found

    def below(self, folder: str) -> dict[str, float]:
        """Keys in a folder, below it at any depth, with when each was put there, in seconds since 1970."""
        with self._errors() as (system, root):
            found = system.find(f"{root}/{folder}", detail=True)
            return {path[len(root) + 1 :]: _moment(about) for path, about in found.items()}

    def move(self, key: str, to: str) -> None:
        """An object, or all below a folder, under another name. Raises StateAwayError, DamagedObjectError where there is nothing."""
        with self._errors() as (system, root):
            for path in system.find(f"{root}/{key}"):
                moved = f"{root}/{to}{path[len(f'{root}/{key}') :]}"
                if "file" in system.protocol:
                    system.makedirs(moved.rsplit("/", 1)[0], exist_ok=True)
                system.mv(path, moved)

    def remove(self, key: str) -> None:
        """An object, or all below a folder; nothing is done where there is nothing. Raises StateAwayError."""
        with self._errors() as (system, root):
            try:
                system.rm(f"{root}/{key}", recursive=True)
            except FileNotFoundError:
                return

    def require(self) -> None:
        """Raises StateAwayError where the bucket does not answer, InvalidArgumentError where there is none."""
        with self._errors() as (system, root):
            if "file" in system.protocol:
                system.makedirs(root, exist_ok=True)
                return
            try:
                system.info(root.partition("/")[0])
            except (FileNotFoundError, PermissionError) as error:
                raise InvalidArgumentError(
                    "--objects names a bucket that does not exist, or that these credentials may not see; create it first."
                ) from error

    @contextmanager
    def _errors(self) -> Iterator[tuple[Any, str]]:
        try:
            yield self._place
        except FileNotFoundError as error:
            raise DamagedObjectError("an object is missing") from error
        except (InvalidArgumentError, ModelUnavailableError):
            raise
        except Exception as error:  # whatever the client of the store raises: each has its own kinds
            if isinstance(error, OSError) and error.filename is not None and is_disk_full(error):
                raise  # of the folder here
            raise StateAwayError(
                "the object store of this service does not answer; nothing of this call was kept. Ask again in a few "
                "seconds; if it lasts, the operator looks after the bucket at --objects"
            ) from error


def _moment(about: Mapping[str, Any]) -> float:
    stamp = about.get("LastModified", about.get("mtime", 0.0))
    return float(stamp.timestamp() if hasattr(stamp, "timestamp") else stamp)
