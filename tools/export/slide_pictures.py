"""OME-Zarr and COCO of a slide: pyramids are copied as they are, run lengths are made object by object."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.errors import ImageTooLargeError
from tissuetalk.tools.export import coco as ordinary
from tissuetalk.tools.export import ome_zarr
from tissuetalk.tools.export.content import library
from tissuetalk.tools.export.slide_content import SlideContent, outlined
from tissuetalk.tools.masks.pyramid import missing
from tissuetalk.tools.masks.slide import SlideLayer

LONGEST_IMAGE_PX = 4096
"""Longest side of the picture of the slide that goes with its labels."""
MOST_PROPERTIES = 10_000
"""More objects than this are not listed in the labels' metadata: their numbers are in parquet and csv."""
MOST_ANNOTATIONS = 500_000
"""COCO is one JSON text that its readers hold in memory, several kilobytes an object once read."""
STRIP_PX = 512


def write_ome_zarr(content: SlideContent, out: Path) -> None:
    """A small picture of the slide, and ``labels/<mask_id>`` over it: the stored pyramids with names and colours."""
    zarr = library("zarr")
    region = content.slide.region
    root = zarr.open_group(str(out), mode="w")
    shrink = max(1.0, max(region.width, region.height) / LONGEST_IMAGE_PX)
    size = max(1, round(region.width / shrink)), max(1, round(region.height / shrink))
    ome_zarr.write_reduced_image(content.content, root, size)
    root.attrs["tissuetalk"] = {**content.content.about(), "image_reduced": shrink}
    labels = root.create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": [layer.record.mask_id for layer in content.layers]}
    for layer in content.layers:
        copied = out / "labels" / layer.record.mask_id
        try:
            shutil.copytree(layer.pyramid.path, copied)
        except FileNotFoundError as error:
            raise missing(layer.record.mask_id) from error
        group = zarr.open_group(str(copied), mode="r+")
        described = dict(group.attrs["ome"])
        described["image-label"] = {**described.get("image-label", {}), **_label_metadata(layer)}
        group.attrs["ome"] = described


def _label_metadata(layer: SlideLayer) -> dict[str, Any]:
    known: dict[str, Any] = {"source": {"image": "../../"}}
    rgb = [int(layer.record.colour[at : at + 2], 16) for at in (1, 3, 5)]
    if not layer.has_objects:
        known["colors"] = [{"label-value": 1, "rgba": [*rgb, 255]}]
        known["properties"] = [{"label-value": 1, "name": layer.name, "area_px": layer.record.area_px}]
    elif layer.count() <= MOST_PROPERTIES:
        known["properties"] = [
            {"label-value": number, "name": layer.name, "area_px": area}
            for number, area in layer.query("object_id, area_px")
        ]
    return known


def write_coco(content: SlideContent, out: Path) -> None:
    """Run lengths over the whole slide. Raises ImageTooLargeError from 2³² pixels or MOST_ANNOTATIONS objects on."""
    coder = library("pycocotools.mask")
    image = content.content.result.image
    ordinary.require_numbered(image.width, image.height)
    number = sum(layer.count() or 1 for layer in content.layers)
    if number > MOST_ANNOTATIONS:
        raise ImageTooLargeError(
            f"{number} objects are too many for COCO, whose readers hold all of them; export parquet or geojson."
        )
    names = list(dict.fromkeys(layer.name for layer in content.layers))
    with out.open("w", encoding="utf-8") as file:
        head = json.dumps(ordinary.document(content.content, names))
        file.write(f'{head[:-1]}, "annotations": [')
        annotation_id = 0
        for layer in content.layers:
            for annotation in _annotations(layer, image.height, image.width, coder):
                annotation_id += 1
                numbered = {
                    "id": annotation_id,
                    "image_id": 1,
                    "category_id": names.index(layer.name) + 1,
                    **annotation,
                }
                file.write(("\n" if annotation_id == 1 else ",\n") + json.dumps(numbered))
        file.write("\n]}")


def _annotations(layer: SlideLayer, height: int, width: int, coder: Any) -> Iterator[dict[str, Any]]:
    if not layer.has_objects:
        if layer.record.found:
            yield _region(layer, height, width, coder)
        return
    for numbers, shapes in outlined(layer):
        for number, shape in zip(numbers.tolist(), shapes, strict=True):
            x0, y0, pixels = _drawn(shape, height, width)
            if pixels.any():
                runs = ordinary.run_lengths(pixels, x0, y0, height, width)
                yield _annotation(layer, number, runs, height, width, coder, pixels, (x0, y0))


def _annotation(
    layer: SlideLayer,
    number: int,
    runs: list[int],
    height: int,
    width: int,
    coder: Any,
    pixels: NDArray[np.bool_],
    corner: tuple[int, int],
) -> dict[str, Any]:
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    box = [corner[0] + columns[0], corner[1] + rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
    return {
        "segmentation": _packed(runs, height, width, coder),
        "area": int(pixels.sum()),
        "bbox": [int(value) for value in box],
        "iscrowd": 0,
        "mask_id": layer.record.mask_id,
        "object": number,
    }


def _drawn(shape: shapely.Geometry, height: int, width: int) -> tuple[int, int, NDArray[np.bool_]]:
    """(x0, y0, pixels whose middle lies in the outline)."""
    left, top, right, bottom = shapely.bounds(shape).tolist()
    x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    x1, y1 = min(width, int(np.ceil(right))), min(height, int(np.ceil(bottom)))
    y, x = np.mgrid[y0:y1, x0:x1] + 0.5
    shapely.prepare(shape)
    return x0, y0, shapely.contains_xy(shape, x, y)


def _region(layer: SlideLayer, height: int, width: int, coder: Any) -> dict[str, Any]:
    """One run-length mask of a region, made from strips of columns."""
    edges: list[NDArray[np.int64]] = []
    area, last, box = 0, False, [width, height, 0, 0]
    for left in range(0, width, STRIP_PX):
        wide = min(STRIP_PX, width - left)
        strip = layer.pyramid.resampled((left, 0), (1.0, 1.0), (wide, height)) > 0
        column_wise = np.concatenate([[last], strip.T.ravel()])
        edges.append(np.flatnonzero(column_wise[1:] != column_wise[:-1]) + left * height)
        last = bool(column_wise[-1])
        rows, columns = np.flatnonzero(strip.any(axis=1)), np.flatnonzero(strip.any(axis=0))
        if rows.size:
            area += int(strip.sum())
            box = [
                min(box[0], left + int(columns[0])),
                min(box[1], int(rows[0])),
                max(box[2], left + int(columns[-1]) + 1),
                max(box[3], int(rows[-1]) + 1),
            ]
    runs = np.diff(np.concatenate([[0], *edges, [height * width]])).tolist()
    return {
        "segmentation": _packed(runs, height, width, coder),
        "area": area,
        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
        "iscrowd": 0,
        "mask_id": layer.record.mask_id,
        "object": 1,
    }


def _packed(runs: list[int], height: int, width: int, coder: Any) -> dict[str, Any]:
    packed = coder.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}
