"""One opened file: who it is, what it holds, whether it changed since, and what its header may claim.

How large an image may be before it is refused, and which µm per pixel are believed.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import struct
import zlib
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Self

from tissuetalk.models.errors import (
    ImageChangedError,
    ImageTooLargeError,
    UnknownImageError,
    UnreadableImageError,
)
from tissuetalk.models.folders import Folder, read_flags


@dataclass(frozen=True)
class Limits:
    """Checked against the header, before any pixel is allocated.

    file_bytes: of any file. decoded_pixels: of an image that must be decoded as a whole (no tiles, no pyramid).
    slide_side and slide_pixels: of an image that is read tile by tile. segment_pixels: of one tile or strip.
    output_pixels: of one region handed back. directories: TIFF directories that are looked at.
    """

    file_bytes: int = 64 * 2**30
    decoded_pixels: int = 400_000_000
    slide_side: int = 500_000
    slide_pixels: int = 100_000_000_000
    segment_pixels: int = 64_000_000
    output_pixels: int = 100_000_000
    directories: int = 256

    def require_decodable(self, size: tuple[int, int], name: str) -> None:
        """Raise for an image (width, height) without pixels, or with more than may be decoded as a whole."""
        width, height = size
        if width < 1 or height < 1:
            raise UnreadableImageError(f"{name} has no pixels ({width} by {height}); save it again")
        if width * height > self.decoded_pixels or max(size) > self.slide_side:
            raise ImageTooLargeError(
                f"{name} has {width} by {height} pixels and must be decoded as a whole; the limit is "
                f"{self.decoded_pixels} pixels: crop it, or save it as a tiled pyramidal TIFF"
            )

    def require_readable_in_tiles(self, size: tuple[int, int], name: str) -> None:
        """Raise for an image (width, height) larger than any slide."""
        if max(size) > self.slide_side or size[0] * size[1] > self.slide_pixels:
            raise ImageTooLargeError(
                f"{name} claims {size[0]} by {size[1]} pixels; the limit is {self.slide_side} a side"
            )


DECODER_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    UserWarning,
    DeprecationWarning,
    struct.error,
    zlib.error,
)
"""What Pillow, tifffile and the codecs raise on damaged input; each is a refusal of that file, not a crash."""

PLAUSIBLE_MPP = (0.05, 20.0)
"""A microscope's range in µm/px; 72, 96 or 300 dpi (353, 265, 85 µm/px) are screen and print defaults."""

_MICRONS = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
_INCH_UM, _CENTIMETRE_UM = 25_400.0, 10_000.0
# A pattern instead of an XML parser: no entity is expanded, no schema fetched.
_PIXELS = re.compile(r"<(?:\w{1,40}:)?Pixels\b[^<>]{0,4000}>")
_ATTRIBUTE = re.compile(r"\b(SizeX|PhysicalSize[XY](?:Unit)?)\s*=\s*[\"']([^\"']{1,40})[\"']")


def plausible_mpp(mpp_x: float | None, mpp_y: float | None = None) -> float | None:
    """One µm/px for both directions, or None when it is missing, not a microscope's, or differs by over 5 %."""
    if mpp_x is None or not isfinite(mpp_x) or not PLAUSIBLE_MPP[0] <= mpp_x <= PLAUSIBLE_MPP[1]:
        return None
    if mpp_y is None:
        return mpp_x
    if not isfinite(mpp_y) or abs(mpp_x - mpp_y) > 0.05 * mpp_x:
        return None
    return (mpp_x + mpp_y) / 2


def mpp_from_dpi(dpi_x: float, dpi_y: float) -> float | None:
    """From dots per inch, when that is a microscope's resolution."""
    if dpi_x <= 0 or dpi_y <= 0:
        return None
    return plausible_mpp(_INCH_UM / dpi_x, _INCH_UM / dpi_y)


def mpp_from_tiff(per_unit_x: float, per_unit_y: float, unit: int) -> float | None:
    """From the TIFF tags XResolution, YResolution and ResolutionUnit (2 inch, 3 centimetre; 1 says nothing)."""
    length_um = {2: _INCH_UM, 3: _CENTIMETRE_UM}.get(unit)
    if length_um is None or per_unit_x <= 0 or per_unit_y <= 0:
        return None
    return plausible_mpp(length_um / per_unit_x, length_um / per_unit_y)


