"""Whole slides through OpenSlide. Label, macro and thumbnail images are never read."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tissuetalk.models.errors import (
    ImageChangedError,
    ImageTooLargeError,
    UnreadableImageError,
)
from tissuetalk.models.folders import through
from tissuetalk.models.images.budget import MIB, Grant
from tissuetalk.models.images.files import CheckedFile, Limits, plausible_mpp
from tissuetalk.models.images.source import RGB, Box, Level, ReadCost, to_rgb

if TYPE_CHECKING:
    from openslide import OpenSlide

TIFF_VENDORS = frozenset({"aperio", "hamamatsu", "leica", "philips", "trestle", "ventana"})
"""Slides that are one TIFF file; ordinary TIFF is read without OpenSlide."""

_HELD_BYTES = 96 * MIB
"""OpenSlide's cache of tiles (32 MiB), its tables of a large slide, and the tiles it is decoding."""
_COST = ReadCost(per_pixel=15, fixed=4 * MIB, in_bands=False)
"""Four bytes each for OpenSlide, its Python binding and Pillow, and three for us."""


class SlideReader:
    """An open OpenSlide handle, which is safe to read from several threads."""

    is_slide = True
    whole = False
    cost = _COST

    def __init__(
        self,
        slide: OpenSlide,
        *,
        name: str,
        limits: Limits,
        links: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        """links: the folder it was opened from, removed with it."""
        self._slide = slide
        self._name = name
        self._links = links
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
        if self._links is not None:
            self._links.cleanup()


def vendor_of(path: str) -> str | None:
    """OpenSlide's name for the format, from the content."""
    from openslide import OpenSlide

    vendor: str | None = OpenSlide.detect_format(path)
    return vendor


def open_tiff_slide(file: CheckedFile, limits: Limits, grant: Grant) -> SlideReader | None:
    """A slide that is one TIFF file, or None when it is an ordinary TIFF."""
    if file.descriptor is None:
        return None
    # OpenSlide opens by path: through the descriptor, where the system has such paths, nobody can swap the file after it
    # was checked.
    path = str(through(file.descriptor) or file.path or "")
    if not path or vendor_of(path) not in TIFF_VENDORS:
        return None
    reader = _open(path, file, limits, grant)
    if through(file.descriptor) is None and not file.same_at_path():
        reader.close()
        raise ImageChangedError(f"{file.name} was replaced while it was opened; open it again")
    return reader


def open_mirax(file: CheckedFile, limits: Limits, grant: Grant) -> SlideReader:
    """A 3DHISTECH slide: ``name.mrxs`` with its data in the folder ``name`` beside it."""
    return _open_parts(file, limits, grant, "slide.mrxs", [f"slide/{role}" for role, _ in file.parts])


def open_dicom(file: CheckedFile, limits: Limits, grant: Grant) -> SlideReader:
    """A DICOM whole slide; its other levels are the files of the same series in the same folder."""
    names = [f"{number}.dcm" for number in range(1, len(file.parts) + 1)]
    return _open_parts(file, limits, grant, "0.dcm", names, vendor="dicom")


def _open_parts(
    file: CheckedFile,
    limits: Limits,
    grant: Grant,
    main: str,
    names: Sequence[str],
    *,
    vendor: str | None = None,
) -> SlideReader:
    """A slide of several files. main, names: what OpenSlide is to find the file and its parts under, in a folder of links.

    The links lead to the open files: what OpenSlide reads, at any time, is what was checked, and nothing else is there.
    """
    if file.descriptor is None:
        raise UnreadableImageError(f"{file.name} is a slide that is read from a disk; give its path")
    if through(file.descriptor) is None:  # no such paths here: by name, looked at again once it is open
        return _at_path(file, limits, grant, vendor)
    links = tempfile.TemporaryDirectory(prefix="tissuetalk-slide-", ignore_cleanup_errors=True)
    try:
        files = (file, *(part for _, part in file.parts))
        for name, part in zip((main, *names), files, strict=True):
            link = Path(links.name) / name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(str(through(part.descriptor)))
        path = str(Path(links.name) / main)
        _require_vendor(path, file, vendor)
        return _open(path, file, limits, grant, links)
    except BaseException:
        links.cleanup()
        raise


def _at_path(file: CheckedFile, limits: Limits, grant: Grant, vendor: str | None) -> SlideReader:
    _require_vendor(str(file.path), file, vendor)
    reader = _open(str(file.path), file, limits, grant)
    if not all(each.same_at_path() for each in (file, *(part for _, part in file.parts))):
        reader.close()
        raise ImageChangedError(f"{file.name} was replaced while it was opened; open it again")
    return reader


def _require_vendor(path: str, file: CheckedFile, vendor: str | None) -> None:
    if vendor is not None and vendor_of(path) != vendor:
        raise UnreadableImageError(f"{file.name} is not a whole-slide DICOM image; give a slide or a tile")


def _open(
    path: str,
    file: CheckedFile,
    limits: Limits,
    grant: Grant,
    links: tempfile.TemporaryDirectory[str] | None = None,
) -> SlideReader:
    from openslide import OpenSlide, OpenSlideError

    grant(_HELD_BYTES)
    try:
        slide = OpenSlide(path)
    except OpenSlideError as error:
        raise UnreadableImageError(
            f"{file.name} is a damaged, incomplete or unsupported slide; get a fresh copy with all of its files"
        ) from error
    try:
        return SlideReader(slide, name=file.name, limits=limits, links=links)
    except (UnreadableImageError, ImageTooLargeError):
        slide.close()
        raise


def _mpp(slide: OpenSlide) -> float | None:
    try:
        x = float(slide.properties["openslide.mpp-x"])
        return plausible_mpp(x, float(slide.properties["openslide.mpp-y"]))
    except (KeyError, ValueError):
        return None
