"""Folders held open: what lies below one is reached name by name and never through a link.

So what was checked is what is read and written, whatever somebody swaps in between. Where the system cannot walk by descriptor
(Windows), paths are looked at before and after instead.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

_BY_DESCRIPTOR = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
# O_PATH asks for no more than passing through: a folder that one may enter but not list is no obstacle
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class Folder:
    """One open folder. Every method takes the plain name of an entry and raises OSError: ELOOP for a link.

    path: what the folder was called when it was opened. descriptor: None where the system has no such thing.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def at(cls, path: Path) -> Self:
        """Links on the way are followed: for places that the operator named."""
        if not _BY_DESCRIPTOR and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return cls(path, os.open(path, _FOLDER) if _BY_DESCRIPTOR else None)

    def below(self, *names: str, create: bool = False) -> Folder:
        """The folder some names further down; create: make those that are missing."""
        here = Folder(self.path, None if self.descriptor is None else os.dup(self.descriptor))
        for name in names:
            with here as above:
                here = above._step(name, create=create)
        return here

    def _step(self, name: str, *, create: bool) -> Folder:
        if create:
            with suppress(FileExistsError):
                os.mkdir(self.at_name(name), dir_fd=self.descriptor)
        self.require_no_link(name)
        if self.descriptor is None:
            return Folder.at(self.path / name)
        return Folder(self.path / name, os.open(name, _FOLDER | _NO_LINK, dir_fd=self.descriptor))

    def at_name(self, name: str) -> str:
        """What to call an entry in a system call that is given this folder's descriptor."""
        if not name or name in (".", "..") or "/" in name or os.sep in name:
            raise OSError(errno.EINVAL, "not the name of an entry")
        return name if self.descriptor is not None else str(self.path / name)

    def require_no_link(self, name: str) -> None:
        if stat.S_ISLNK(self.status(name).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def status(self, name: str) -> os.stat_result:
        """Of the entry itself, a link or not."""
        return os.stat(self.at_name(name), dir_fd=self.descriptor, follow_symlinks=False)

    def open(self, name: str) -> int:
        """A descriptor to read an entry that is no link."""
        self.require_no_link(name)
        flags = read_flags(follow_symlinks=False)
        descriptor = os.open(self.at_name(name), flags, dir_fd=self.descriptor)
        if self.descriptor is None and Path(os.path.realpath(self.path / name)) != self.path / name:
            os.close(descriptor)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return descriptor

    def create(self, name: str) -> int:
        """A descriptor of a new, empty file. Raises FileExistsError for anything that is there, a link too."""
        flags = read_flags(follow_symlinks=False) | os.O_WRONLY | os.O_CREAT | os.O_EXCL
        return os.open(self.at_name(name), flags, 0o666, dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """Of all entries, sorted."""
        if self.descriptor is None:
            return sorted(entry.name for entry in self.path.iterdir())
        listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)
        try:
            with os.scandir(listing) as entries:
                return sorted(entry.name for entry in entries)
        finally:
            os.close(listing)

    def rename(self, old: str, new: str) -> None:
        """Take the place of a file, or of an empty folder."""
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(self.status(old).st_mode) and stat.S_ISDIR(self.status(new).st_mode):
                os.rmdir(
                    self.at_name(new), dir_fd=self.descriptor
                )  # only POSIX would replace an empty folder
        here = self.descriptor
        os.replace(self.at_name(old), self.at_name(new), src_dir_fd=here, dst_dir_fd=here)

    def remove(self, name: str) -> None:
        """A file, a link or a whole folder; already gone is fine."""
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(self.status(name).st_mode):
                shutil.rmtree(self.at_name(name), dir_fd=self.descriptor)
            else:
                os.unlink(self.at_name(name), dir_fd=self.descriptor)

    def through(self, name: str) -> Path:
        """A path for libraries that know paths only: through the descriptor where the system has such paths (Linux)."""
        return (through(self.descriptor) or self.path) / self.at_name(name)

    def sync(self) -> None:
        """Make the names in it durable, where the system can."""
        if self.descriptor is not None:
            listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)
            try:
                os.fsync(listing)
            finally:
                os.close(listing)

    def is_same(self, other: Folder) -> bool:
        if self.descriptor is None or other.descriptor is None:
            return self.path.samefile(other.path)
        one, two = os.fstat(self.descriptor), os.fstat(other.descriptor)
        return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def through(descriptor: int | None) -> Path | None:
    """A path that leads to what a descriptor of this process has open, where the system has such paths."""
    return None if descriptor is None or not _PATHS.is_dir() else _PATHS / str(descriptor)


_PATHS = Path("/proc/self/fd")


def read_flags(*, follow_symlinks: bool) -> int:
    """Flags of ``os.open`` that never block, never take a terminal and never reach child processes."""
    flags = os.O_RDONLY  # the others exist on some systems only
    for flag in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, flag, 0)
    return flags if follow_symlinks else flags | getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def parent_of(path: Path, within: Path | None = None) -> Iterator[Folder]:
    """The open folder that is to hold ``path``, made when missing.

    within: a real folder above; below it no link is followed, neither one that is there nor one swapped in, and at the end the
    folder must still be where it was. Raises OSError.
    """
    if within is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Folder.at(path.parent) as folder:
            yield folder
        return
    names = path.relative_to(within).parts[:-1]
    with Folder.at(within) as top, top.below(*names, create=True) as folder:
        yield folder
        try:
            with top.below(*names) as now:
                stays = now.is_same(folder)
        except OSError:
            stays = False
        if not stays:
            folder.remove(path.name)
            raise OSError(errno.ESTALE, "the folder was moved away while it was written to")