def mpp_from_ome(description: str, width: int) -> float | None:
    """PhysicalSizeX of the OME image that is ``width`` pixels wide; the unit defaults to µm."""
    # Some thousand pictures are no slide; without an end the whole text would be looked through for each.
    for element in islice((found.group() for found in _PIXELS.finditer(description)), 1000):
        values = dict(_ATTRIBUTE.findall(element))
        if values.get("SizeX") == str(width) and "PhysicalSizeX" in values:
            x = _microns(values["PhysicalSizeX"], values.get("PhysicalSizeXUnit", "µm"))
            if "PhysicalSizeY" not in values:
                return plausible_mpp(x)
            return plausible_mpp(x, _microns(values["PhysicalSizeY"], values.get("PhysicalSizeYUnit", "µm")))
    return None


def mpp_from_imagej(description: str, per_unit_x: float, per_unit_y: float) -> float | None:
    """ImageJ keeps the unit in its description and pixels per unit in the resolution tags."""
    unit = re.search(r"^unit=(\S{1,12})\s*$", description, re.MULTILINE)
    if not description.startswith("ImageJ=") or unit is None or per_unit_x <= 0 or per_unit_y <= 0:
        return None
    name = unit.group(1).replace("\\u00B5", "µ")  # ImageJ writes Java's escape
    size_x, size_y = _microns(str(1 / per_unit_x), name), _microns(str(1 / per_unit_y), name)
    return plausible_mpp(size_x, size_y)


def _microns(value: str, unit: str) -> float | None:
    try:
        return float(value) * _MICRONS[unit.replace("&#181;", "µ").replace("&#xB5;", "µ")]
    except (KeyError, ValueError):
        return None


_REMEMBERED_HASHES = 4096


@dataclass(frozen=True)
class FileStamp:
    """Changes whenever the content can have changed."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        changed = getattr(status, "st_ctime_ns", 0)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, changed)


_hashes: dict[FileStamp, str] = {}
"""Of files already read in this process, oldest first, so that a large slide is hashed once."""
_hashes_lock = Lock()


class CheckedFile:
    """An open regular file that any number of threads may read at once.

    Takes over ``file``: it is closed with this object. ``path`` is where it was opened, to notice that somebody put another
    file in its place. ``descriptor`` is None for one that lives in memory.

    parts: the other files of a slide of several, each with its role in it; they are checked, hashed and closed with this one.
    folder: the open folder it lies in, until the parts are known. alone: nothing beside it belongs to it.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        name: str,
        path: Path | None = None,
        parts: tuple[tuple[str, CheckedFile], ...] = (),
        folder: Folder | None = None,
        alone: bool = False,
    ) -> None:
        self.name = name
        self.path = path
        self.parts = parts
        self.folder = folder
        self.alone = alone
        self._file = file
        self._lock = Lock()
        try:
            self.descriptor: int | None = file.fileno()
        except (AttributeError, io.UnsupportedOperation):
            self.descriptor = None
        if self.descriptor is None:
            self.stamp = None
            self.size_bytes = file.seek(0, io.SEEK_END)
        else:
            status = os.fstat(self.descriptor)
            require_regular(status, name)
            self.stamp = FileStamp.of(status)
            self.size_bytes = status.st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``; fewer only at the end of the file."""
        if self.descriptor is None or not hasattr(os, "pread"):
            with self._lock:
                self._file.seek(offset)
                return self._file.read(count)
        parts: list[bytes] = []
        # pread may give less than asked, for one at 2 GiB
        while count > 0 and (part := os.pread(self.descriptor, count, offset)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def view(self) -> io.BufferedReader:
        """The same bytes as a file object with a position of its own."""
        return io.BufferedReader(_View(self))

    def sha256(self) -> str:
        """Hash of the content as it was when opened. Raises ImageChangedError if it was modified since."""
        known = None if self.stamp is None else _hashes.get(self.stamp)
        if known is not None:
            return known
        digest = self._hash()
        if self.stamp is not None:
            if self._current_stamp() != self.stamp:
                raise ImageChangedError(f"{self.name} was modified while it was read; open it again")
            with _hashes_lock:
                _hashes[self.stamp] = digest
                while len(_hashes) > _REMEMBERED_HASHES:
                    del _hashes[next(iter(_hashes))]
        return digest

    def sha256_of_all(self) -> str:
        """Of the content of a slide of several files; of a single file its ``sha256``."""
        if not self.parts:
            return self.sha256()
        roles = sorted(f"{role} {file.sha256()}" for role, file in (("", self), *self.parts))
        return hashlib.sha256("\n".join(roles).encode()).hexdigest()

    def _hash(self) -> str:
        """Of what the file holds now."""
        return hashlib.file_digest(self.view(), "sha256").hexdigest()

    def same_at_path(self) -> bool:
        """Whether the path still leads to this very file."""
        if self.path is None or self.stamp is None:
            return True
        try:
            status = self.path.stat(follow_symlinks=False)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.stamp.device, self.stamp.inode)

    def verify_unchanged(self) -> None:
        """Raise ImageChangedError when the file, one of its parts, or what is now in its place, has other content."""
        for _, part in self.parts:
            part.verify_unchanged()
        if self.stamp is None:
            return
        changed = ImageChangedError(f"{self.name} changed after it was opened; segment it again")
        if self._current_stamp() != self.stamp:
            # Touching a file, or copying it over itself, changes the stamp and not the content.
            known = _hashes.get(self.stamp)
            if known is None or self._hash() != known:
                raise changed
        if self.path is None or self.same_at_path():
            return
        # Another file lies there now: fine when it holds the same.
        try:
            with open_regular(self.path, name=self.name, follow_symlinks=False) as other:
                if other.size_bytes != self.stamp.size_bytes or other.sha256() != self.sha256():
                    raise changed
        except (UnknownImageError, UnreadableImageError) as error:
            raise changed from error

    def close(self) -> None:
        self._file.close()
        for _, part in self.parts:
            part.close()
        if self.folder is not None:
            self.folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _current_stamp(self) -> FileStamp | None:
        return None if self.descriptor is None else FileStamp.of(os.fstat(self.descriptor))


class _View(io.RawIOBase):
    """Reads through ``read_at``, so that views and threads never move each other's position."""

    name = "image"  # some libraries ask for one, and the real one may name a patient

    def __init__(self, file: CheckedFile) -> None:
        self._source = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed: any writable buffer
        data = self._source.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size_bytes}[whence]
        if start + offset < 0:
            raise ValueError("negative position")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position


