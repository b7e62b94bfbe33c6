"""Where things lie on a slide: the model's pixels, blocks of work, windows in which objects are decided.

Working pixels have the model's own size and are counted from the slide's corner, never from the region's: a question
about a region meets the same blocks, and so the same stored features, as one about the whole slide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tissuetalk.models.images import Box
from tissuetalk.models.segmenter import Segmenter

ALIGN_PX = 32
"""Tiles start at multiples of this, the coarsest stride of the models here: all see the same pixels in the same phase."""


@dataclass(frozen=True)
class Grid:
    """Working pixels of one region at one model scale.

    step: full-resolution pixels per working pixel. x0, y0, width, height: the region, in working pixels.
    block_px: side of a block; its tile is larger by margin_px on every side. window_px: side of a window.
    """

    step: float
    x0: int
    y0: int
    width: int
    height: int
    block_px: int
    margin_px: int
    window_px: int

    @classmethod
    def over(
        cls, region: Box, mpp: float, model_mpp: float, model: Segmenter, tile_px: int | None, window_px: int
    ) -> Grid:
        """The grid of a model over a region. tile_px: None for the model's own."""
        step = model_mpp / mpp
        margin = -(-model.margin_px // ALIGN_PX) * ALIGN_PX
        block = max(ALIGN_PX, ((tile_px or model.tile_px) - 2 * margin) // ALIGN_PX * ALIGN_PX)
        x0, y0 = math.floor(region.x0 / step + 1e-6), math.floor(region.y0 / step + 1e-6)
        x1, y1 = math.ceil(region.x1 / step - 1e-6), math.ceil(region.y1 / step - 1e-6)
        return cls(step, x0, y0, max(1, x1 - x0), max(1, y1 - y0), block, margin, window_px)

    @property
    def tile_px(self) -> int:
        return self.block_px + 2 * self.margin_px

    @property
    def box(self) -> Box:
        """The region in working pixels."""
        return Box(self.x0, self.y0, self.x0 + self.width, self.y0 + self.height)

    def blocks(self) -> Iterator[Block]:
        """Every block that touches the region, row by row."""
        side = self.block_px
        for row in range(self.y0 // side, -(-(self.y0 + self.height) // side)):
            for column in range(self.x0 // side, -(-(self.x0 + self.width) // side)):
                yield Block(column, row, side, self.margin_px)

    def windows(self) -> Iterator[Window]:
        """All windows, row by row; they start at the region's corner and cover it."""
        for row in range(-(-self.height // self.window_px)):
            for column in range(-(-self.width // self.window_px)):
                x0, y0 = self.x0 + column * self.window_px, self.y0 + row * self.window_px
                core = Box(x0, y0, x0 + self.window_px, y0 + self.window_px)
                yield Window(column, row, intersection(core, self.box) or core)

    def full(self, box: Box, width: int, height: int) -> Box:
        """A box of working pixels in full-resolution ones, widened to whole pixels inside the slide."""
        x0, y0 = math.floor(box.x0 * self.step + 1e-6), math.floor(box.y0 * self.step + 1e-6)
        x1, y1 = math.ceil(box.x1 * self.step - 1e-6), math.ceil(box.y1 * self.step - 1e-6)
        x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
        return Box(x0, y0, max(min(x1, width), x0 + 1), max(min(y1, height), y0 + 1))


@dataclass(frozen=True)
class Block:
    """A square of work. Its tile, with the margin, is what the model sees."""

    column: int
    row: int
    side: int
    margin: int

    @property
    def name(self) -> str:
        return f"{self.column}_{self.row}"

    @property
    def core(self) -> Box:
        x0, y0 = self.column * self.side, self.row * self.side
        return Box(x0, y0, x0 + self.side, y0 + self.side)

    @property
    def tile(self) -> Box:
        return grown(self.core, self.margin)


@dataclass(frozen=True)
class Window:
    """A piece of the region in which objects are decided; ``core`` pieces do not overlap."""

    column: int
    row: int
    core: Box

    @property
    def name(self) -> str:
        return f"{self.column}_{self.row}"


def grown(box: Box, by: int) -> Box:
    """The box with a border of ``by`` pixels."""
    return Box(box.x0 - by, box.y0 - by, box.x1 + by, box.y1 + by)


def intersection(one: Box, other: Box) -> Box | None:
    """What two boxes share, or None."""
    x0, y0, x1, y1 = (
        max(one.x0, other.x0),
        max(one.y0, other.y0),
        min(one.x1, other.x1),
        min(one.y1, other.y1),
    )
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def inside(box: Box, outer: Box) -> tuple[slice, slice]:
    """Rows and columns of ``box`` in an array that covers ``outer``."""
    return slice(box.y0 - outer.y0, box.y1 - outer.y0), slice(box.x0 - outer.x0, box.x1 - outer.x0)
