"""Masks as polygons other software opens: GeoJSON as QuPath reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

MANY = 200
"""From this many objects on QuPath is better served with detections than with annotations."""


def features(
    mask: NDArray[np.bool_],
    instances: NDArray[np.int32] | None,
    *,
    origin_xy: tuple[int, int],
    name: str,
    colour: str,
    mask_id: str,
) -> list[dict[str, Any]]:
    """One GeoJSON feature per object, or per connected part of a region, in full-resolution pixels of the source.

    A polygon runs along pixel edges, so its area is that of the pixels (corners of slanted edges are cut).
    """
    labels = instances if instances is not None else ndimage.label(mask, np.ones((3, 3)))[0]
    shapes = list(polygons(labels.astype(np.int32), origin_xy))
    kind = "detection" if instances is not None and len(shapes) >= MANY else "annotation"
    rgb = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return [
        {
            "type": "Feature",
            "geometry": json.loads(shapely.to_geojson(shapely.transform(shape, _rounded))),
            "properties": {
                "objectType": kind,
                "classification": {"name": name, "color": rgb},
                "name": f"{name} {number}",
                "mask_id": mask_id,
                "object": number,
            },
        }
        for number, shape in shapes
    ]


def polygons(labels: NDArray[np.int32], origin_xy: tuple[int, int]) -> Iterator[tuple[int, shapely.Geometry]]:
    """(label, polygon with holes) of every label, in ascending order."""
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if not place:  # SciPy gives None for a number that no pixel has
            continue
        crop = np.pad((labels[place] == number).astype(np.uint8), 1)
        offset = (origin_xy[0] + place[1].start - 1 + 0.5, origin_xy[1] + place[0].start - 1 + 0.5)
        yield number, _polygon(crop, offset)


def _rounded(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """A hundredth of a pixel is finer than any outline and keeps the files small."""
    return xy.round(2)


def _polygon(crop: NDArray[np.uint8], offset: tuple[float, float]) -> shapely.Geometry:
    """OpenCV traces pixel centres; half a pixel of buffer puts the line on the pixel edges, holes included."""
    contours, hierarchy = cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer: list[shapely.Geometry] = []
    holes: list[shapely.Geometry] = []
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0], strict=True):
        points = contour[:, 0, :].astype(float) + offset
        if parent < 0:
            outer.append(_solid(points))
        elif len(points) >= 3:
            holes.append(shapely.Polygon(points).buffer(-0.5, join_style="mitre"))
    return shapely.union_all(outer).difference(shapely.union_all(holes))


def _solid(points: NDArray[np.float64]) -> shapely.Geometry:
    if len(points) == 1:
        pixel: shapely.Geometry = shapely.box(*(points[0] - 0.5), *(points[0] + 0.5))
        return pixel
    line: shapely.Geometry = (
        shapely.Polygon(points).buffer(0) if len(points) >= 3 else shapely.LineString(points)
    )
    whole = shapely.union(line, shapely.LineString([*points, points[0]]))
    solid: shapely.Geometry = whole.buffer(0.5, join_style="mitre", cap_style="square")
    return solid
