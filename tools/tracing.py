"""Outlines along pixel edges, exact to the pixel, of all objects of a label image at once.

Every straight run of an object's edge is walked with the object on the right hand. At a corner where two pixels of one
object meet diagonally the walk turns right, which keeps 4-connected pixels together: each 4-connected part is one
polygon, and a ring that passes a corner twice is cut there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from skimage.measure import label as connected_parts

Corner = tuple[int, int]
_Ints = NDArray[Any]


@dataclass(frozen=True)
class _Edges:
    """Straight runs in one direction: on which line, from where to where, and of which object."""

    line: _Ints
    start: _Ints
    stop: _Ints
    number: _Ints

    @property
    def ahead(self) -> NDArray[np.bool_]:
        """Towards larger coordinates."""
        return self.stop > self.start


def trace(labels: NDArray[np.int32], origin_xy: tuple[int, int]) -> Iterator[tuple[int, shapely.Geometry]]:
    """(label, Polygon or MultiPolygon) of every label of [H, W] in ascending order, in pixel edges from the origin."""
    if not labels.any():
        return
    shells: dict[tuple[int, int], NDArray[np.float64]] = {}
    holes: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    for of, ring in _rings(labels):
        x, y = ring.T
        is_shell = float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) > 0
        if is_shell:
            shells[of] = ring + origin_xy
        else:
            holes.setdefault(of, []).append(ring + origin_xy)
    polygons: dict[int, list[shapely.Polygon]] = {}
    for of in sorted(shells):
        polygons.setdefault(of[0], []).append(shapely.Polygon(shells[of], holes.get(of, [])))
    for number, parts in polygons.items():
        yield number, parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _rings(labels: NDArray[np.int32]) -> Iterator[tuple[tuple[int, int], NDArray[np.float64]]]:
    """((label, part), [N, 2] corners) of every closed outline: outer ones clockwise on the screen, holes not."""
    parts = connected_parts(labels, background=0, connectivity=1)
    padded = np.pad(labels, 1)
    along, across = (
        _edges(padded, first_ahead=True),
        _edges(np.ascontiguousarray(padded.T), first_ahead=False),
    )
    to_across = _joined(
        (~along.ahead, along.stop, along.line, along.number),
        (~across.ahead, across.line, across.start, across.number),
    )
    to_along = _joined(
        (~across.ahead, across.line, across.stop, across.number),
        (along.ahead, along.start, along.line, along.number),
    )
    following = to_along[to_across].tolist()
    numbers = along.number.tolist()
    inside = parts[along.line - ~along.ahead, np.minimum(along.start, along.stop)].tolist()
    starts = list(zip(along.start.tolist(), along.line.tolist(), strict=True))
    stops = list(zip(along.stop.tolist(), along.line.tolist(), strict=True))
    seen = bytearray(len(following))
    for first in range(len(following)):
        corners: list[Corner] = []
        at = first
        while not seen[at]:
            seen[at] = 1
            corners += (starts[at], stops[at])
            at = following[at]
        for ring in _cut(corners):
            yield (numbers[first], inside[first]), np.array(ring, np.float64)


def _edges(padded: NDArray[np.int32], *, first_ahead: bool) -> _Edges:
    """Runs between rows: those of objects below the line, walked ahead or back, and of objects above, the other way."""
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    differ = above != below
    lines, starts, stops, numbers = [], [], [], []
    for field, ahead in (
        (np.where(differ, below, 0), first_ahead),
        (np.where(differ, above, 0), not first_ahead),
    ):
        wide = np.pad(field, ((0, 0), (1, 1)))
        change = wide[:, 1:] != wide[:, :-1]
        line, left = np.nonzero(change & (wide[:, 1:] != 0))
        _, right = np.nonzero(change & (wide[:, :-1] != 0))
        lines.append(line)
        starts.append(left if ahead else right)
        stops.append(right if ahead else left)
        numbers.append(wide[line, left + 1])
    return _Edges(*(np.concatenate(each) for each in (lines, starts, stops, numbers)))


def _joined(ends: tuple[_Ints, ...], starts: tuple[_Ints, ...]) -> _Ints:
    """For every edge the one that starts where it ends; the first key pairs them by right turns where two do."""
    following = np.empty(len(ends[0]), np.int64)
    following[np.lexsort(ends)] = np.lexsort(starts)
    return following


def _cut(ring: list[Corner]) -> Iterator[list[Corner]]:
    """A ring as rings that pass every corner once."""
    if not ring or len(set(ring)) == len(ring):
        yield from [ring] if ring else []
        return
    place: dict[Corner, int] = {}
    open_: list[Corner] = []
    for corner in ring:
        if corner in place:
            loop = open_[place[corner] :]
            del open_[place[corner] :]
            for passed in loop:
                del place[passed]
            yield loop
        place[corner] = len(open_)
        open_.append(corner)
    yield open_
