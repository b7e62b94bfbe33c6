"""One image, whatever its format: who it is, how large, at which scale, and its pixels at any scale."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images.box import Box
from tissuetalk.models.images.files import CheckedFile
from tissuetalk.models.images.headers import Limits
from tissuetalk.models.images.pixels import RGB, orient, resample, source_span

_BLOCK_SIDE = 4096


@dataclass(frozen=True)
class Level:
    """One stored size of the image. ``downsample``: full-resolution pixels per pixel of this level (x, y)."""

    width: int
    height: int
    downsample: tuple[float, float]

    @classmethod
    def of(cls, width: int, height: int, full_width: int, full_height: int) -> Level:
        """Sizes are rounded when a pyramid is written, so a factor within a pixel of a whole one is whole."""
        return cls(width, height, (_factor(full_width, width), _factor(full_height, height)))


class PixelReader(Protocol):
    """What each format provides. Levels are sorted from full resolution down; reads may come from any thread."""

    levels: tuple[Level, ...]
    mpp: float | None
    is_slide: bool
    parts: str
    """Names and hashes of further files that belong to the image; empty for most."""

    def read(self, level: int, box: Box) -> RGB:
        """[h, w, 3] of a box in the pixels of that level, which lies inside it."""
        ...

    def close(self) -> None: ...


class ImageSource:
    """An open image. Use as a context manager; reads may come from any number of threads."""

    def __init__(self, *, reader: PixelReader, file: CheckedFile, limits: Limits) -> None:
        self._overviews: dict[int, RGB] = {}
        self._reader = reader
        self._file = file
        self._limits = limits
        self._parts = reader.parts
        self.name = file.name
        self.width = reader.levels[0].width
        self.height = reader.levels[0].height
        self.mpp = reader.mpp
        self.is_slide = reader.is_slide

    @property
    def sha256(self) -> str:
        """Of the content; a slide of several files also covers its other files. Read once, then remembered."""
        digest = self._file.sha256()
        if not self._parts:
            return digest
        return hashlib.sha256(f"{digest}\n{self._parts}".encode()).hexdigest()

    @property
    def image_id(self) -> str:
        """The same content has the same id, wherever it lies."""
        return f"img_{self.sha256[:32]}"

    @property
    def path(self) -> Path | None:
        """Where the file lies, links resolved; None for one that lives in memory."""
        return self._file.path

    @property
    def levels(self) -> tuple[float, ...]:
        """Downsample of every stored level, 1.0 first."""
        return tuple(level.downsample[0] for level in self._reader.levels)

    @property
    def box(self) -> Box:
        """All of the image."""
        return Box.whole(self.width, self.height)

    def read_region(self, box: Box, *, width: int, height: int) -> RGB:
        """[height, width, 3] of a full-resolution box, from the stored level that suits the scale best.

        Shrinking averages all that is covered, enlarging is bilinear. What lies outside the image is white.
        Raises InvalidArgumentError for an absurd output size, UnreadableImageError where the file is damaged.
        """
        step_x, step_y = box.width / max(width, 1), box.height / max(height, 1)
        return self.read_grid((box.x0, step_x), (box.y0, step_y), width=width, height=height)

    def read_grid(self, x: tuple[float, float], y: tuple[float, float], *, width: int, height: int) -> RGB:
        """[height, width, 3] on a grid that need not start on a whole pixel, so that neighbours join exactly.

        x, y: (start, step) in full-resolution pixels: output pixel i covers ``start + i * step`` to
        ``start + (i + 1) * step``. Otherwise like ``read_region``.
        """
        if width < 1 or height < 1 or width * height > self._limits.output_pixels:
            raise InvalidArgumentError(
                f"a region of {width} by {height} px cannot be read; ask for 1 to {self._limits.output_pixels} px"
            )
        (start_x, step_x), (start_y, step_y) = x, y
        first_x, last_x = _outputs_inside(start_x, step_x, width, self.width)
        first_y, last_y = _outputs_inside(start_y, step_y, height, self.height)
        # Glass is white, and so is what lies beyond the border.
        out = np.full((height, width, 3), 255, np.uint8)
        index = self._level_for(min(step_x, step_y))
        down_x, down_y = self._reader.levels[index].downsample
        # Piece by piece, so that a shrunken overview never holds a whole level in memory.
        columns, rows = max(1, int(_BLOCK_SIDE * down_x / step_x)), max(1, int(_BLOCK_SIDE * down_y / step_y))
        for top in range(first_y, last_y, rows):
            bottom = min(top + rows, last_y)
            for left in range(first_x, last_x, columns):
                right = min(left + columns, last_x)
                out[top:bottom, left:right] = self._block(
                    index,
                    x=((start_x + left * step_x) / down_x, step_x / down_x, right - left),
                    y=((start_y + top * step_y) / down_y, step_y / down_y, bottom - top),
                )
        return out

    def read_scaled(self, box: Box, scale: float) -> RGB:
        """A full-resolution box at ``scale`` output pixels per full-resolution pixel (0.25 shrinks four times)."""
        if not 0 < scale < inf:
            raise InvalidArgumentError("the scale must be above 0 output pixels per image pixel, and finite")
        width, height = max(1, round(box.width * scale)), max(1, round(box.height * scale))
        return self.read_region(box, width=width, height=height)

    def overview(self, max_side: int = 1024) -> RGB:
        """All of the image, its longest side at most ``max_side`` pixels; read once, then remembered."""
        if max_side not in self._overviews:
            scale = min(1.0, max_side / max(self.width, self.height))
            self._overviews[max_side] = self.read_scaled(self.box, scale)
        return self._overviews[max_side].copy()  # a caller may draw on it

    def verify_unchanged(self) -> None:
        """Raise ImageChangedError when the file, or the one now in its place, holds something else."""
        self._file.verify_unchanged()

    def close(self) -> None:
        self._reader.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _level_for(self, step: float) -> int:
        """The smallest level that still has at least the wanted detail."""
        fitting = [
            i for i, level in enumerate(self._reader.levels) if max(level.downsample) <= step * 1.001
        ]  # 4.0003 is 4
        return fitting[-1] if fitting else 0

    def _block(self, index: int, *, x: tuple[float, float, int], y: tuple[float, float, int]) -> RGB:
        level = self._reader.levels[index]
        x0, x1 = source_span(*x, level.width)
        y0, y1 = source_span(*y, level.height)
        pixels = self._reader.read(index, Box(x0, y0, x1, y1))
        return resample(pixels, x=(x[0] - x0, x[1]), y=(y[0] - y0, y[1]), width=x[2], height=y[2])


class OrientedReader:
    """Turns and mirrors another reader as its TIFF orientation tag says."""

    def __init__(self, reader: PixelReader, orientation: int) -> None:
        self._reader = reader
        self._orientation = orientation
        self.mpp = reader.mpp
        self.is_slide, self.parts = reader.is_slide, reader.parts
        self._swapped = orientation in (5, 6, 7, 8)
        self.levels = tuple(
            Level(level.height, level.width, level.downsample[::-1]) if self._swapped else level
            for level in reader.levels
        )

    def read(self, level: int, box: Box) -> RGB:
        size = self.levels[level]
        x0, y0, x1, y1 = box.as_list()
        if self._orientation in (2, 3, 6, 7):
            x0, x1 = size.width - x1, size.width - x0
        if self._orientation in (3, 4, 7, 8):
            y0, y1 = size.height - y1, size.height - y0
        stored = Box(y0, x0, y1, x1) if self._swapped else Box(x0, y0, x1, y1)
        return np.ascontiguousarray(orient(self._reader.read(level, stored), self._orientation))

    def close(self) -> None:
        self._reader.close()


def _outputs_inside(start: float, step: float, count: int, length: int) -> tuple[int, int]:
    """Range of output pixels whose centre lies within an image of that length."""
    # Pixel i has its centre at start + (i + 0.5) * step; inside is 0 <= centre < length.
    first = int(np.ceil(-start / step - 0.5))
    last = int(np.ceil((length - start) / step - 0.5))
    first, last = min(max(first, 0), count), min(max(last, 0), count)
    return first, max(first, last)


def _factor(full: int, stored: int) -> float:
    whole = round(full / stored)
    return float(whole) if abs(full / whole - stored) <= 1 else full / stored
