"""The densest 2 mm²: where a circle of that area holds most objects.

Mitoses are counted per 2 mm² in the hottest area of a tumour, which replaces "per 10 high-power fields" because fields
differ between microscopes. The area here is one circle, radius 797.9 µm; an object is inside when its centroid is.

Up to MOST_EXACT objects the answer is exact: the best circle can always be moved until some object lies on its rim, so
only circles through an object are tried, and of those the one deepest in the overlap of all circles around objects.
With more objects, centres lie on a square lattice of LATTICE_UM; objects are first gathered in squares of that size, the
circle's content is their sum, and the count reported is made again from the objects themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.rasters import Points
from tissuetalk.tools.masks.stored import SegmentedRegion
from tissuetalk.tools.measure.values import Value

AREA_MM2 = 2.0
RADIUS_UM = math.sqrt(AREA_MM2 / math.pi) * 1000
MOST_EXACT = 2_000
LATTICE_UM = 20.0


@dataclass(frozen=True)
class Hotspot:
    """x, y and radius_px: the circle in full-resolution pixels. count: centroids in it."""

    x: float
    y: float
    radius_px: float
    count: int
    exact: bool

    @property
    def how(self) -> str:
        found = f"centres on a lattice of {LATTICE_UM:g} µm, centroids first gathered in squares of that size"
        found = "the circle with most centroids of all circles" if self.exact else found
        return f"circle of {AREA_MM2:g} mm² (radius {RADIUS_UM:.1f} µm) anywhere in the region; {found}"


def hotspot(layer: MaskLayer, mpp: float) -> Hotspot | None:
    """The densest circle of one mask's objects; None without objects. mpp: µm per full-resolution pixel."""
    radius_px = RADIUS_UM / mpp
    number = layer.count()
    if number == 0:
        return None
    if number <= MOST_EXACT:
        centre, count = densest_exact(np.concatenate(list(layer.points())), radius_px)
        return Hotspot(*centre, radius_px, count, exact=True)
    step = LATTICE_UM / mpp
    reach = int(radius_px / step)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (np.hypot(dx, dy) * step <= radius_px).astype(np.float32)
    counts = binned(layer, step).astype(np.float32)
    held = cv2.filter2D(counts, cv2.CV_32F, disc, borderType=cv2.BORDER_CONSTANT)
    row, column = np.unravel_index(int(np.round(held).argmax()), held.shape)
    x = layer.region.x0 + (float(column) + 0.5) * step
    y = layer.region.y0 + (float(row) + 0.5) * step
    around = (x - radius_px, y - radius_px, x + radius_px + 1, y + radius_px + 1)
    count = sum(
        int(np.count_nonzero(np.hypot(batch[:, 0] - x, batch[:, 1] - y) <= radius_px))
        for batch in layer.points(around)
    )
    return Hotspot(x, y, radius_px, count, exact=False)


def densest_exact(points: Points, radius: float) -> tuple[tuple[float, float], int]:
    """(centre, count) of a circle that holds most of the points; among equals the one met first.

    Around every object lie the centres of all circles through it. Another object is in such a circle along one arc; the
    place under most arcs wins. The centre is then moved to the middle of its objects where that loses none of them.
    """
    neighbours: Any = cKDTree(points).query_ball_point(points, 2 * radius)  # an array of lists
    best_count, best_at, best_angle = 1, 0, None
    for at, near in enumerate(neighbours):
        if len(near) <= best_count:
            continue
        offset = points[near] - points[at]
        length = np.hypot(offset[:, 0], offset[:, 1])
        apart = length > 0  # objects at the very same place are in every circle through it
        towards = np.arctan2(offset[apart, 1], offset[apart, 0])
        half = np.arccos(np.minimum(length[apart] / (2 * radius), 1.0))
        overlapping, angle = _most_overlapped(towards - half, towards + half)
        count = overlapping + int(np.count_nonzero(~apart))
        if count > best_count:
            best_count, best_at, best_angle = count, at, angle
    x, y = points[best_at]
    if best_angle is None:
        return (float(x), float(y)), best_count
    x, y = x + radius * math.cos(best_angle), y + radius * math.sin(best_angle)
    return _centred(points, (x, y), radius, best_count)


