"""An ordinary result as the measures of a slide see it: the same rules, everything in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.tools.answers.results import ImageInfo, Mask
from tissuetalk.tools.masks.layer import Points, Raster
from tissuetalk.tools.masks.tissue import tissue_mask
from tissuetalk.tools.measure.subject import Subject
from tissuetalk.tools.measure.values import OpenImage

TISSUE_VIEW_PX = 2048
"""Longest side of the view in which tissue is told from glass."""


class OrdinaryPlace:
    """A result whose masks are pictures. The image is opened only where tissue or a background is asked for."""

    def __init__(self, image: ImageInfo, subjects: Sequence[Subject], open_image: OpenImage) -> None:
        self.region = Box.from_sequence(image.region)
        self.mpp = image.mpp if image.mpp_source in ("file", "given") else None
        self.layers = [OrdinaryLayer(subject, self.region) for subject in subjects]
        self._open_image = open_image

    @cached_property
    def tissue(self) -> Raster:
        shrink = min(1.0, TISSUE_VIEW_PX / max(self.region.width, self.region.height))
        width, height = (max(1, round(side * shrink)) for side in (self.region.width, self.region.height))
        return Raster.over(tissue_mask(self.background(self.region, width, height)), self.region)

    @property
    def tissue_rule(self) -> str:
        return f"mean optical density above that of glass, on a view of at most {TISSUE_VIEW_PX} px"

    def background(self, box: Box, width: int, height: int) -> NDArray[np.uint8]:
        with self._open_image() as source:
            return source.read_region(box, width=width, height=height)


class OrdinaryLayer:
    """One mask of an ordinary result."""

    def __init__(self, subject: Subject, region: Box) -> None:
        self._subject, self._region = subject, region

    @property
    def record(self) -> Mask:
        return self._subject.record

    @property
    def has_objects(self) -> bool:
        return self._subject.instances is not None

    def count(self) -> int:
        return len(self._subject.table["id"])

    def points(self, within: tuple[float, float, float, float] | None = None) -> Iterator[Points]:
        table = self._subject.table
        x = table["centroid_x"] + 0.5
        y = table["centroid_y"] + 0.5
        found: Points = np.column_stack([x, y]).astype(np.float64)
        if within is not None:
            x0, y0, x1, y1 = within
            found = found[(x >= x0) & (x < x1) & (y >= y0) & (y < y1)]
        yield found

    def numbers(self, column: str) -> Iterator[NDArray[np.float64]]:
        yield self._subject.table[column].astype(np.float64)

    def rasters(self) -> Iterator[Raster]:
        yield Raster.over(self._subject.mask, self._region)

    def overview(self, most_px: int) -> Raster:
        """Every n-th pixel, n the smallest that is small enough."""
        mask = self._subject.mask
        every = math.ceil(math.sqrt(mask.size / most_px))
        small = mask[every // 2 :: every, every // 2 :: every] if every > 1 else mask
        return Raster(small, self._region.x0, self._region.y0, float(every), float(every))
