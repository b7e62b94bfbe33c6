"""Writing so that readers, and a kill at any moment, find the whole of it or nothing; and what is said when a disk refuses."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from tissuetalk.models.errors import (
    InvalidArgumentError,
    ModelUnavailableError,
    WorkspaceFullError,
    WorkspaceUnwritableError,
)
from tissuetalk.models.folders import Folder, parent_of

if TYPE_CHECKING:
    from torch import Tensor

_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}


@contextmanager
def whole_file(
    path: Path, *, durable: bool = False, scratch: Path | None = None, within: Path | None = None
) -> Iterator[Path]:
    """A place for a file, or a whole folder, that takes the name of ``path`` when the block ends well, else is removed.

    Several may write the same file at once: the last one stands. A folder takes the place of none, or of an empty one.

    durable: survives a power cut, not only a kill. scratch: folder to write in, on the same disk; by default beside
    ``path``, where a kill leaves the unfinished file lying. within: a real folder above ``path``, below which links are refused.
    """
    name = f".{path.name}.{uuid.uuid4().hex[:12]}.partial"
    # within one disk the rename is a single step, and the folder stays open: a link swapped in on the way leads nowhere
    with parent_of(path, within) as folder:
        partial = folder.through(name) if scratch is None else scratch / name
        try:
            yield partial
            if durable:
                fsync_tree(partial)
            if scratch is None:
                folder.rename(name, path.name)
            else:
                os.replace(partial, folder.at_name(path.name), dst_dir_fd=folder.descriptor)
            if durable:
                folder.sync()
        finally:
            remove(partial)


@contextmanager
def whole_folder(
    path: Path, *, scratch: Path | None = None, durable: bool = False, within: Path | None = None
) -> Iterator[Path]:
    """A private folder to fill, by any library and any number of files, whose content becomes the new folder ``path``.

    scratch: where the private folder is made, out of reach of those who may write beside ``path``; by default where temporary
    files go. within, durable: as for ``whole_file``.
    """
    with tempfile.TemporaryDirectory(prefix="tissuetalk-", dir=scratch) as private:
        yield Path(private)
        copy_folder(Path(private), path, durable=durable, within=within)


def copy_folder(
    source: Path,
    path: Path,
    *,
    durable: bool = False,
    within: Path | None = None,
    without: Collection[str] = (),
    more: Path | None = None,
) -> None:
    """The files of a folder of ours as the new folder ``path``, which must be missing or empty: all of them or none.

    durable, within: as for ``whole_file``. without: names of files that stay behind. more: a folder of files to
    lay over them. Raises OSError.
    """
    name = f".{path.name}.{uuid.uuid4().hex[:12]}.partial"
    with parent_of(path, within) as folder:
        try:
            with folder.below(name, create=True) as copy:
                laid_over = () if more is None else {path.name for path in more.iterdir()}
                _copy_into(source, copy, durable, {*without, *laid_over})
                if more is not None:
                    _copy_into(more, copy, durable, ())
            folder.rename(name, path.name)
            if durable:
                folder.sync()
        finally:
            folder.remove(name)


def _copy_into(source: Path, folder: Folder, durable: bool, without: Collection[str]) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                with folder.below(entry.name, create=True) as below:
                    _copy_into(Path(entry.path), below, durable, without)
            elif entry.is_file(follow_symlinks=False) and entry.name not in without:
                with Path(entry.path).open("rb") as own, os.fdopen(folder.create(entry.name), "wb") as copy:
                    shutil.copyfileobj(own, copy, 2**20)
                    if durable:
                        flush(copy)
    if durable:
        folder.sync()


def write_whole(path: Path, content: bytes | str, *, within: Path | None = None) -> None:
    """All of ``content`` (text as UTF-8), or what was there before."""
    with whole_file(path, within=within) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


class CsvWriter:
    """Rows of a CSV file, every cell of text written so that a spreadsheet shows it and never runs it.

    Rows are sequences, or mappings where columns are given; what a mapping lacks stays empty.
    """

    def __init__(self, file: TextIO, columns: Sequence[str] = (), *, line_end: str = "\n") -> None:
        self._columns = columns
        self._writer = csv.writer(file, lineterminator=line_end)

    def header(self) -> None:
        self.row(self._columns)

    def row(self, cells: Iterable[object]) -> None:
        if isinstance(cells, Mapping):
            if unknown := set(cells) - set(self._columns):
                raise ValueError(f"no column for {sorted(unknown)}")
            cells = [cells.get(column, "") for column in self._columns]
        self._writer.writerow(map(defused, cells))

    def rows(self, rows: Iterable[Iterable[object]]) -> None:
        for cells in rows:
            self.row(cells)


_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a cell begins with that a spreadsheet takes for a formula, in both widths."""


