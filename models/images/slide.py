"""Whole slides through OpenSlide. Label, macro and thumbnail images are never read."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tissuetalk.models.errors import (
    ImageChangedError,
    ImageTooLargeError,
    OutsideRootsError,
    UnreadableImageError,
)
from tissuetalk.models.images.files import CheckedFile, Limits, plausible_mpp
from tissuetalk.models.images.source import RGB, Box, Level, to_rgb

if TYPE_CHECKING:
    from openslide import OpenSlide

TIFF_VENDORS = frozenset({"aperio", "hamamatsu", "leica", "philips", "trestle", "ventana"})
"""Slides that are one TIFF file; ordinary TIFF is read without OpenSlide."""

_NAMED_FILE = re.compile(rb"^\s*(?:FILE_\d+|INDEXFILE)\s*=\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_SMALL_BYTES = 4 * 2**20


class SlideReader:
    """An open OpenSlide handle, which is safe to read from several threads."""

    is_slide = True

    def __init__(self, slide: OpenSlide, *, name: str, parts: str, limits: Limits) -> None:
        self._slide = slide
        self._name = name
        self.parts = parts
        sizes = slide.level_dimensions
        full_width, full_height = sizes[0]
        if full_width < 1 or full_height < 1:
            raise UnreadableImageError(f"{name} has no pixels; export the slide again")
        limits.require_readable_in_tiles(sizes[0], name)
        if sizes[-1][0] * sizes[-1][1] > limits.decoded_pixels:
            raise ImageTooLargeError(
                f"{name} has no small level to look at; save it as a pyramid with levels down to a few thousand px"
            )
        self.levels = tuple(Level.of(width, height, full_width, full_height) for width, height in sizes)
        self.mpp = _mpp(slide)

    def read(self, level: int, box: Box) -> RGB:
        from openslide import OpenSlideError

        down = self._slide.level_downsamples[level]
        # OpenSlide wants the corner in full-resolution pixels, and the size in those of the level.
        corner = (round(box.x0 * down), round(box.y0 * down))
        try:
            tile = self._slide.read_region(corner, level, (box.width, box.height))
        except OpenSlideError as error:
            raise UnreadableImageError(
                f"{self._name} is damaged at {box.as_list()} of level {level}; get a fresh copy of the slide"
            ) from error
        # OpenSlide premultiplies, its Python binding undoes that: what comes here is straight alpha.
        return to_rgb(np.asarray(tile), alpha="straight")

    def close(self) -> None:
        self._slide.close()


def vendor_of(path: str) -> str | None:
    """OpenSlide's name for the format, from the content."""
    from openslide import OpenSlide

    vendor: str | None = OpenSlide.detect_format(path)
    return vendor


def open_tiff_slide(file: CheckedFile, limits: Limits) -> SlideReader | None:
    """A slide that is one TIFF file, or None when it is an ordinary TIFF."""
    if file.descriptor is None:
        return None
    # OpenSlide opens by path: through the descriptor, where the system has such paths, nobody can swap the file after it
    # was checked.
    through = f"/proc/self/fd/{file.descriptor}"
    path = through if Path(through).exists() else str(file.path or "")
    return _open(path, file, limits, parts="") if path and vendor_of(path) in TIFF_VENDORS else None


def open_mirax(file: CheckedFile, limits: Limits) -> SlideReader:
    """A 3DHISTECH slide: ``name.mrxs`` with its data in the folder ``name`` beside it."""
    path = _require_path(file)
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise UnreadableImageError(
            f"{file.name} needs its data folder {folder.name!r} beside it; copy that too"
        )
    _require_plain_names(folder / "Slidedat.ini", file.name)
    before = _folder_index(folder, file.name)
    parts = "\n".join(f"{name} {size}" for name, size, *_ in before)
    parts += "".join(f"\n{name} {_small_hash(folder / name)}" for name in ("Slidedat.ini", "Index.dat"))
    reader = _open(str(path), file, limits, parts=parts)
    # A slide that is still being copied gives an index that does not fit its data.
    if _folder_index(folder, file.name) != before:
        reader.close()
        raise ImageChangedError(f"{file.name} changed while it was opened; open it again when it is complete")
    return reader


def open_dicom(file: CheckedFile, limits: Limits) -> SlideReader:
    """A DICOM whole slide; its other levels are the files of the same series in the same folder."""
    path = _require_path(file)
    # OpenSlide opens whatever in the folder belongs to the series, wherever a link leads.
    with os.scandir(path.parent) as entries:
        links = [Path(entry.path) for entry in entries if entry.is_symlink()]
    if any(Path(os.path.realpath(link)).parent != path.parent for link in links):
        raise OutsideRootsError(
            f"the folder of {file.name} holds links to other folders; a DICOM slide needs its files as such"
        )
    if vendor_of(str(path)) != "dicom":
        raise UnreadableImageError(f"{file.name} is not a whole-slide DICOM image; give a slide or a tile")
    return _open(str(path), file, limits, parts=None)


def _open(path: str, file: CheckedFile, limits: Limits, *, parts: str | None) -> SlideReader:
    """``parts=None``: the other files are known to OpenSlide only, which has a hash over the series."""
    from openslide import OpenSlide, OpenSlideError

    try:
        slide = OpenSlide(path)
    except OpenSlideError as error:
        raise UnreadableImageError(
            f"{file.name} is a damaged, incomplete or unsupported slide; get a fresh copy with all of its files"
        ) from error
    if not file.same_at_path():
        slide.close()
        raise ImageChangedError(f"{file.name} was replaced while it was opened; open it again")
    try:
        known = str(slide.properties.get("openslide.quickhash-1", "")) if parts is None else parts
        return SlideReader(slide, name=file.name, parts=known, limits=limits)
    except (UnreadableImageError, ImageTooLargeError):
        slide.close()
        raise


def _require_path(file: CheckedFile) -> Path:
    if file.path is None:
        raise UnreadableImageError(
            f"{file.name} is a slide of several files; put all of them inside a root and give the path"
        )
    return file.path


def _require_plain_names(index: Path, name: str) -> None:
    """Refuse an index that sends the reader to files outside its own folder."""
    try:
        with index.open("rb") as stream:
            text = stream.read(_SMALL_BYTES + 1)
    except OSError as error:
        raise UnreadableImageError(f"{name} has no Slidedat.ini; copy its whole data folder") from error
    if len(text) > _SMALL_BYTES:
        raise UnreadableImageError(
            f"{name} has an absurdly large Slidedat.ini; get a fresh copy of the slide"
        )
    if any(b"/" in value or b"\\" in value or value == b".." for value in _NAMED_FILE.findall(text)):
        raise OutsideRootsError(
            f"{name} names data files outside its own folder; get the slide as it was scanned"
        )


def _folder_index(folder: Path, name: str) -> list[tuple[str, int, int, int]]:
    """(name, bytes, inode, mtime) of every file, sorted. Raises OutsideRootsError for links."""
    index = []
    for entry in [Path(folder), *sorted(folder.iterdir())]:
        status = entry.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise OutsideRootsError(f"{name} has links in its data folder; copy the files themselves")
        if stat.S_ISREG(status.st_mode):
            index.append((entry.name, status.st_size, status.st_ino, status.st_mtime_ns))
    return index


def _small_hash(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _mpp(slide: OpenSlide) -> float | None:
    try:
        x = float(slide.properties["openslide.mpp-x"])
        return plausible_mpp(x, float(slide.properties["openslide.mpp-y"]))
    except (KeyError, ValueError):
        return None
