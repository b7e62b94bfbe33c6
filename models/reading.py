"""Small files that somebody else wrote: bounded in size and depth before they are parsed. What is wrong is a ValueError."""

from __future__ import annotations

import csv
import os
import stat
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import from_json

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.folders import Folder, read_flags
from tissuetalk.models.writing import as_meant

MOST_JSON_BYTES = 16 * 2**20
_MOST_YAML_BYTES = 2**18
_MOST_TABLE_BYTES = 2**28
_MOST_HEADER_BYTES = 8 * 2**20
"""Of a safetensors file; that of a large model has one or two MB."""


def content_of(path: Path, most_bytes: int, *, within: Path | None = None) -> bytes:
    """All of a regular file.

    within: a real folder above, below which no link is followed.
    Raises OSError (ELOOP for a link), and ValueError for a larger file, a pipe or a device.
    """
    *names, name = path.relative_to(path.parent if within is None else within).parts
    with Folder.at(within or path.parent) as top, top.below(*names) as folder:
        follow = within is None
        if not follow:
            folder.require_no_link(name)
        # looked at before it is opened, because opening a device can already do something
        status = os.stat(folder.at_name(name), dir_fd=folder.descriptor, follow_symlinks=follow)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        opened = os.open(folder.at_name(name), read_flags(follow_symlinks=follow), dir_fd=folder.descriptor)
        with os.fdopen(opened, "rb") as file:
            content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes} bytes")
    return content


def json_in(content: bytes | str, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """A JSON value of at most 200 levels, every number finite."""
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes} bytes of JSON")
    return from_json(content, allow_inf_nan=False)


class _PlainLoader(yaml.SafeLoader):
    """Plain values only. An alias would let a few lines stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias (*name); write the value out")
        return super().compose_node(parent, index)


def yaml_in(content: bytes) -> Any:
    """A YAML value without aliases."""
    if len(content) > _MOST_YAML_BYTES:
        raise ValueError(f"it has more than {_MOST_YAML_BYTES} bytes")
    try:
        return yaml.load(content.decode("utf-8"), Loader=_PlainLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())[:300] or "it is nested too deep") from error


def table_of(path: Path, encoding: str = "utf-8") -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a CSV file with a header, cells as they were before they were made safe for spreadsheets.

    A short row ends in empty cells, a long one loses what has no column. Raises InvalidArgumentError.
    """
    try:
        if path.stat().st_size > _MOST_TABLE_BYTES:
            raise ValueError(f"it has more than {_MOST_TABLE_BYTES} bytes")
        with path.open(encoding=encoding, newline="") as lines:
            table = csv.DictReader(lines)
            rows = [{key: as_meant(row[key] or "") for key in table.fieldnames or ()} for row in table]
            return list(table.fieldnames or ()), rows
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidArgumentError(f"{path.name} is not a table that can be read ({error}).") from error


def require_tensors(content: bytes, size_bytes: int) -> None:
    """Of a safetensors file's first bytes: a header of a plausible length that lies in the file."""
    length = int.from_bytes(content[:8], "little")
    if size_bytes < 8 or 8 + length > size_bytes:
        raise ValueError("it is not a safetensors file, or it is cut off")
    if length > _MOST_HEADER_BYTES:
        raise ValueError(f"its header has more than {_MOST_HEADER_BYTES} bytes")


def require_tensors_at(*paths: Path) -> None:
    """The same of files on disk. Raises OSError, too."""
    for path in paths:
        with path.open("rb") as file:
            require_tensors(file.read(8), path.stat().st_size)