def defused(cell: object) -> object:
    """The cell, with an apostrophe before a text that would be run as a formula; numbers stay numbers."""
    if not isinstance(cell, str) or not cell.lstrip(" ").startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def as_meant(cell: str) -> str:
    """The text that ``defused`` was given, for our own readers of our own files."""
    return cell[1:] if cell.startswith("'") and cell[1:].lstrip(" ").startswith(_FORMULA) else cell


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """A safetensors file that everybody may read; metadata goes into its header."""
    from safetensors.torch import save_file

    with whole_file(path) as partial:
        whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(whole, partial, metadata=dict(metadata) if metadata else None)
        partial.chmod(0o644)  # safetensors writes for the owner alone


def remove(path: Path) -> None:
    """Remove a file or a whole folder; already gone is fine."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def flush(file: BinaryIO) -> None:
    """Make what was written to an open file durable."""
    file.flush()
    os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Make a file, or every file under a folder and its name, durable."""
    if path.is_file():
        with path.open("rb+") as file:
            flush(file)
    for parent, _, names in os.walk(path):
        for name in names:
            fsync_tree(Path(parent) / name)
        fsync_folder(Path(parent))


def tree_bytes(folder: Path) -> int:
    """Total size of the files under ``folder``; what vanishes meanwhile does not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total


def is_disk_full(error: OSError) -> bool:
    """No space or no quota left: the only disk failure that more space would cure."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


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
                f"cannot write in the workspace ({error.strerror}); make it writable or choose another folder with --workspace",
                str(folder),
            ) from error
        raise


@contextmanager
def place_errors(target: Path, within: Path | None = None) -> Iterator[None]:
    """Name what is wrong with a place outside the workspace that somebody chose for a new file or folder.

    within: the root of a caller, who is told no more than the path below it.
    Raises InvalidArgumentError for one that is taken or cannot be written, WorkspaceFullError when its disk is full.
    """
    name = str(target if within is None else target.relative_to(within))[:200]
    try:
        if "\0" in str(target):  # Python itself refuses it, with another kind of error
            raise OSError(errno.EINVAL, "the name holds a null character")
        yield
    except OSError as error:
        if is_disk_full(error):
            raise WorkspaceFullError(
                f"the disk of {name} is full; make room or choose another disk."
            ) from error
        if os.path.lexists(target):
            raise InvalidArgumentError(
                f"{name} exists; choose a new name, nothing is ever overwritten."
            ) from error
        raise InvalidArgumentError(
            f"cannot write {name} ({error.strerror or error}); choose a name in a folder you may write to."
        ) from error


def full_disk(folder: Path) -> WorkspaceFullError:
    return WorkspaceFullError(
        "the disk that holds the workspace is full; free some space, delete results that are no longer needed, or choose "
        "another folder with --workspace",
        str(folder),
    )


def library(name: str, extra: str = "export") -> Any:
    """A module that only some formats or services need, loaded when one is used. extra: what installs it.

    Raises ModelUnavailableError with the command that installs it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or name).partition(".")[0].replace("_", "-")
        raise ModelUnavailableError(
            f"this needs {package}, which is not installed; run: pip install 'tissuetalk[{extra}]'"
        ) from error
