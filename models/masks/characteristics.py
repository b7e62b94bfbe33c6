"""What can be measured on a mask and on its objects; all numbers here are in pixels unless the name says otherwise.

The four mask characteristics (irregularity, instance ratio, count, dispersion) follow the definitions of the PathSegmentor
paper (arXiv 2506.20988): 8-connected components, those under 36 pixels dropped. ``survey`` computes them in windows, because
the mask of a slide does not fit in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

MIN_INSTANCE_PX: Final = 36
"""Components smaller than this are not instances."""


def components(mask: Mask, min_px: int = MIN_INSTANCE_PX) -> Labels:
    """Number the 8-connected components of a mask 1..N in reading order, leaving out those under ``min_px``."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    keep = areas >= min_px
    keep[0] = False
    renumber = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return np.asarray(renumber[labels], dtype=np.int32)


def without_specks(mask: Mask, smallest_px: float, hole_px: float) -> Mask:
    """The mask without 4-connected parts, and then without holes, of fewer pixels than these."""
    kept = _without_small(mask, smallest_px)
    return ~_without_small(~kept, hole_px)


def _without_small(mask: Mask, smallest_px: float) -> Mask:
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    # the first part is often nearly all of a background: what is beside it is little to count
    at = np.flatnonzero(labels > 1)
    numbers = labels.ravel()[at]
    areas = np.bincount(numbers, minlength=max(count, 2))
    areas[1] = np.count_nonzero(mask) - len(at)
    small = areas < smallest_px
    kept = mask & (labels != 1) if small[1] else mask.copy()
    kept.reshape(-1)[at[small[numbers]]] = False
    return kept


_SAMPLED: Final = 32
"""Of so many values one is looked at to learn how large the largest are at least."""


