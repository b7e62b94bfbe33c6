"""Training data in one file: a plain tar of the sets' own folders, licences first, and the folder made of one."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

import platformdirs

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.packed import add_bytes, add_file, described, opened, plain_parts, unpack
from tissuetalk.models.reading import table_of
from tissuetalk.models.writing import place_errors, whole_file

ABOUT: Final = "data.json"
FORMAT: Final = 1
KINDS: Final = frozenset({".csv", ".md", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""What sets are made of."""


def files_of(folder: Path) -> Iterator[Path]:
    """What a set is made of, through links, which are the operator's own. Raises InvalidArgumentError where there is no set."""
    if not (folder / "manifest.csv").is_file():
        raise InvalidArgumentError(f"there is no manifest in {folder}; check data_root and the mix.")
    for parent, _, names in os.walk(folder, followlinks=True):
        yield from (Path(parent, name) for name in names if Path(name).suffix.lower() in KINDS)


def pack(root: Path, files: Iterable[Path], out: Path, most_mb: float | None = None) -> dict[str, int]:
    """Write files below ``root`` as they are into ``out``, which must not exist; returns the bytes of every set.

    Raises InvalidArgumentError where they are more than ``most_mb``.
    """
    chosen = sorted(set(files))
    sizes, licences = defaultdict[str, int](int), dict[str, list[str]]()
    for path in chosen:
        dataset = path.relative_to(root).parts[0]
        sizes[dataset] += path.stat().st_size
        if path.name == "manifest.csv":
            columns, rows = table_of(path)
            licences[dataset] = sorted({row["licence"] for row in rows}) if "licence" in columns else []
    total_mb = sum(sizes.values()) / 1e6
    if most_mb is not None and total_mb > most_mb:
        largest = ", ".join(
            f"{name} {sizes[name] / 1e6:.1f}" for name in sorted(sizes, key=lambda name: -sizes[name])[:5]
        )
        raise InvalidArgumentError(
            f"the data are {total_mb:.1f} MB, more than {most_mb:g}; take sets out of the mix. Largest, in MB: {largest}."
        )
    if out.exists():
        raise InvalidArgumentError(f"{out} exists; choose a new name, nothing is ever overwritten.")
    with place_errors(out), whole_file(out) as partial, tarfile.open(partial, "w:") as tar:
        told = {
            "format": FORMAT,
            "sets": {name: {"bytes": sizes[name], "licences": licences.get(name, [])} for name in sizes},
        }
        add_bytes(tar, ABOUT, json.dumps(told, indent=1).encode())
        for path in chosen:
            add_file(tar, path, path.relative_to(root).as_posix())
    return dict(sizes)


def data_folder(root: Path) -> Path:
    """``root`` itself where it is no file; else what an archive holds, unpacked into the user's cache unless it is there.

    Raises InvalidArgumentError for what is no such archive, WorkspaceFullError; then nothing is left behind.
    """
    if not root.is_file():
        return root
    status = root.stat()
    return _unpacked(root.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _unpacked(file: Path, _size: int, _changed: int) -> Path:
    with file.open("rb") as content:
        name = hashlib.file_digest(content, "sha256").hexdigest()[:32]
    folder = platformdirs.user_cache_path("tissuetalk") / "training-data" / name
    if folder.is_dir():
        return folder
    with place_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with opened(file) as tar, whole_file(folder) as partial:
                sets = described(tar, ABOUT, FORMAT).get("sets")
                if not isinstance(sets, dict):
                    raise tarfile.ReadError("it names no sets")
                partial.mkdir(mode=0o700)
                unpack(tar, partial, lambda name: _is_ours(name, sets))
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise InvalidArgumentError(
                f"{file.name} is no whole archive of training data ({error}); "
                "`tissuetalk train RECIPE --pack FILE` writes one."
            ) from error
        except OSError:
            if not folder.is_dir():  # another run may have unpacked the same one meanwhile
                raise
    return folder


def _is_ours(name: str, sets: Iterable[str]) -> bool:
    parts = plain_parts(name)
    inside = 2 <= len(parts) <= 8 and parts[0] in sets
    return name == ABOUT or (inside and Path(name).suffix.lower() in KINDS)
