"""What measures need of a result, whether it is one picture in memory or a slide on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.measure.values import name_of

Points = NDArray[np.float64]
"""[N, 2] rows of x, y in full-resolution pixels of the source, where pixel (0, 0) covers 0..1: the edge counts."""


@dataclass(frozen=True)
class Raster:
    """A yes-or-no picture of a part of the image.

    values: [h, w] bool. x0, y0: its corner and step_x, step_y: the size of one of its pixels, in full-resolution px.
    """

    values: NDArray[np.bool_]
    x0: float
    y0: float
    step_x: float
    step_y: float

    @classmethod
    def over(cls, values: NDArray[np.bool_], box: Box) -> Raster:
        """A picture that covers ``box`` exactly."""
        height, width = values.shape
        return cls(values, box.x0, box.y0, box.width / width, box.height / height)

    @property
    def area_px(self) -> float:
        """Full-resolution pixels that are marked."""
        return float(np.count_nonzero(self.values)) * self.step_x * self.step_y

    def at(self, points: Points) -> NDArray[np.bool_]:
        """Whether each point is marked; outside the picture nothing is."""
        height, width = self.values.shape
        column = np.floor((points[:, 0] - self.x0) / self.step_x).astype(np.int64)
        row = np.floor((points[:, 1] - self.y0) / self.step_y).astype(np.int64)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = np.zeros(len(points), bool)
        found[inside] = self.values[row[inside], column[inside]]
        return found


class Layer(Protocol):
    """One mask of a result."""

    @property
    def record(self) -> Mask: ...

    @property
    def has_objects(self) -> bool: ...

    def count(self) -> int:
        """Number of objects; 0 for a region."""
        ...

    def points(self, within: tuple[float, float, float, float] | None = None) -> Iterator[Points]:
        """Centroids in batches; only those in the half-open [x0, y0, x1, y1), if given."""
        ...

    def numbers(self, column: str) -> Iterator[NDArray[np.float64]]:
        """One column of the object table in batches, in the order of ``points``."""
        ...

    def rasters(self) -> Iterator[Raster]:
        """The mask at its finest, in pieces that do not overlap; pieces with nothing in them may be missing."""
        ...

    def overview(self, most_px: int) -> Raster:
        """All of the mask in at most so many pixels."""
        ...


class Place(Protocol):
    """The part of an image that was segmented, with its masks."""

    @property
    def region(self) -> Box: ...

    @property
    def mpp(self) -> float | None:
        """µm per full-resolution pixel; None when nobody knows it."""
        ...

    @property
    def layers(self) -> Sequence[Layer]: ...

    @property
    def tissue(self) -> Raster:
        """Where there is more than glass."""
        ...

    @property
    def tissue_rule(self) -> str:
        """How tissue was told from glass."""
        ...

    def background(self, box: Box, width: int, height: int) -> NDArray[np.uint8]:
        """[height, width, 3] pixels to draw on."""
        ...


def needs_scale(place: Place, metric: str) -> float:
    """µm per pixel. Raises InvalidArgumentError for a metric that makes no sense in pixels."""
    if place.mpp is None:
        raise InvalidArgumentError(
            f"{metric} needs µm per pixel, and neither the file nor the caller said it; segment again with mpp."
        )
    return place.mpp


def tissue_mm2(place: Place, metric: str) -> float:
    """Area of the tissue. Raises InvalidArgumentError without a scale or without tissue."""
    mpp = needs_scale(place, metric)
    area = place.tissue.area_px * mpp**2 / 1e6
    if area <= 0:
        raise InvalidArgumentError(f"{metric} is per tissue, and no tissue was found; view the image first.")
    return area


def pairs(place: Place, metric: str) -> list[tuple[Layer, Layer]]:
    """(objects, region) of every two masks; a mask of objects can also be what others lie in.

    Raises InvalidArgumentError, which says what is missing, when there is no such pair.
    """
    found = [
        (first, second)
        for first in place.layers
        for second in place.layers
        if first is not second and first.has_objects
    ]
    if not found:
        have = ", ".join(name_of(layer.record) for layer in place.layers) or "none"
        raise InvalidArgumentError(
            f"{metric} needs two masks, one of them separate objects; this result has: {have}. "
            "Segment both in one call."
        )
    return found