def largest(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The so many largest of [n] values in any order; all where there are fewer."""
    if values.size <= count:
        return values
    if values.size >= 2 * _SAMPLED * count:
        # putting millions of pixels in order would take as long as blending them
        sample = values[::_SAMPLED]
        values = values[values >= np.partition(sample, sample.size - count)[sample.size - count]]
    return np.asarray(np.partition(values, values.size - count)[-count:], np.float32)


@dataclass(frozen=True)
class MaskSurvey:
    """What one pass over a mask of any size tells, in its own pixels.

    part_areas: [N] of the 8-connected parts that are large enough. part_centres: [N, 2] x, y of their centroids.
    """

    area_px: int
    boundary_px: int
    part_areas: NDArray[np.int64]
    part_centres: NDArray[np.float64]

    @property
    def irregularity(self) -> tuple[float, float]:
        """``1 - 4*pi*area/perimeter**2`` of the whole mask, clipped to 0..1 and as computed.

        The perimeter is the number of boundary pixels, so a compact shape can fall below 0 unclipped. An empty mask
        has (0, 0).
        """
        if self.boundary_px == 0:
            return 0.0, 0.0
        raw = 1.0 - 4.0 * math.pi * self.area_px / self.boundary_px**2
        return min(max(raw, 0.0), 1.0), raw

    @property
    def mean_part_area(self) -> float:
        """Pixels; 0 without parts."""
        return float(self.part_areas.mean()) if self.part_areas.size else 0.0

    @property
    def dispersion(self) -> float:
        """Largest distance between two part centroids in pixels; 0 with fewer than two."""
        return farthest_pair(self.part_centres)


def survey_of(mask: Mask) -> MaskSurvey:
    """Of one [H, W] in memory."""
    return survey(lambda rows, columns: mask[rows, columns], mask.shape, side=max(mask.shape))


def survey(
    read: Callable[[slice, slice], Mask],
    shape: tuple[int, ...],
    *,
    side: int,
    min_px: float = MIN_INSTANCE_PX,
) -> MaskSurvey:
    """Read a mask of [height, width] = ``shape`` in windows of ``side`` px, each once; the answer is that of the whole.

    read: the mask at some rows and columns. min_px: parts below this are left out.
    """
    interior, parts = _Interior(shape), _Parts(shape)
    area = 0
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            mask = read(slice(top, top + side), slice(left, left + side))
            area += int(np.count_nonzero(mask))
            interior.add(mask, top, left)
            parts.add(mask, top, left)
    areas, centres = parts.joined()
    large = areas >= min_px
    return MaskSurvey(area, area - interior.count_px, areas[large], centres[large])


class _Interior:
    """Counts pixels whose four neighbours are marked, too.

    Two rows and columns are carried from window to window, so a window decides about its pixels but the last row and
    column, and about those left over by the windows before.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count_px = 0
        self._shape = shape
        self._above = self._below = np.zeros((2, shape[1] + 3), bool)
        self._left = np.zeros((0, 2), bool)

    def add(self, mask: Mask, top: int, left: int) -> None:
        # nothing is marked beyond the right and lower edge: one more row and column lets the last ones be decided
        more = [
            (0, int(top + mask.shape[0] == self._shape[0])),
            (0, int(left + mask.shape[1] == self._shape[1])),
        ]
        height, width = (size + 2 + after for size, (_, after) in zip(mask.shape, more, strict=True))
        if left == 0:
            self._above, self._below = self._below, np.zeros_like(self._above)
            self._left = np.zeros((height, 2), bool)
        block = np.zeros((height, width), bool)
        block[2 : 2 + mask.shape[0], 2 : 2 + mask.shape[1]] = mask
        block[:2] = self._above[:, left : left + width]
        block[:, :2] = self._left
        inside = block[:-2, 1:-1] & block[2:, 1:-1] & block[1:-1, :-2] & block[1:-1, 2:] & block[1:-1, 1:-1]
        self.count_px += int(np.count_nonzero(inside))
        self._below[:, left + 2 : left + width] = block[-2:, 2:]
        self._left = block[:, -2:].copy()


class _Parts:
    """8-connected parts of windows, joined where windows meet."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sums: list[NDArray[np.float64]] = [np.zeros((1, 3))]
        self._pairs: list[NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
        self._number = 1
        self._above = self._below = np.zeros(shape[1], np.int64)
        self._left = np.zeros(0, np.int64)

    def add(self, mask: Mask, top: int, left: int) -> None:
        _, labels, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA].astype(np.float64)
        # sums of whole numbers, so that parts add up to the same whatever the windows
        x, y = np.rint(centres[1:].T * areas) + areas * np.array([[left], [top]])
        self._sums.append(np.stack([areas, x, y], axis=1))

        def numbered(border: NDArray[Any]) -> NDArray[np.int64]:
            return np.where(border > 0, border.astype(np.int64) + (self._number - 1), 0)

        first, width = numbered(labels[:, 0]), labels.shape[1]
        if left == 0:
            self._above, self._below = self._below, np.zeros_like(self._above)
        else:
            self._meet(first, self._left)
        # the rows above are whole, so a part also meets what lies diagonally in the windows beside the one above
        before, after = max(left - 1, 0), min(left + width + 1, len(self._above))
        row = np.zeros(after - before, np.int64)
        row[left - before : left - before + width] = numbered(labels[0])
        self._meet(row, self._above[before:after])
        self._below[left : left + width] = numbered(labels[-1])
        self._left = numbered(labels[:, -1])
        self._number += len(areas)

    def _meet(self, here: NDArray[np.int64], there: NDArray[np.int64]) -> None:
        padded = np.pad(there, 1)
        for shift in range(3):
            other = padded[shift : shift + len(here)]
            both = (here > 0) & (other > 0)
            if both.any():
                self._pairs.append(np.unique(np.stack([here[both], other[both]], axis=1), axis=0))

    def joined(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """[N] areas and [N, 2] centroids of whole parts."""
        sums, (first, second) = np.concatenate(self._sums), np.concatenate(self._pairs).T
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(sums), len(sums)))
        _, whole = connected_components(graph, directed=False)
        area, x, y = (np.bincount(whole, weights=column) for column in sums.T)
        real = area > 0
        centres = np.stack([x[real], y[real]], axis=1) / area[real, None]
        return area[real].astype(np.int64), centres


def farthest_pair(points_xy: NDArray[np.float64]) -> float:
    """Largest Euclidean distance between two of the points; 0 with fewer than two."""
    if len(points_xy) < 2:
        return 0.0
    corners = points_xy
    if len(points_xy) > 64:  # only points of the convex hull can be farthest apart
        hull = cv2.convexHull(points_xy.astype(np.float32), returnPoints=False)
        corners = points_xy[hull.ravel()]
    gaps = corners[:, None, :] - corners[None, :, :]
    return float(np.sqrt((gaps**2).sum(axis=-1).max()))


def nearest_neighbour_px(points_xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from each centroid to the nearest other one; NaN when there is no other."""
    if len(points_xy) < 2:
        return np.full(len(points_xy), np.nan)
    from scipy.spatial import cKDTree  # slow to import, and a first answer measures nothing

    distances, _ = cKDTree(points_xy).query(points_xy, k=2)
    return np.asarray(distances, dtype=np.float64)[:, 1]
