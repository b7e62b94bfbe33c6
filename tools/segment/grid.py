"""Where things lie: the model's pixels, blocks of work, windows in which objects are decided.

Working pixels have the model's own size and are counted from the image's corner, never from the region's: pixel k covers
full-resolution ``k * step`` to ``(k + 1) * step``. A question about a region meets the same blocks, and so the same stored
features, as one about the whole slide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import Segmenter

ALIGN_PX = 32
"""Tiles start at multiples of this, the coarsest stride of the models here: all see the same pixels in the same phase."""
WINDOW_GROWTH = 2
"""A window has at most this many times more full-resolution than working pixels along a side."""
MAX_WORKING_PX = 64_000_000
"""Largest region, in pixels at the model's scale, whose maps are held in memory at once."""
MAX_MASK_PX = 160_000_000
"""Largest region, in full-resolution pixels, whose mask is returned in full."""


@dataclass(frozen=True)
class SlideSettings:
    """When a region is worked on block by block, and in how large pieces.

    Nothing here changes what is found, beyond the tolerance that ``docs/slides.md`` states.

    whole_px: largest region, in pixels at the model's scale, whose maps are held in memory at once; mask_px: the same
    in full-resolution pixels. Anything larger is worked on block by block.
    tile_px: side of what the model sees at once; the model's own by default.
    window_px: largest side of the pieces in which objects are decided.
    batch: tiles given to the model at once, where it takes several. readers, finishers: threads that read ahead and
    that decide objects while the model works.
    """

    whole_px: int = MAX_WORKING_PX
    mask_px: int = MAX_MASK_PX
    tile_px: int | None = None
    window_px: int = 2048
    batch: int = 1
    readers: int = 2
    finishers: int = 1


DEFAULTS = SlideSettings()


