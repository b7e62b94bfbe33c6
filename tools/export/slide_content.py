"""A slide result as the exports see it: outlines and rows in batches, never all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.masks import outlines
from tissuetalk.tools.export import tables
from tissuetalk.tools.export.content import Content
from tissuetalk.tools.masks.slide import SlideLayer, StoredSlide

MOST_TRACED_PX = 16_000_000
"""Largest picture of a region whose outline is traced; a larger region is traced at a coarser level of its pyramid."""
DECIMALS = 2
"""Of a coordinate in full-resolution pixels."""

Outlines = NDArray[Any]
"""Array of shapely geometries in full-resolution pixels."""


@dataclass(frozen=True)
class SlideContent:
    """content: what is true of all of it. slide: where the masks are read."""

    content: Content
    slide: StoredSlide

    @property
    def layers(self) -> list[SlideLayer]:
        return self.slide.layers

    def columns(self) -> list[str]:
        """Names of the numbers that every object of this slide has, as an ordinary export orders them."""
        with_objects = [layer for layer in self.layers if layer.columns]
        return [
            name
            for name in tables.columns(self.content)
            if name != "id" and all(name in layer.columns for layer in with_objects)
        ]


def outlined(layer: SlideLayer) -> Iterator[tuple[NDArray[np.int64], Outlines]]:
    """(numbers, outlines) of all objects in batches; the connected parts of a region as one batch."""
    if layer.columns:
        for batch in layer.batches("object_id, geometry"):
            shapes = shapely.from_wkb(batch["geometry"])
            yield batch["object_id"].astype(np.int64), _rounded(shapes)
        return
    numbers, parts = region_parts(layer)
    if len(numbers):
        yield numbers, parts


def region_parts(layer: SlideLayer) -> tuple[NDArray[np.int64], Outlines]:
    """Connected parts of a region, traced along pixel edges of the finest level that is small enough."""
    raster = layer.overview(MOST_TRACED_PX)
    whole = [shape for _, shape in outlines.polygons(raster.values.astype(np.int32), (0, 0))]
    parts = shapely.get_parts(np.array(whole, object))
    corner, step = (raster.x0, raster.y0), (raster.step_x, raster.step_y)
    placed = shapely.transform(parts, lambda corners: corners * step + corner)
    return np.arange(1, len(parts) + 1), _rounded(placed)


def _rounded(shapes: Outlines) -> Outlines:
    found: Outlines = shapely.transform(shapes, lambda corners: np.round(corners, DECIMALS))
    return found
