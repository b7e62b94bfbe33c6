"""Rectangles in full-resolution pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError


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
        if min(values) < 0:
            raise InvalidArgumentError(
                "a box cannot start left of or above the image; pixels are counted from 0"
            )
        x0, y0, x1, y1 = values
        return cls(int(x0), int(y0), -int(-x1 // 1), -int(-y1 // 1))

    @classmethod
    def whole(cls, width: int, height: int) -> Box:
        """All of an image."""
        return cls(0, 0, width, height)

    @classmethod
    def around(cls, marked: NDArray[Any], x0: int = 0, y0: int = 0) -> Box | None:
        """The smallest box that holds all that is not 0 in [H, W], whose corner is at (x0, y0); None when all is 0."""
        rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
        if not len(rows):
            return None
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

    def inside(self, outer: Box) -> tuple[slice, slice]:
        """Rows and columns of this box in an array that covers ``outer``."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)

    def as_list(self) -> list[int]:
        """``[x0, y0, x1, y1]``."""
        return [self.x0, self.y0, self.x1, self.y1]
