"""The disk under what we keep: what is said when it refuses, what survives a power cut, and folders of unfinished work."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tissuetalk.models.errors import WorkspaceFullError, WorkspaceUnwritableError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}


def is_disk_full(error: OSError) -> bool:
    """No space or no quota left: the only disk failure that more space would cure."""
    return error.errno in _FULL


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Name what the operator must fix when the workspace in ``folder`` cannot be written.

    Raises WorkspaceFullError for a full disk, WorkspaceUnwritableError for a refused write; anything else passes.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise full_disk(folder) from error
        if error.errno in _UNWRITABLE:
            raise WorkspaceUnwritableError(
                f"cannot write in the workspace {folder} ({error.strerror}); make it writable "
                "or choose another folder with --workspace"
            ) from error
        raise


def full_disk(folder: Path) -> WorkspaceFullError:
    return WorkspaceFullError(
        f"the disk that holds the workspace {folder} is full; free some space, delete results "
        "that are no longer needed, or choose another folder with --workspace"
    )


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(file: BinaryIO) -> None:
    """Make what was written to an open file durable."""
    file.flush()
    os.fsync(file.fileno())


def fsync_tree(folder: Path) -> None:
    """Make every file under ``folder``, and its name, durable."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb+") as file:
                flush(file)
        fsync_folder(Path(parent))


def tree_bytes(folder: Path) -> int:
    """Total size of the files under ``folder``; what vanishes meanwhile does not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total


def remove(path: Path) -> None:
    """Remove a file or a whole folder; already gone is fine."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def unfinished_workspace(out: Path) -> Iterator[Path]:
    """``OUT.unfinished``, where the command line works: on the same disk as the result it will become.

    It stays only if there is slide work to go on with; the same command then finds finished blocks and stored features.
    """
    out = out.absolute()
    folder = out.with_name(f"{out.name}.unfinished")
    # a run keeps a folder of its own here as long as its blocks are worth something
    runs = folder / "unfinished"
    try:
        yield folder
    except BaseException:
        if not (runs.is_dir() and any(entry.is_dir() for entry in runs.iterdir())):
            remove(folder)
        raise
    remove(folder)
