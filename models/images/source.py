"""One image, whatever its format: who it is, how large, at which scale, and its pixels at any scale.

Whatever a file stores becomes 8-bit RGB on white. Resampling is by area average or bilinear, and its result does not depend
on how the work was cut into tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError, UnreadableImageError
from tissuetalk.models.images.files import CheckedFile, Limits


@dataclass(frozen=True)
class Box:
    """Half-open rectangle: x right, y down, ``x0 <= x < x1`` and ``y0 <= y < y1``."""

    x0: int
    y0: int
    x1: int
    y1: int

    def __post_init__(self) -> None:
        if self.x1 <= self.x0 or self.y1 <= self.y0:
            raise InvalidArgumentError(
                f"the box {self.as_list()} is empty; give [x0, y0, x1, y1] with x1 > x0 and y1 > y0"
            )

    @classmethod
    def from_sequence(cls, values: Sequence[float]) -> Box:
        """Check ``[x0, y0, x1, y1]`` as a caller gave it; fractions are widened to whole pixels."""
        if isinstance(values, str | bytes) or len(values) != 4:
            raise InvalidArgumentError("a box is four numbers: [x0, y0, x1, y1] in full-resolution pixels")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise InvalidArgumentError("every number of a box must be finite: [x0, y0, x1, y1] in pixels")
        x0, y0, x1, y1 = values
        return cls(int(x0 // 1), int(y0 // 1), -int(-x1 // 1), -int(-y1 // 1))

    @classmethod
    def whole(cls, width: int, height: int) -> Box:
        """All of an image."""
        return cls(0, 0, width, height)

    @classmethod
    def around(cls, marked: NDArray[Any], x0: int = 0, y0: int = 0) -> Box | None:
        """The smallest box that holds all that is not 0 in [H, W], whose corner is at (x0, y0); None when all is 0."""
        rows = np.flatnonzero(marked.any(axis=1))
        if not len(rows):
            return None
        columns = np.flatnonzero(marked[rows[0] : rows[-1] + 1].any(axis=0))
        return cls(x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1)

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    def clipped_to(self, width: int, height: int) -> Box:
        """The part inside an image of that size. Raises InvalidArgumentError when there is none."""
        x0, y0, x1, y1 = max(self.x0, 0), max(self.y0, 0), min(self.x1, width), min(self.y1, height)
        if x1 <= x0 or y1 <= y0:
            raise InvalidArgumentError(
                f"the box {self.as_list()} is outside the image, which is {width} px wide and {height} px high"
            )
        return Box(x0, y0, x1, y1)

    def grown(self, by: int) -> Box:
        """With a border of ``by`` pixels; it may reach beyond the image."""
        return Box(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)

    def intersection(self, other: Box) -> Box | None:
        """What two boxes share, or None."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def hull(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(
            min(self.x0, other.x0), min(self.y0, other.y0), max(self.x1, other.x1), max(self.y1, other.y1)
        )

    def inside(self, outer: Box) -> tuple[slice, slice]:
        """Rows and columns of this box in an array that covers ``outer``."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)

    def as_list(self) -> list[int]:
        """``[x0, y0, x1, y1]``."""
        return [self.x0, self.y0, self.x1, self.y1]


RGB = NDArray[np.uint8]
"""[H, W, 3] pixels, 0..255."""

_FULL_SCALES = (255, 1023, 4095, 16383, 65535)
_BAND_PIXELS = 4_000_000

Alpha = Literal["none", "straight", "premultiplied"]
"""Whether the last sample is opacity, and whether the colours were already multiplied by it."""


def full_scale(dtype: np.dtype[Any], largest: float) -> float:
    """The stored value that means white.

    Cameras put 10, 12 or 14 bits into 16-bit files, so white is the smallest of 2^8-1, 2^10-1, 2^12-1, 2^14-1
    and 2^16-1 that holds the largest value of the image. Floating point is 0..1, or 0..255 and up by the same rule.

    Raises UnreadableImageError for values that cannot be brightness.
    """
    if dtype == np.uint8:
        return 255.0
    if dtype == np.bool_:
        return 1.0
    if dtype.kind == "f" and largest <= 1.0:
        return 1.0
    if dtype.kind in "uif" and largest <= _FULL_SCALES[-1]:
        return float(next(white for white in _FULL_SCALES if largest <= white))
    raise UnreadableImageError(
        f"pixels of type {dtype} with values up to {largest:.6g} are not a colour image; save it as 8-bit RGB"
    )


def to_rgb(samples: NDArray[Any], *, white: float = 255.0, alpha: Alpha = "none") -> RGB:
    """[H, W, S] of any type (S: grey, grey+alpha, RGB or RGBA) as [H, W, 3] uint8 with alpha put on white."""
    if samples.dtype == np.uint8 and samples.shape[2] == 3:
        return np.ascontiguousarray(samples)
    # 8-bit RGBA without a hole, as slides have it nearly everywhere: nothing shows through.
    eight = samples.dtype == np.uint8 and samples.shape[2] == 4 and white == 255.0
    if alpha == "straight" and eight and samples[..., 3].min() == 255:
        import cv2  # only slides need it

        return np.asarray(cv2.cvtColor(samples, cv2.COLOR_RGBA2RGB))
    height, width = samples.shape[:2]
    out = np.empty((height, width, 3), np.uint8)
    band = max(1, _BAND_PIXELS // max(width, 1))  # bounds the float copy of a large region
    for top in range(0, height, band):
        out[top : top + band] = _band_to_rgb(samples[top : top + band], white, alpha)
    return out


def orient(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF/TIFF orientation (1..8; anything else means upright) to [H, W, ...]."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _band_to_rgb(samples: NDArray[Any], white: float, alpha: Alpha) -> NDArray[np.uint8]:
    if samples.dtype != np.uint8 or white != 255.0:
        # Cameras write NaN and infinity for dead pixels.
        scaled = np.nan_to_num(samples.astype(np.float32)) * np.float32(255.0 / white)
        samples = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    shape = (*samples.shape[:2], 3)
    if alpha == "none":
        return np.broadcast_to(samples, shape)
    colour, opacity = samples[..., :-1].astype(np.uint16), samples[..., -1:].astype(np.uint16)
    if alpha == "premultiplied":
        on_white = np.minimum(colour + (255 - opacity), 255)  # some writers round the colour up
    else:
        on_white = (colour * opacity + 255 * (255 - opacity) + 127) // 255  # rounded, in whole numbers
    return np.broadcast_to(on_white.astype(np.uint8), shape)


def source_span(start: float, step: float, count: int, length: int) -> tuple[int, int]:
    """First and one-past-last source pixel that ``count`` output pixels of size ``step`` need, of ``length``."""
    margin = 0.5 if step < 1 else 0.0  # bilinear reaches half a pixel beyond
    first = int(np.floor(start - margin + 1e-6))
    last = int(np.ceil(start + step * count + margin - 1e-6))
    first = min(max(first, 0), length - 1)
    return first, min(max(last, first + 1), length)


def resample(pixels: RGB, *, x: tuple[float, float], y: tuple[float, float], width: int, height: int) -> RGB:
    """Resample [h, w, 3] to [height, width, 3].

    x, y: (start, step) in pixels of ``pixels``: output pixel i covers ``start + i * step`` to
    ``start + (i + 1) * step``. A step of at least 1 averages exactly what is covered, a smaller one is
    bilinear between pixel centres. Pixels are repeated past the edge.
    """
    if x == (0.0, 1.0) and y == (0.0, 1.0) and pixels.shape[:2] == (height, width):
        return pixels
    rows = _weights(y[0], y[1], height, pixels.shape[0])
    columns = _weights(x[0], x[1], width, pixels.shape[1])
    tall = rows @ pixels.reshape(pixels.shape[0], -1).astype(np.float32)
    tall = np.ascontiguousarray(tall.reshape(height, -1, 3).swapaxes(0, 1))
    # Separable: rows, then columns, each as one sparse product.
    both = columns @ tall.reshape(tall.shape[0], -1)
    out = np.clip(np.rint(both), 0, 255).astype(np.uint8).reshape(width, height, 3)
    return np.ascontiguousarray(out.swapaxes(0, 1))


@lru_cache(maxsize=64)
def _weights(start: float, step: float, count: int, length: int) -> Any:
    """Sparse [count, length] matrix whose rows sum to 1."""
    from scipy.sparse import csr_matrix

    index, weight = _area(start, step, count) if step >= 1 else _bilinear(start, step, count)
    row = np.repeat(np.arange(count), index.shape[1])
    column = np.clip(index, 0, length - 1).ravel()
    weight = weight / weight.sum(axis=1, keepdims=True)
    keep = weight.ravel() > 0
    entries = (weight.ravel()[keep].astype(np.float32), (row[keep], column[keep]))
    return csr_matrix(entries, shape=(count, length), dtype=np.float32)


def _area(start: float, step: float, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    left = start + step * np.arange(count)[:, None]
    right = left + step
    first = np.floor(left + 1e-6).astype(np.intp)  # 2.9999999 is where pixel 3 starts
    index = first + np.arange(int(np.ceil(step)) + 1)
    overlap = np.minimum(right, index + 1) - np.maximum(left, index)
    return index, np.where(overlap > 1e-6, overlap, 0.0)


def _bilinear(start: float, step: float, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    centre = start + step * (np.arange(count)[:, None] + 0.5) - 0.5
    first = np.floor(centre)
    fraction = centre - first
    index = first.astype(np.intp) + np.arange(2)
    return index, np.concatenate([1 - fraction, fraction], axis=1)


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


@dataclass(frozen=True)
class ReadCost:
    """Bytes that reading a region takes for a moment: ``per_pixel`` of it, and ``fixed`` for any.

    in_bands: whether a region that is read in pieces has the same pixels.
    """

    per_pixel: int
    fixed: int
    in_bands: bool = True


class PixelReader(Protocol):
    """What each format provides. Levels are sorted from full resolution down; reads may come from any thread."""

    levels: tuple[Level, ...]
    mpp: float | None
    is_slide: bool
    whole: bool
    """Whether all pixels lie in memory already, so that they are best taken at once."""
    cost: ReadCost

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
        self.name = file.name
        self.width = reader.levels[0].width
        self.height = reader.levels[0].height
        self.mpp = reader.mpp
        self.is_slide = reader.is_slide

    @property
    def sha256(self) -> str:
        """Of the content; a slide of several files also covers its other files. Read once, then remembered."""
        return self._file.sha256_of_all()

    @property
    def image_id(self) -> str:
        """The same content has the same id, wherever it lies."""
        return f"img_{self.sha256[:32]}"

    @property
    def path(self) -> Path | None:
        """Where the file lies, links resolved; None for one that lives in memory."""
        return self._file.path

    @property
    def files(self) -> tuple[CheckedFile, ...]:
        """Every file it is made of, open and checked; the one it was opened by first."""
        return (self._file, *(part for _, part in self._file.parts))

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
        # The smallest level that still has at least the wanted detail; 4.0003 is 4.
        most = 1.001 * min(step_x, step_y)
        index = max(
            (i for i, one in enumerate(self._reader.levels) if max(one.downsample) <= most), default=0
        )
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
        self.is_slide, self.whole, self.cost = reader.is_slide, reader.whole, reader.cost
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
