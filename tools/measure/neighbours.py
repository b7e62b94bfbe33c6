"""Nearest neighbours of any number of objects, a strip of the slide at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tissuetalk.tools.masks.layer import Layer, Place, Points

OBJECTS_PER_STRIP = 200_000
HALO_PX = 1_000.0
"""How far beyond a strip neighbours are looked for at first; doubled for those that could have a nearer one."""


def nearest_px(layer: Layer, place: Place) -> Iterator[NDArray[np.float64]]:
    """Distance from each centroid to the nearest other one, full-resolution px, in batches; nothing for one object.

    The answer is exact. Memory is that of one strip: strips are as high as so many objects allow.
    """
    if layer.count() < 2:
        return
    for top, bottom in _strips(layer, place):
        asked = _between(layer, place, top, bottom)
        if not len(asked):
            continue
        halo, distances = HALO_PX, np.full(len(asked), np.inf)
        open_ = np.arange(len(asked))
        while open_.size:
            everything = top - halo <= place.region.y0 and bottom + halo >= place.region.y1
            tree = cKDTree(_between(layer, place, top - halo, bottom + halo))
            found = np.asarray(tree.query(asked[open_], k=2)[0])[:, 1]
            distances[open_] = found
            edge = np.minimum(asked[open_, 1] - (top - halo), bottom + halo - asked[open_, 1])
            open_ = open_[:0] if everything else open_[found > edge]
            halo *= 2
        yield distances


def _strips(layer: Layer, place: Place) -> Iterator[tuple[float, float]]:
    """(top, bottom) of strips that share the objects about evenly, from a histogram of where they lie."""
    region = place.region
    edges = np.linspace(region.y0, region.y1, min(region.height, 4096) + 1)
    held = np.zeros(len(edges) - 1, np.int64)
    for batch in layer.points():
        at = np.clip(np.searchsorted(edges, batch[:, 1], side="right") - 1, 0, len(held) - 1)
        held += np.bincount(at, minlength=len(held))
    top, inside = float(edges[0]), 0
    for number, more in enumerate(held):
        if inside and inside + more > OBJECTS_PER_STRIP:
            yield top, float(edges[number])
            top, inside = float(edges[number]), 0
        inside += int(more)
    yield top, float(edges[-1])


def _between(layer: Layer, place: Place, top: float, bottom: float) -> Points:
    region = place.region
    batches = list(layer.points((region.x0 - 1.0, top, region.x1 + 1.0, bottom)))
    return np.concatenate(batches) if batches else np.zeros((0, 2))
