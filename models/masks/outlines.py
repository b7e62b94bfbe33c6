"""Masks as polygons other software opens: GeoJSON as QuPath reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.masks.tracing import trace

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

    A polygon runs along pixel edges: drawn again, it gives the same pixels.
    """
    labels = instances if instances is not None else ndimage.label(mask, np.ones((3, 3)))[0]
    shapes = list(polygons(labels.astype(np.int32), origin_xy))
    kind = "detection" if instances is not None and len(shapes) >= MANY else "annotation"
    rgb = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return [
        {
            "type": "Feature",
            "geometry": json.loads(shapely.to_geojson(shape)),
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
    """(label, polygon with holes) of every label, in ascending order.

    Outlines run along pixel edges, so an area is a pixel count and no two objects overlap. Pixels that meet only at
    a corner are separate parts of one MultiPolygon.
    """
    return trace(labels, origin_xy)
