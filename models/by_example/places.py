"""Where a user pointed: the pixels that examples stand for, at the scale a target is learned at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB, BoxXYXY, PointXY

POINT_UM = 8.0
"""A point stands for a disc of tissue of this diameter, about one nucleus."""
MOST_PLACES = 2000
"""Of one target, over all images."""
MOST_VERTICES = 20_000
"""Of one polygon."""
LEAST_MARGIN_PX = 96
"""Working pixels read beyond a place on every side: what lies around it decides, too."""
WHOLE_PX = 1280
"""An image whose sides have at most so many working pixels is read as a whole."""


@dataclass(frozen=True)
class Place:
    """One example, in full-resolution pixels; exactly one of box, point, polygon and mask is given.

    polygon: corners x, y in order, closed by itself. mask: [H, W] bool whose first pixel lies at ``mask_at``.
    """

    is_positive: bool
    box: BoxXYXY | None = None
    point: PointXY | None = None
    polygon: Sequence[PointXY] | None = None
    mask: NDArray[np.bool_] | None = field(default=None, compare=False)
    mask_at: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        given = [each for each in (self.box, self.point, self.polygon, self.mask) if each is not None]
        if len(given) != 1:
            raise InvalidArgumentError("an example is one place: a box, a point, a polygon or a mask.")
        if self.polygon is not None and not 3 <= len(self.polygon) <= MOST_VERTICES:
            raise InvalidArgumentError(f"a polygon has 3 to {MOST_VERTICES} corners.")
        if self.mask is not None and not self.mask.any():
            raise InvalidArgumentError("an example's mask is empty; give one that marks something.")
        numbers = [*(self.box or ()), *(self.point or ()), *(n for xy in self.polygon or () for n in xy)]
        if not all(math.isfinite(each) for each in numbers):
            raise InvalidArgumentError(
                "every coordinate of an example must be finite, in pixels of the image."
            )

    def extent(self, mpp: float) -> Box:
        """The smallest full-resolution box around it. mpp: µm per full-resolution pixel."""
        if self.box is not None:
            return Box.from_sequence([float(each) for each in self.box])
        if self.point is not None:
            x, y = self.point
            radius = POINT_UM / mpp / 2
            return Box.from_sequence((x - radius, y - radius, x + radius, y + radius))
        if self.polygon is not None:
            xs, ys = zip(*self.polygon, strict=True)
            return Box.from_sequence((min(xs), min(ys), max(xs) + 1e-6, max(ys) + 1e-6))
        assert self.mask is not None
        around = Box.around(self.mask, *self.mask_at)
        assert around is not None
        return around

    def drawn(self, view: Box, step: float, mpp: float) -> NDArray[np.bool_]:
        """[H, W] of a view in working pixels, which are ``step`` full-resolution pixels wide; where its middle is in view, never empty.

        A working pixel belongs to the place when its middle does.
        """
        canvas = np.zeros((view.height, view.width), np.uint8)
        x = (view.x0 + np.arange(view.width) + 0.5) * step
        y = (view.y0 + np.arange(view.height) + 0.5) * step
        extent = self.extent(mpp)
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            canvas[np.ix_((y >= y0) & (y < y1), (x >= x0) & (x < x1))] = 1
        elif self.point is not None:
            radius = POINT_UM / mpp / 2
            canvas = (
                np.hypot(x[None] - self.point[0], y[:, None] - self.point[1]).astype(np.float32) <= radius
            )
        elif self.polygon is not None:
            corners = np.array(self.polygon, np.float64) / step - (view.x0 + 0.5, view.y0 + 0.5)
            cv2.fillPoly(canvas, [np.rint(corners * 16).astype(np.int32)], 1, shift=4)
        elif self.mask is not None:
            columns, rows = (
                np.floor(x).astype(int) - self.mask_at[0],
                np.floor(y).astype(int) - self.mask_at[1],
            )
            height, width = self.mask.shape
            across, down = (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)
            canvas[np.ix_(down, across)] = self.mask[np.ix_(rows[down], columns[across])]
        if not canvas.any():  # smaller than a working pixel
            column = math.floor((extent.x0 + extent.x1) / 2 / step) - view.x0
            row = math.floor((extent.y0 + extent.y1) / 2 / step) - view.y0
            if 0 <= column < view.width and 0 <= row < view.height:
                canvas[row, column] = 1
        return np.asarray(canvas, np.bool_)


@dataclass(frozen=True)
class Shown:
    """The examples of one image. mpp: µm per full-resolution pixel, given or assumed."""

    pixels_from: ImageSource
    mpp: float
    places: Sequence[Place]


@dataclass(frozen=True)
class Glimpse:
    """A piece of an image at the working scale, and the places on it.

    view: working pixels. number: of the image among those shown. marks: [(number of the place, positive, [H, W] bool)].
    """

    pixels: RGB
    view: Box
    step: float
    image: int
    marks: Sequence[tuple[int, bool, NDArray[np.bool_]]]


def glimpses(shown: Sequence[Shown], working_mpp: float) -> Iterator[Glimpse]:
    """What has to be read to learn from the places: whole small images, else the surroundings of every place.

    Raises InvalidArgumentError for a place outside its image.
    """
    first = 0
    for number, each in enumerate(shown):
        step = working_mpp / each.mpp
        source = each.pixels_from
        extents = [place.extent(each.mpp).clipped_to(source.width, source.height) for place in each.places]
        whole = Box(0, 0, max(1, round(source.width / step)), max(1, round(source.height / step)))
        if max(whole.width, whole.height) <= WHOLE_PX:
            groups = [(whole, list(range(len(extents))))]
        else:
            groups = _grouped([_around(extent, step, whole) for extent in extents], whole)
        for view, members in groups:
            pixels = source.read_grid(
                (view.x0 * step, step), (view.y0 * step, step), width=view.width, height=view.height
            )
            marks = [
                (first + at, each.places[at].is_positive, each.places[at].drawn(view, step, each.mpp))
                for at in members
            ]
            marks = [each for each in marks if each[2].any()]
            yield Glimpse(pixels, view, step, number, marks)
        first += len(each.places)


def _around(extent: Box, step: float, whole: Box) -> Box:
    """The working pixels around a place, aligned as tiles are; a very large place is seen in its middle."""
    x0, y0 = math.floor(extent.x0 / step) - LEAST_MARGIN_PX, math.floor(extent.y0 / step) - LEAST_MARGIN_PX
    x1, y1 = math.ceil(extent.x1 / step) + LEAST_MARGIN_PX, math.ceil(extent.y1 / step) + LEAST_MARGIN_PX

    def cut(start: int, end: int) -> tuple[int, int]:
        over = end - start - WHOLE_PX
        return (start + over // 2, end - over + over // 2) if over > 0 else (start, end)

    (x0, x1), (y0, y1) = cut(x0, x1), cut(y0, y1)
    aligned = Box(x0 // 32 * 32, y0 // 32 * 32, -(-x1 // 32) * 32, -(-y1 // 32) * 32)
    return aligned.intersection(whole) or whole


def _grouped(views: Sequence[Box], whole: Box) -> list[tuple[Box, list[int]]]:
    """Views that overlap are read once, together, while they stay small."""
    groups: list[tuple[Box, list[int]]] = []
    for at, view in enumerate(views):
        for index, (box, members) in enumerate(groups):
            joined = Box(
                min(box.x0, view.x0), min(box.y0, view.y0), max(box.x1, view.x1), max(box.y1, view.y1)
            )
            apart = box.width * box.height + view.width * view.height
            if max(joined.width, joined.height) <= WHOLE_PX and joined.width * joined.height <= apart:
                groups[index] = (joined, [*members, at])
                break
        else:
            groups.append((view, [at]))
    return groups


def as_list(values: NDArray[Any]) -> list[float]:
    """Plain numbers for a card."""
    return [round(float(each), 5) for each in values]
