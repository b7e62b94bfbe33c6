"""The folders images may be read from, and opening a file inside them without being led out.

A name is first resolved, then walked again from the root, folder by folder, without following any link. So the
file that was checked is the file that is open, whatever is swapped in between.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import TypedDict

from tissuetalk.models.errors import (
    ImageChangedError,
    InvalidArgumentError,
    OutsideRootsError,
    UnknownImageError,
)
from tissuetalk.models.images import CheckedFile, ImageSource, Limits, open_image
from tissuetalk.models.images.files import adopt, cannot_open, read_flags, require_regular

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".btf"}
    | {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".dcm"}
)
"""What a listing shows; opening goes by the content."""

_IMAGE_URI = re.compile(r"image://(img_[0-9a-f]{32})/?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LONGEST_NAME = 4096
_SCANNED_ENTRIES = 20_000
_WALK_IS_SAFE = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")


class RootImage(TypedDict):
    """path: as ``Roots.open`` takes it. bytes: size of the file."""

    path: str
    bytes: int


class Roots:
    """Opens images inside a few folders and nowhere else.

    paths: the folders; relative names start at the first. explicit: the user named them in so many words, which
    is needed for ``/`` and for a folder that holds the home folder. private: further folders whose files are
    reached only by ``image://`` (uploads). lookup: from an image id to where it was seen, when this process has
    not seen it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        explicit: bool = False,
        private: Sequence[Path] = (),
        lookup: Callable[[str], Path | None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not paths:
            raise InvalidArgumentError("at least one root folder is needed; give one with --root")
        self.paths = tuple(_real_root(path, explicit=explicit) for path in paths)
        self._private = tuple(_real_root(path, explicit=True) for path in private)
        self._lookup = lookup
        self._limits = limits
        self._seen: dict[str, Path] = {}

    def open(self, image: str) -> ImageSource:
        """Open a path inside a root, or an ``image://`` URI.

        Raises OutsideRootsError (alike for what exists and what does not), UnknownImageError with similar names,
        InvalidArgumentError for what cannot be a path, ImageChangedError when the image of a URI is another now.
        """
        if not image.strip() or len(image) > _LONGEST_NAME:
            raise InvalidArgumentError(
                "the image must be a path inside a root or an image:// URI; list the images"
            )
        if not image.isprintable():
            raise InvalidArgumentError("the image's path holds control characters; give a plain path")
        try:
            os.fsencode(image)
        except UnicodeEncodeError as error:
            raise InvalidArgumentError("the image's path is not valid text; give a plain path") from error
        if match := _IMAGE_URI.fullmatch(image):
            return self._open_by_id(match.group(1))
        if _SCHEME.match(image):
            raise InvalidArgumentError(
                "addresses are not fetched; give a path inside a root or an image:// URI"
            )
        try:
            return open_image(
                self._checked(self.paths[0] / image, self.paths, image), name=image, limits=self._limits
            )
        except UnknownImageError as error:
            raise UnknownImageError(self._not_found(image)) from error

    def register(self, source: ImageSource) -> str:
        """Remember where an open image lies, so that its URI can be opened. Returns ``image://img_…``."""
        if source.path is not None:
            self._seen[source.image_id] = source.path
        return f"image://{source.image_id}"

    def relative_name(self, path: Path) -> str:
        """How a file is called in answers: relative to the first root where possible."""
        return path.relative_to(self.paths[0]).as_posix() if path.is_relative_to(self.paths[0]) else str(path)

    def list_images(self, limit: int = 500) -> list[RootImage]:
        """Files with an image's suffix in the roots, by name; hidden files and links are passed over."""
        budget = iter(range(_SCANNED_ENTRIES))
        entries = chain.from_iterable(_files_below(root, budget) for root in self.paths)
        return list(islice(self._listed(entries), max(0, limit)))

    def _open_by_id(self, image_id: str) -> ImageSource:
        path = self._seen.get(image_id) or (self._lookup(image_id) if self._lookup else None)
        if path is None:
            raise UnknownImageError(
                f"no image {image_id} is known; open it by its path first, or list the images"
            )
        name = path.name
        try:
            file = self._checked(path, (*self.paths, *self._private), name)
        except UnknownImageError as error:
            raise UnknownImageError(
                f"the file of {image_id} is gone; put it back or open another image"
            ) from error
        source = open_image(file, name=name, limits=self._limits)
        if source.image_id != image_id:
            source.close()
            raise ImageChangedError(f"the file of {image_id} changed; open it by its path to get its new id")
        return source

    def _checked(self, path: Path, roots: Sequence[Path], name: str) -> CheckedFile:
        try:
            real = Path(os.path.realpath(path))
        except OSError as error:
            raise _outside() from error
        root = next((root for root in roots if real.is_relative_to(root)), None)
        # the same words whether the file exists or not: an answer must not tell what lies outside
        if root is None:
            raise _outside()
        try:
            descriptor = _walk(root, real) if _WALK_IS_SAFE else _open_and_compare(real)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnknownImageError(
                f"there is no image {name}; list the images to see what there is"
            ) from error
        except OSError as error:
            # a link where realpath has just seen none: swapped in between
            if error.errno == errno.ELOOP:
                raise _outside() from error
            raise cannot_open(name, error) from error
        return adopt(descriptor, name=name, path=real)

    def _listed(self, entries: Iterator[os.DirEntry[str]]) -> Iterator[RootImage]:
        for entry in entries:
            if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                size = entry.stat(follow_symlinks=False).st_size
                yield {"path": self.relative_name(Path(entry.path)), "bytes": size}

    def _not_found(self, image: str) -> str:
        folder = Path(os.path.realpath(self.paths[0] / image)).parent
        inside = any(folder.is_relative_to(root) for root in self.paths)
        near = self._listed(_files_below(folder, iter(range(2000)), deep=False)) if inside else ()
        names = [listed["path"] for listed in (*near, *self.list_images(2000))]
        # reversed: of two with one file name the first listed stays
        by_file_name = {Path(name).name.lower(): name for name in reversed(names)}
        close = get_close_matches(Path(image).name.lower(), by_file_name, n=3, cutoff=0.6)
        similar = ", ".join(by_file_name[name] for name in close)
        return f"there is no image {image[:200]!r} in the roots; " + (
            f"similar names: {similar}" if similar else "list the images to see what there is"
        )


def _outside() -> OutsideRootsError:
    return OutsideRootsError(
        "the path leads outside the folders images may be read from; list the images for paths that work"
    )


def _real_root(path: Path, *, explicit: bool) -> Path:
    real = Path(os.path.realpath(path))
    if not real.is_dir():
        raise InvalidArgumentError(
            f"the root {str(path)!r} is not a folder; give an existing folder of images"
        )
    home = Path(os.path.realpath(Path.home()))
    if not explicit and (home == real or home.is_relative_to(real)):
        raise InvalidArgumentError(
            f"{str(real)!r} would open a whole home folder or disk to reading; name a folder of images with --root"
        )
    return real


def _walk(root: Path, real: Path) -> int:
    """Open ``real`` from ``root`` one name at a time. A link anywhere means it was swapped in: ELOOP."""
    *folders, name = real.relative_to(root).parts or (".",)
    folder_flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    here = os.open(root, folder_flags)
    try:
        for folder in folders:
            _refuse_link(folder, here)
            below = os.open(folder, folder_flags | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        _refuse_link(name, here)
        # before opening: a pipe would block, a device might act
        require_regular(os.stat(name, dir_fd=here, follow_symlinks=False), real.name)
        return os.open(name, read_flags(follow_symlinks=False), dir_fd=here)
    finally:
        os.close(here)


def _refuse_link(name: str, folder: int) -> None:
    if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _open_and_compare(real: Path) -> int:
    """Where folders cannot be walked by descriptor: the opened file must be the one its real path leads to."""
    require_regular(real.lstat(), real.name)
    descriptor = os.open(real, read_flags(follow_symlinks=False))
    try:
        opened, now = os.fstat(descriptor), real.lstat()
        moved = (opened.st_dev, opened.st_ino) != (now.st_dev, now.st_ino)
        if moved or Path(os.path.realpath(real)) != real:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _files_below(folder: Path, budget: Iterator[int], *, deep: bool = True) -> Iterator[os.DirEntry[str]]:
    """Regular files below a folder, by name, until the budget of looked-at entries is spent."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if next(budget, None) is None:
            return
        if entry.name.startswith(".") or not entry.name.isprintable():
            continue
        if entry.is_dir(follow_symlinks=False):
            if deep:
                yield from _files_below(Path(entry.path), budget)
        elif entry.is_file(follow_symlinks=False):
            yield entry
