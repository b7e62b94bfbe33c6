"""Masks as polygons along pixel edges, exact to the pixel, of all objects of a label image at once.

An area is a pixel count and no two objects overlap: drawn again, polygons give the same pixels. Pixels that meet only at a
corner are separate parts of one MultiPolygon.

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

from tissuetalk.models.images import Box

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


@dataclass(frozen=True)
class _Rings:
    """Closed outlines. corners: [N, 2] x, y, ring after ring. ring: [N]. number, part: of each ring's object."""

    corners: NDArray[np.int64]
    ring: NDArray[np.int64]
    number: _Ints
    part: _Ints


def polygons(labels: NDArray[np.int32], origin_xy: tuple[int, int]) -> Iterator[tuple[int, shapely.Geometry]]:
    """(label, polygon with holes, or several) of every label of [H, W] in ascending order.

    origin_xy: full-resolution pixels of the first label's corner.
    """
    marked = Box.around(labels)
    if marked is None:
        return
    left, top = marked.x0, marked.y0
    rings = _rings(np.ascontiguousarray(labels[marked.inside(Box.whole(labels.shape[1], labels.shape[0]))]))
    order = np.lexsort((~_is_shell(rings), rings.part, rings.number))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    by_place = np.argsort(place[rings.ring], kind="stable")
    corners = (rings.corners[by_place] + (origin_xy[0] + left, origin_xy[1] + top)).astype(np.float64)
    closed = np.asarray(shapely.linearrings(corners, indices=place[rings.ring][by_place]))
    number, part = rings.number[order], rings.part[order]
    first = np.flatnonzero(np.r_[True, (number[1:] != number[:-1]) | (part[1:] != part[:-1])])
    belongs = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(order)]))
    shapes: NDArray[Any] = np.asarray(shapely.polygons(closed, indices=belongs))
    numbers, starts = np.unique(number[first], return_index=True)
    for label, start, stop in zip(numbers.tolist(), starts, np.r_[starts[1:], len(first)], strict=True):
        yield label, shapes[start] if stop == start + 1 else shapely.MultiPolygon(shapes[start:stop])


def _is_shell(rings: _Rings) -> NDArray[np.bool_]:
    """Outer outlines run clockwise on the screen, holes do not."""
    starts = np.flatnonzero(np.r_[True, rings.ring[1:] != rings.ring[:-1]])
    following = np.arange(1, len(rings.ring) + 1)
    following[np.r_[starts[1:], len(rings.ring)] - 1] = starts
    (x, y), (next_x, next_y) = rings.corners.T, rings.corners[following].T
    return np.asarray(np.add.reduceat(x * next_y - y * next_x, starts) > 0)


def _rings(labels: NDArray[np.int32]) -> _Rings:
    """All closed outlines of [H, W], each passing a corner once."""
    from skimage import measure  # brings SciPy: not before there is something to trace

    parts = measure.label(labels, background=0, connectivity=1)
    padded = np.pad(labels, 1)
    along = _edges(padded, first_ahead=True)
    across = _edges(np.ascontiguousarray(padded.T), first_ahead=False)
    to_across = _joined(
        (~along.ahead, along.stop, along.line, along.number),
        (~across.ahead, across.line, across.start, across.number),
    )
    to_along = _joined(
        (~across.ahead, across.line, across.stop, across.number),
        (along.ahead, along.start, along.line, along.number),
    )
    order, ring = _walked(to_along[to_across])
    inside = parts[along.line - ~along.ahead, np.minimum(along.start, along.stop)]
    corners = np.empty((2 * len(order), 2), np.int64)
    corners[0::2, 0], corners[1::2, 0] = along.start[order], along.stop[order]
    corners[0::2, 1] = corners[1::2, 1] = along.line[order]
    begins = order[np.flatnonzero(np.r_[True, ring[1:] != ring[:-1]])]
    return _once(_Rings(corners, np.repeat(ring, 2), along.number[begins], inside[begins]))


def _walked(following: _Ints) -> tuple[_Ints, _Ints]:
    """All edges in the order of the walks, and the number of each one's walk. A walk begins at its lowest edge.

    Every round looks twice as far ahead, so even long outlines take few rounds.
    """
    lowest, ahead = np.arange(len(following)), following
    while True:
        lower = np.minimum(lowest, lowest[ahead])
        if np.array_equal(lower, lowest):
            break
        lowest, ahead = lower, ahead[ahead]
    last = following == lowest
    ahead = np.where(last, np.arange(len(following)), following)
    to_go = (~last).astype(np.int64)
    while (further := to_go[ahead]).any():
        to_go, ahead = to_go + further, ahead[ahead]
    order = np.lexsort((-to_go, lowest))
    walk = lowest[order]
    return order, np.cumsum(np.r_[False, walk[1:] != walk[:-1]])


def _once(rings: _Rings) -> _Rings:
    """Rings that pass a corner twice, as several."""
    width = int(rings.corners[:, 0].max()) + 1
    code = (rings.ring * (int(rings.corners[:, 1].max()) + 1) + rings.corners[:, 1]) * width
    sorted_code = np.sort(code + rings.corners[:, 0])
    twice = sorted_code[1:][sorted_code[1:] == sorted_code[:-1]]
    if not len(twice):
        return rings
    crossed = np.unique(twice // width // (int(rings.corners[:, 1].max()) + 1))
    simple = ~np.isin(rings.ring, crossed)
    most = len(code)
    corners, keys = [rings.corners[simple]], [rings.ring[simple] * most]
    for ring in crossed.tolist():
        first, stop = np.searchsorted(rings.ring, [ring, ring + 1])
        for index, loop in enumerate(_cut([(x, y) for x, y in rings.corners[first:stop].tolist()])):
            corners.append(np.array(loop, np.int64))
            keys.append(np.full(len(loop), ring * most + index))
    key = np.concatenate(keys)
    order = np.argsort(key, kind="stable")
    used, loops = np.unique(key[order], return_inverse=True)
    return _Rings(np.concatenate(corners)[order], loops, rings.number[used // most], rings.part[used // most])


def _edges(padded: NDArray[np.int32], *, first_ahead: bool) -> _Edges:
    """Runs between rows: those of objects below the line, walked ahead or back, and of objects above, the other way."""
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    width = above.shape[1]
    differ = np.flatnonzero(above != below)
    rows, columns = np.divmod(differ, width)
    lines, starts, stops, numbers = [], [], [], []
    for side, ahead in ((below, first_ahead), (above, not first_ahead)):
        number = side[rows, columns]
        marked = number != 0
        at, line, column, number = differ[marked], rows[marked], columns[marked], number[marked]
        goes_on = (at[1:] == at[:-1] + 1) & (line[1:] == line[:-1]) & (number[1:] == number[:-1])
        begins, ends = np.flatnonzero(np.r_[True, ~goes_on]), np.flatnonzero(np.r_[~goes_on, True])
        left, right = column[begins], column[ends] + 1
        lines.append(line[begins])
        starts.append(left if ahead else right)
        stops.append(right if ahead else left)
        numbers.append(number[begins])
    return _Edges(*(np.concatenate(each) for each in (lines, starts, stops, numbers)))


def _joined(ends: tuple[_Ints, ...], starts: tuple[_Ints, ...]) -> _Ints:
    """For every edge the one that starts where it ends; the first key pairs them by right turns where two do."""
    following = np.empty(len(ends[0]), np.int64)
    following[np.lexsort(ends)] = np.lexsort(starts)
    return following


def _cut(ring: list[Corner]) -> Iterator[list[Corner]]:
    """A ring as rings that pass every corner once."""
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
