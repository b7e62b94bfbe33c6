"""What can be measured on a mask and on its objects; all numbers here are in pixels unless the name says otherwise.

The four mask characteristics (irregularity, instance ratio, count, dispersion) follow the definitions of the PathSegmentor
paper (arXiv 2506.20988): 8-connected components, those under 36 pixels dropped.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

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


def boundary_px(mask: Mask) -> int:
    """Count the mask pixels with a 4-neighbour outside the mask; beyond the image edge is outside."""
    inside = np.pad(mask, 1)
    interior = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return int(np.count_nonzero(mask & ~interior))


def irregularity(mask: Mask) -> tuple[float, float]:
    """Return ``1 - 4*pi*area/perimeter**2`` of the whole mask, clipped to 0..1 and as computed.

    The perimeter is the number of boundary pixels, so a compact shape can fall below 0 unclipped. An empty mask is (0, 0).
    """
    perimeter = boundary_px(mask)
    if perimeter == 0:
        return 0.0, 0.0
    raw = 1.0 - 4.0 * math.pi * int(np.count_nonzero(mask)) / perimeter**2
    return min(max(raw, 0.0), 1.0), raw


def instance_count(mask: Mask, min_px: int = MIN_INSTANCE_PX) -> int:
    """Number of 8-connected components of at least ``min_px`` pixels."""
    return int(components(mask, min_px).max(initial=0))


def instance_ratio(mask: Mask, min_px: int = MIN_INSTANCE_PX) -> float:
    """Mean share of the image that one instance covers; 0 without instances."""
    areas = np.bincount(components(mask, min_px).ravel())[1:]
    return float(areas.mean() / mask.size) if areas.size else 0.0


def instance_dispersion(mask: Mask, min_px: int = MIN_INSTANCE_PX) -> float:
    """Largest distance between two instance centroids in pixels; 0 with fewer than two."""
    return farthest_pair(centroids(components(mask, min_px)))


def centroids(instances: Labels) -> NDArray[np.float64]:
    """Centroids as [N, 2] rows of x, y in order of label; pixel (0, 0) has its centre at (0, 0)."""
    y, x = np.nonzero(instances)
    ids, rank = np.unique(instances[y, x], return_inverse=True)
    counts = np.bincount(rank, minlength=ids.size)
    sums = [np.bincount(rank, weights=axis, minlength=ids.size) for axis in (x, y)]
    return np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]


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
    distances, _ = cKDTree(points_xy).query(points_xy, k=2)
    return np.asarray(distances, dtype=np.float64)[:, 1]


def density_per_mm2(count: int, area_px: int, mpp: float) -> float:
    """Objects per mm² of the area looked at (``area_px`` pixels of ``mpp`` µm); NaN for no area."""
    area_mm2 = area_px * mpp**2 / 1e6
    return count / area_mm2 if area_mm2 > 0 else math.nan