def open_regular(path: Path, *, name: str, follow_symlinks: bool = True) -> CheckedFile:
    """Open a file by path without ever waiting: a folder, pipe or device is refused.

    Raises UnknownImageError when there is nothing, UnreadableImageError when it is not a readable file.
    """
    try:
        # Looked at before it is opened, because opening a device can already do something.
        require_regular(path.stat(follow_symlinks=follow_symlinks), name)
        descriptor = os.open(path, read_flags(follow_symlinks=follow_symlinks))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnknownImageError(f"there is no image {name}; check the path, or list the images") from error
    except OSError as error:
        raise cannot_open(name, error) from error
    except ValueError as error:
        raise UnknownImageError(
            f"{name!r} cannot be a path; give the path of an image inside a root"
        ) from error
    return adopt(descriptor, name=name, path=path)


def open_in(folder: Folder, entry: str, *, name: str) -> CheckedFile:
    """Open a file by its name in an open folder, which is taken over. Raises UnreadableImageError, and OSError: ELOOP for a link."""
    try:
        folder.require_no_link(entry)
        # before opening: a pipe would block, a device might act
        require_regular(folder.status(entry), name)
        descriptor = folder.open(entry)
        return adopt(descriptor, name=name, path=folder.path / entry, folder=folder)
    except BaseException:
        folder.close()
        raise


def adopt(descriptor: int, *, name: str, path: Path, folder: Folder | None = None) -> CheckedFile:
    """A CheckedFile of an open descriptor, which is closed if it is not a regular file."""
    try:
        require_regular(os.fstat(descriptor), name)
    except UnreadableImageError:
        os.close(descriptor)
        raise
    return CheckedFile(os.fdopen(descriptor, "rb", buffering=0), name=name, path=path, folder=folder)


def require_regular(status: os.stat_result, name: str) -> None:
    """Raise UnreadableImageError for folders, pipes, sockets and devices."""
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableImageError(f"{name} is a folder; give the path of one image in it")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError(f"{name} is a pipe, device or link; give the path of a regular image file")


def cannot_open(name: str, error: OSError) -> UnreadableImageError:
    """The refusal for a file that is there and cannot be opened."""
    return UnreadableImageError(
        f"{name} cannot be opened ({error.strerror or 'no reason given'}); check its permissions"
    )