@dataclass(frozen=True)
class Block:
    """A piece of work. ``tile`` is what the model sees, ``core`` its share of the image; both in working pixels.

    margin: how far the tile reaches beyond the core where there is a neighbour. beside: whether there is one, at the
    left, top, right and bottom; elsewhere the tile ends where the image does.
    """

    column: int
    row: int
    core: Box
    tile: Box
    margin: int = 0
    beside: tuple[bool, bool, bool, bool] = (False, False, False, False)

    @property
    def name(self) -> str:
        return f"{self.column}_{self.row}"

    @property
    def heard(self) -> Box:
        """The part of the tile whose answer counts: of a margin the outer half, where the model saw least, does not."""
        left, top, right, bottom = (self.margin // 2 * each for each in self.beside)
        tile = self.tile
        return Box(tile.x0 + left, tile.y0 + top, tile.x1 - right, tile.y1 - bottom)

    @property
    def tile_size(self) -> tuple[int, int]:
        return self.tile.width, self.tile.height


@dataclass(frozen=True)
class Window:
    """A piece of the region in which objects are decided. ``core`` pieces do not overlap.

    core: working pixels. full: the full-resolution pixels that lie on them.
    """

    column: int
    row: int
    core: Box
    full: Box

    @property
    def name(self) -> str:
        return f"{self.column}_{self.row}"


@dataclass(frozen=True)
class Grid:
    """Working pixels of one region at one model scale.

    model_mpp: µm per working pixel. step: full-resolution pixels per working pixel. region: full-resolution pixels.
    box: the working pixels whose middle lies in the region. image_px: width and height of the whole image in working pixels. tile_px: side of what the model
    sees at once. margin_px: its part on every side that belongs to a neighbour. window_px: largest side of a window.
    """

    model_mpp: float
    step: float
    region: Box
    box: Box
    image_px: tuple[int, int]
    tile_px: int
    margin_px: int
    window_px: int

    @classmethod
    def over(
        cls,
        source: ImageSource,
        region: Box,
        mpp: float,
        model_mpp: float,
        model: Segmenter,
        settings: SlideSettings,
    ) -> Grid:
        """The grid of a model over a region of an image of mpp µm per full-resolution pixel."""
        step = model_mpp / mpp
        image = _middles(0, source.width, step)[1], _middles(0, source.height, step)[1]
        x0, x1 = _middles(region.x0, region.x1, step, image[0])
        y0, y1 = _middles(region.y0, region.y1, step, image[1])
        margin = -(-model.margin_px // ALIGN_PX) * ALIGN_PX
        side = max(ALIGN_PX, ((settings.tile_px or model.tile_px) - 2 * margin) // ALIGN_PX * ALIGN_PX)
        window = max(64, int(settings.window_px * min(1.0, WINDOW_GROWTH / step)) // 2 * 2)
        return cls(model_mpp, step, region, Box(x0, y0, x1, y1), image, side + 2 * margin, margin, window)

    @property
    def block_px(self) -> int:
        """Side of the part of a tile that belongs to it alone."""
        return self.tile_px - 2 * self.margin_px

    def blocks(self) -> Iterator[Block]:
        """Every block whose core touches the region, row by row; a region that fits one tile is one, and all of it."""
        if self.is_one_tile:
            yield Block(0, 0, self.box, self.box)
            return
        across, down = (self._count(axis) for axis in (0, 1))
        for column, row in self._places(self.box):
            x0, x1 = self._core(column, 0)
            y0, y1 = self._core(row, 1)
            beside = (column > 0, row > 0, column < across - 1, row < down - 1)
            tile = Box(
                x0 - self.margin_px * beside[0],
                y0 - self.margin_px * beside[1],
                x1 + self.margin_px * beside[2],
                y1 + self.margin_px * beside[3],
            )
            yield Block(column, row, Box(x0, y0, x1, y1), tile, self.margin_px, beside)

    @property
    def is_one_tile(self) -> bool:
        """Whether the model sees all of the region at once."""
        return self.box.width <= self.tile_px and self.box.height <= self.tile_px

    def blocks_near(self, box: Box) -> Iterator[tuple[int, int]]:
        """Columns and rows of all blocks whose tiles may reach a box of working pixels, in reading order."""
        yield from self._places(box.grown(self.margin_px))

    def _places(self, box: Box) -> Iterator[tuple[int, int]]:
        """Columns and rows of the blocks whose cores touch a box of working pixels."""
        if self.is_one_tile:
            yield 0, 0
            return
        for row in range(self._number(box.y0, 1), self._number(box.y1 - 1, 1) + 1):
            for column in range(self._number(box.x0, 0), self._number(box.x1 - 1, 0) + 1):
                yield column, row

    def block_names(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> list[str]:
        """The names of the blocks that hold working pixels."""
        if self.is_one_tile:
            return ["0_0"] * len(x)
        columns, rows = (
            np.clip((at - self.margin_px) // self.block_px, 0, self._count(axis) - 1)
            for axis, at in ((0, x), (1, y))
        )
        return [f"{column}_{row}" for column, row in zip(columns.tolist(), rows.tolist(), strict=True)]

    def _count(self, axis: int) -> int:
        """Blocks along the whole image. The first and last own the margins that no neighbour wants."""
        return max(1, -(-(self.image_px[axis] - 2 * self.margin_px) // self.block_px))

    def _number(self, at: int, axis: int) -> int:
        return min(max((at - self.margin_px) // self.block_px, 0), self._count(axis) - 1)

    def _core(self, number: int, axis: int) -> tuple[int, int]:
        last = number == self._count(axis) - 1
        first, end = (at * self.block_px + self.margin_px for at in (number, number + 1))
        return (0 if number == 0 else first), (self.image_px[axis] if last else end)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """All windows, row by row: pieces of about equal size that start at even places of the region.

        Models may halve their maps; from even places they pair the same pixels in every window.
        """
        rows, columns = (
            _edges(start, length, self.window_px)
            for start, length in ((self.box.y0, self.box.height), (self.box.x0, self.box.width))
        )
        return tuple(
            Window(column, row, core, self.full(core))
            for row, (y0, y1) in enumerate(pairwise(rows))
            for column, (x0, x1) in enumerate(pairwise(columns))
            for core in [Box(x0, y0, x1, y1)]
        )

    def full(self, box: Box) -> Box:
        """The full-resolution pixels of the region whose middle lies on the working pixels of a box of this grid.

        Pixels of the region beyond its outermost working pixels belong to those. The least box is one pixel.
        """
        here, at = self.box, self.region
        x0 = at.x0 if box.x0 <= here.x0 else _first_on(box.x0, self.step)
        y0 = at.y0 if box.y0 <= here.y0 else _first_on(box.y0, self.step)
        x1 = at.x1 if box.x1 >= here.x1 else _first_on(box.x1, self.step)
        y1 = at.y1 if box.y1 >= here.y1 else _first_on(box.y1, self.step)
        return Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))

    def covered(self, box: Box, source: ImageSource) -> Box:
        """All full-resolution pixels of the image that a box of working pixels, in the region or not, touches."""
        x0, y0 = (
            min(max(int(at * self.step), 0), last - 1) for at, last in _with_sizes(box.x0, box.y0, source)
        )
        x1, y1 = (
            max(min(math.ceil(at * self.step), last), first + 1)
            for (at, last), first in zip(_with_sizes(box.x1, box.y1, source), (x0, y0), strict=True)
        )
        return Box(x0, y0, x1, y1)


def _with_sizes(x: int, y: int, source: ImageSource) -> tuple[tuple[int, int], tuple[int, int]]:
    return (x, source.width), (y, source.height)


def _middles(start: int, end: int, step: float, most: int | None = None) -> tuple[int, int]:
    """First and one-past-last working pixel whose middle lies in start..end; at least one, of at most ``most``."""
    first, last = (math.ceil(at / step - 0.5 - 1e-9) for at in (start, end))
    if most is not None:
        first, last = min(first, most - 1), min(last, most)
    return first, max(last, first + 1)


def _first_on(number: int, step: float) -> int:
    """The first full-resolution pixel whose middle lies on a working pixel, by the arithmetic of ``nearest``."""
    at = math.ceil(number * step - 0.5)
    while math.floor((at - 1 + 0.5) / step) >= number:
        at -= 1
    while math.floor((at + 0.5) / step) < number:
        at += 1
    return at


def _edges(start: int, length: int, side: int) -> list[int]:
    count = -(-length // side)
    return [*(start + round(number * length / count / 2) * 2 for number in range(count)), start + length]