def _most_overlapped(starts: NDArray[np.float64], stops: NDArray[np.float64]) -> tuple[int, float]:
    """(how many arcs, an angle they share). Arcs are closed and at most half a circle long."""
    if not len(starts):
        return 0, 0.0
    turn = 2 * math.pi
    starts, stops = np.concatenate([starts, starts + turn]), np.concatenate([stops, stops + turn])
    angles = np.concatenate([starts, stops])
    opens = np.concatenate([np.ones(len(starts), np.int64), -np.ones(len(stops), np.int64)])
    order = np.lexsort((-opens, angles))  # arcs are closed: one that begins where another ends still meets it
    running = np.cumsum(opens[order])
    top = int(running.argmax())
    # the middle of the shared arc keeps every one of its objects clear of the rim
    return int(running[top]), float((angles[order][top] + angles[order][top + 1]) / 2)


def _centred(
    points: Points, centre: tuple[float, float], radius: float, count: int
) -> tuple[tuple[float, float], int]:
    """The same content from a circle in the middle of it, if there is one."""
    slack = radius * (1 + 1e-9)  # the rim runs through an object, which rounding must not put outside
    inside = points[np.hypot(points[:, 0] - centre[0], points[:, 1] - centre[1]) <= slack]
    x, y = inside.mean(axis=0)
    again = int(np.count_nonzero(np.hypot(points[:, 0] - x, points[:, 1] - y) <= radius))
    return ((float(x), float(y)), again) if again >= count else (centre, max(count, len(inside)))


def binned(layer: MaskLayer, step_px: float) -> NDArray[np.int64]:
    """[rows, columns] objects in squares of ``step_px`` full-resolution pixels over the region."""
    region = layer.region
    columns, rows = math.ceil(region.width / step_px), math.ceil(region.height / step_px)
    counts = np.zeros(rows * columns, np.int64)
    for batch in layer.points():
        column = np.clip((batch[:, 0] - region.x0) // step_px, 0, columns - 1).astype(np.int64)
        row = np.clip((batch[:, 1] - region.y0) // step_px, 0, rows - 1).astype(np.int64)
        counts += np.bincount(row * columns + column, minlength=counts.size)
    return counts.reshape(rows, columns)


def values(spot: Hotspot | None, masks: SegmentedRegion) -> Iterator[Value]:
    """Count, position and tissue of the hotspot of one mask's objects."""
    mpp, total = masks.needs_scale("hotspot"), masks.tissue_mm2("hotspot")
    if spot is None:
        yield Value("hotspot.count", 0, "objects", "nothing was found anywhere, so no area is the densest")
        return
    small = f"; all tissue here is {total:.3g} mm², so this is no count per {AREA_MM2:g} mm² of tissue"
    small = small if total < AREA_MM2 else ""
    rule = f"centroids in: {spot.how}{small}"
    yield Value("hotspot.count", spot.count, f"objects in {AREA_MM2:g} mm²", rule)
    density = None if small else spot.count / AREA_MM2
    yield Value("hotspot.density", density, "per mm²", f"that count / {AREA_MM2:g} mm²{small}")
    x, y = masks.tissue.middles
    inside = (x[None, :] - spot.x) ** 2 + (y[:, None] - spot.y) ** 2 <= spot.radius_px**2
    covered = np.count_nonzero(inside & masks.tissue.values) * masks.tissue.pixel_px * mpp**2 / 1e6
    yield Value("hotspot.tissue_area", covered, "mm²", f"tissue inside that circle: {masks.tissue_rule}")
    for axis, at in (("x", spot.x), ("y", spot.y)):
        yield Value(f"hotspot.{axis}", at, "px", f"{axis} of its centre, full-resolution pixels")
    rule = f"its radius, {RADIUS_UM:.1f} µm in full-resolution pixels"
    yield Value("hotspot.radius", spot.radius_px, "px", rule)
