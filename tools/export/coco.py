"""COCO: one image, one category per name, one run-length mask per object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.errors import ImageTooLargeError
from tissuetalk.models.images import Box
from tissuetalk.models.writing import library
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.stored import SegmentedRegion

MOST_ANNOTATIONS = 500_000
"""COCO is one JSON text that its readers hold in memory, several kilobytes an object once read."""
STRIP_PX = 512


def write(masks: SegmentedRegion, out: Path) -> None:
    """Masks cover the whole image, as COCO wants them.

    Raises ImageTooLargeError from 2³² pixels on, which 32 bits cannot number, and from MOST_ANNOTATIONS objects on.
    """
    coder, image = library("pycocotools.mask"), masks.result.image
    if image.width * image.height >= 2**32:
        raise ImageTooLargeError(
            f"run lengths cannot number {image.width} x {image.height} pixels; export parquet or ome-zarr."
        )
    number = sum(layer.count() or 1 for layer in masks.layers)
    if number > MOST_ANNOTATIONS:
        raise ImageTooLargeError(
            f"{number} objects are too many for COCO, whose readers hold all of them; export parquet or geojson."
        )
    names, size = list(dict.fromkeys(layer.name for layer in masks.layers)), [image.height, image.width]
    head = {
        "info": {"description": "Masks from words", **masks.about()},
        "licenses": [],
        "images": [{"id": 1, "width": image.width, "height": image.height, "file_name": masks.image_name}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }
    with out.open("w", encoding="utf-8") as file:
        file.write(f'{json.dumps(head)[:-1]}, "annotations": [')
        annotation_id = 0
        for layer in masks.layers:
            category = {"image_id": 1, "category_id": names.index(layer.name) + 1}
            for number, runs, box in _objects(layer, image.height, image.width):
                annotation_id += 1
                packed = coder.frPyObjects({"size": size, "counts": runs}, *size)["counts"].decode("ascii")
                annotation = {
                    "id": annotation_id,
                    **category,
                    "segmentation": {"size": size, "counts": packed},
                    "area": sum(runs[1::2]),
                    "bbox": [box.x0, box.y0, box.width, box.height],
                    "iscrowd": 0,
                    "mask_id": layer.record.mask_id,
                    "object": number,
                }
                file.write("\n" if annotation_id == 1 else ",\n")
                file.write(json.dumps(annotation))
        file.write("\n]}")


def _objects(layer: MaskLayer, height: int, width: int) -> Iterator[tuple[int, list[int], Box]]:
    """Number, run lengths and bounding box of each object; of a region all of it as number 1."""
    if layer.has_objects:
        for numbers, shapes in layer.outlines():
            for number, shape in zip(numbers.tolist(), shapes, strict=True):
                x0, y0, pixels = _drawn(shape, height, width)
                box = Box.around(pixels, x0, y0)
                if box is not None:
                    yield number, run_lengths(pixels, x0, y0, height, width), box
    elif layer.record.found:
        runs, box = _region_runs(layer, height, width)
        if box is not None:
            yield 1, runs, box


def _drawn(shape: shapely.Geometry, height: int, width: int) -> tuple[int, int, NDArray[np.bool_]]:
    """(x0, y0, pixels whose middle lies in the outline)."""
    left, top, right, bottom = shapely.bounds(shape).tolist()
    x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    x1, y1 = min(width, int(np.ceil(right))), min(height, int(np.ceil(bottom)))
    y, x = np.mgrid[y0:y1, x0:x1] + 0.5
    shapely.prepare(shape)
    return x0, y0, shapely.contains_xy(shape, x, y)


def run_lengths(pixels: NDArray[np.bool_], x0: int, y0: int, height: int, width: int) -> list[int]:
    """Lengths of alternating background and object runs of a crop at (x0, y0), column by column over the image."""
    # COCO counts along columns, and every list begins with a run of background, if need be of length 0
    steps = np.diff(np.pad(pixels.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    column, start = np.nonzero(steps == 1)
    _, stop = np.nonzero(steps == -1)
    begins = (x0 + column) * height + y0 + start
    ends = (x0 + column) * height + y0 + stop
    goes_on = begins[1:] == ends[:-1]  # a column that is full to its foot runs into the next one
    begins, ends = begins[np.r_[True, ~goes_on]], ends[np.r_[~goes_on, True]]
    edges = np.column_stack([begins, ends]).ravel()
    return [int(length) for length in np.diff(np.r_[0, edges, height * width])]


def _region_runs(layer: MaskLayer, height: int, width: int) -> tuple[list[int], Box | None]:
    """Run lengths of a region, made from strips of columns, and its bounding box."""
    edges: list[NDArray[np.int64]] = []
    last, box = False, None
    for left in range(0, width, STRIP_PX):
        wide = min(STRIP_PX, width - left)
        strip = layer.labels.sample(Box(left, 0, left + wide, height), wide, height) > 0
        # the last pixel of the strip before is put in front, so that a run can go on across the seam
        column_wise = np.concatenate([[last], strip.T.ravel()])
        edges.append(np.flatnonzero(column_wise[1:] != column_wise[:-1]) + left * height)
        last = bool(column_wise[-1])
        here = Box.around(strip, left)
        if here is not None:
            old = box or here
            box = Box(old.x0, min(old.y0, here.y0), here.x1, max(old.y1, here.y1))
    return np.diff(np.concatenate([[0], *edges, [height * width]])).tolist(), box
