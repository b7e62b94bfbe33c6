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
from contextlib import suppress
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import TypedDict

from tissuetalk.models.control import Control
from tissuetalk.models.errors import (
    ImageChangedError,
    InvalidArgumentError,
    OutsideRootsError,
    UnknownImageError,
    UnreadableImageError,
    shown,
)
from tissuetalk.models.folders import Folder
from tissuetalk.models.images import CheckedFile, ImageSource, Limits, open_image
from tissuetalk.models.images.files import cannot_open, open_in
from tissuetalk.tools.storage.archives import in_archive
from tissuetalk.tools.storage.copies import Copies

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".btf"}
    | {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".dcm"}
)
"""What a listing shows; opening goes by the content."""

_IMAGE_URI = re.compile(r"image://(img_[0-9a-f]{32})/?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LONGEST_NAME = 4096
_SCANNED_ENTRIES = 20_000
_DEEPEST = 40
"""Folders in folders that a listing looks into."""


class RootImage(TypedDict):
    """path: as ``Roots.open`` takes it. bytes: size of the file."""

    path: str
    bytes: int


class Roots:
    """Opens images inside a few folders and nowhere else.

    paths: the folders; relative names start at the first. explicit: the user named them in so many words, which
    is needed for ``/`` and for a folder that holds the home folder. private: further folders whose files are
    reached only by ``image://`` (uploads). copies: of slides in archives, reached by their address. hidden: a folder inside a root that is no part of it (the workspace), and in which
    no root may lie. lookup: from an image id to where it was seen, when this process has not seen it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        explicit: bool = False,
        private: Sequence[Path] = (),
        copies: Copies | None = None,
        hidden: Path | None = None,
        lookup: Callable[[str], Path | None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not paths:
            raise InvalidArgumentError("at least one root folder is needed; give one with --root")
        self.paths = tuple(_real_root(path, explicit=explicit) for path in paths)
        self._private = tuple(_real_root(path, explicit=True) for path in private)
        self.copies = copies
        self._series = () if copies is None else (Path(os.path.realpath(copies.folder)),)
        self._hidden = () if hidden is None else (Path(os.path.realpath(hidden)),)
        for path in self.paths:
            if any(path.is_relative_to(folder) for folder in self._hidden):
                raise InvalidArgumentError(
                    f"the root {str(path)!r} lies in the workspace, where other callers' results and uploads are; "
                    "choose another root, or another folder with --workspace"
                )
        self._lookup = lookup
        self._limits = limits
        self._seen: dict[str, Path] = {}

    def open(self, image: str, *, name: str | None = None, control: Control = Control()) -> ImageSource:
        """Open a path inside a root, or an ``image://`` URI.

        name: what messages call it when whoever reads them has not said the path, and it may be a patient's.
        control: stops a slide's way from its archive.

        Raises OutsideRootsError (alike for what exists and what does not), UnknownImageError with similar names,
        InvalidArgumentError for what cannot be a path, ImageChangedError when the image of a URI is another now.
        """
        if not image.strip() or len(image) > _LONGEST_NAME:
            raise InvalidArgumentError(
                "the image must be a path inside a root or an image:// URI; library(action='images') lists them"
            )
        if not image.isprintable():
            raise InvalidArgumentError("the image's path holds control characters; give a plain path")
        try:
            os.fsencode(image)
        except UnicodeEncodeError as error:
            raise InvalidArgumentError("the image's path is not valid text; give a plain path") from error
        if match := _IMAGE_URI.fullmatch(image):
            return self._open_by_id(match.group(1), control)
        if self.copies is not None and in_archive(image):
            file = self._checked(self.copies.get(image, control), name or image, private=True)
            return open_image(file, name=name or image, limits=self._limits)
        if _SCHEME.match(image):
            raise InvalidArgumentError(
                "addresses are not fetched; give a path inside a root or an image:// URI"
            )
        called = name or shown(image)
        try:
            return open_image(self._checked(self._path_of(image), called), name=called, limits=self._limits)
        except UnknownImageError as error:
            raise UnknownImageError(self._not_found(image) if name is None else _gone(name)) from error

    def register(self, source: ImageSource) -> str:
        """Remember where an open image lies, so that its URI can be opened. Returns ``image://img_…``."""
        if source.path is not None:
            self._seen[source.image_id] = source.path
        return f"image://{source.image_id}"

    def relative_name(self, path: Path) -> str:
        """How a file is called in answers: relative to its root, unless that name is another file's in an earlier root."""
        root = next((root for root in self.paths if path.is_relative_to(root)), None)
        name = str(path) if root is None else path.relative_to(root).as_posix()
        return name if self._path_of(name) == path else str(path)

    def list_images(self, limit: int = 500) -> list[RootImage]:
        """Files with an image's suffix in the roots, by name; hidden files and links are passed over."""
        budget = iter(range(_SCANNED_ENTRIES))
        entries = chain.from_iterable(self._files(root, budget, _DEEPEST) for root in self.paths)
        return list(islice(self._listed(entries), max(0, limit)))

    def _open_by_id(self, image_id: str, control: Control) -> ImageSource:
        path = self._seen.get(image_id) or (self._lookup(image_id) if self._lookup else None)
        if path is None:
            raise UnknownImageError(
                f"no image {image_id} is known; open it by its path first; library(action='images') lists them"
            )
        try:
            path = path if self.copies is None else self.copies.again(path, control)
            file = self._checked(path, image_id, private=True)
        except UnknownImageError as error:
            raise UnknownImageError(_gone(image_id)) from error
        source = open_image(file, name=image_id, limits=self._limits)
        if source.image_id != image_id:
            source.close()
            raise ImageChangedError(f"the file of {image_id} changed; open it by its path to get its new id")
        return source

    def place(self, name: str) -> tuple[Path, Path]:
        """The root, and the real path below it, where a new file or folder of that name would lie.

        Raises InvalidArgumentError for a name that leads elsewhere or into the workspace.
        """
        real = Path(os.path.realpath(self.paths[0] / name))
        root = self._root_of(real)
        if root is None or real == root:
            raise InvalidArgumentError(
                f"{shown(name)} is not inside an allowed folder; give a new folder below one."
            )
        return root, real

    def _path_of(self, image: str) -> Path:
        """Below the first root that has something of that name; an absolute path is itself."""
        return next(
            (root / image for root in self.paths if os.path.lexists(root / image)), self.paths[0] / image
        )

    def _root_of(self, real: Path, *, private: bool = False) -> Path | None:
        hidden = any(real.is_relative_to(folder) for folder in self._hidden)
        roots = (*((*self._private, *self._series) if private else ()), *(() if hidden else self.paths))
        return next((root for root in roots if real.is_relative_to(root)), None)

    def _checked(self, path: Path, name: str, *, private: bool = False) -> CheckedFile:
        try:
            real = Path(os.path.realpath(path))
        except OSError as error:
            raise _outside() from error
        root = self._root_of(real, private=private)
        # the same words whether the file exists or not: an answer must not tell what lies outside
        if root is None:
            raise _outside()
        if real == root:
            raise UnreadableImageError(f"{name} is a folder; give the path of one image in it")
        *folders, last = real.relative_to(root).parts
        try:
            file = open_in(_below(root, *folders), last, name=name)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnknownImageError(
                f"there is no image {name}; library(action='images') lists what there is"
            ) from error
        except OSError as error:
            # a link where realpath has just seen none: swapped in between
            if error.errno == errno.ELOOP:
                raise _outside() from error
            raise cannot_open(name, error) from error
        # uploads of many callers lie in one folder: what one sent is never part of another's slide
        file.alone = root in self._private
        return file

    def _listed(self, files: Iterator[tuple[Path, int]]) -> Iterator[RootImage]:
        for path, size in files:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield {"path": self.relative_name(path), "bytes": size}

    def _files(self, real: Path, budget: Iterator[int], deepest: int) -> Iterator[tuple[Path, int]]:
        """Path and size of the regular files below a folder, by name, until the budget of looked-at entries is spent."""
        root = self._root_of(real)
        with suppress(OSError):
            if root is not None:
                with _below(root, *real.relative_to(root).parts) as folder:
                    yield from self._files_in(folder, budget, deepest)

    def _files_in(self, folder: Folder, budget: Iterator[int], deepest: int) -> Iterator[tuple[Path, int]]:
        for name in folder.names():
            if next(budget, None) is None:
                return
            path = folder.path / name
            if name.startswith(".") or not name.isprintable() or path in self._hidden:
                continue
            with suppress(OSError):  # gone or swapped meanwhile, or not ours to read
                status = folder.status(name)
                if stat.S_ISREG(status.st_mode):
                    yield path, status.st_size
                elif stat.S_ISDIR(status.st_mode) and deepest > 0:
                    with folder.below(name) as below:
                        yield from self._files_in(below, budget, deepest - 1)

    def _not_found(self, image: str) -> str:
        folder = Path(os.path.realpath(self.paths[0] / image)).parent
        near = self._listed(self._files(folder, iter(range(2000)), 0))
        names = [listed["path"] for listed in (*near, *self.list_images(2000))]
        # reversed: of two with one file name the first listed stays
        by_file_name = {Path(name).name.lower(): name for name in reversed(names)}
        close = get_close_matches(Path(image).name.lower(), by_file_name, n=3, cutoff=0.6)
        similar = ", ".join(shown(by_file_name[name]) for name in close)
        return f"there is no image {shown(image)} in the roots; " + (
            f"similar names: {similar}; library(action='images') lists all"
            if similar
            else "library(action='images') lists what there is"
        )


def _gone(name: str) -> str:
    return f"the file of {name} is gone; put it back or open another image"


def _outside() -> OutsideRootsError:
    return OutsideRootsError(
        "the path leads outside the folders images may be read from; library(action='images') lists paths that work"
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


def _below(root: Path, *names: str) -> Folder:
    with Folder.at(root) as top:
        return top.below(*names)
