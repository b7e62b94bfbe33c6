"""COCO: one image, one category per name, one run-length mask per object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.errors import ImageTooLargeError
from tissuetalk.tools.export.content import Content, Layer, library


def write(content: Content, out: Path) -> None:
    """Masks cover the whole image, as COCO wants them. Raises ImageTooLargeError from 2³² pixels on."""
    coder = library("pycocotools.mask")
    image = content.result.image
    require_numbered(image.width, image.height)
    names = list(dict.fromkeys(layer.name for layer in content.layers))
    numbers = count(1)
    annotations = [
        {"id": next(numbers), "image_id": 1, "category_id": names.index(layer.name) + 1, **annotation}
        for layer in content.layers
        for annotation in _annotations(layer, image.height, image.width, coder)
    ]
    out.write_text(json.dumps({**document(content, names), "annotations": annotations}), "utf-8")


def require_numbered(width: int, height: int) -> None:
    """Raise ImageTooLargeError for an image whose pixels 32 bits cannot number."""
    if width * height >= 2**32:
        raise ImageTooLargeError(
            f"run lengths cannot number {width} x {height} pixels; export parquet or ome-zarr."
        )


def document(content: Content, names: list[str]) -> dict[str, Any]:
    """Everything but the annotations."""
    image = content.result.image
    return {
        "info": {"description": "Masks from words", **content.about()},
        "licenses": [],
        "images": [{"id": 1, "width": image.width, "height": image.height, "file_name": content.image_name}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }


def _annotations(layer: Layer, height: int, width: int, coder: Any) -> Iterator[dict[str, Any]]:
    labels, region = layer.labels, layer.content.region
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if not place:  # SciPy gives None for a number that no pixel has
            continue
        rows, columns = place
        pixels = labels[place] == number
        x0, y0 = region.x0 + columns.start, region.y0 + rows.start
        runs = {"size": [height, width], "counts": run_lengths(pixels, x0, y0, height, width)}
        packed = coder.frPyObjects(runs, height, width)
        yield {
            "segmentation": {"size": [height, width], "counts": packed["counts"].decode("ascii")},
            "area": int(pixels.sum()),
            "bbox": [x0, y0, columns.stop - columns.start, rows.stop - rows.start],
            "iscrowd": 0,
            "mask_id": layer.record.mask_id,
            "object": number,
        }


def run_lengths(pixels: NDArray[np.bool_], x0: int, y0: int, height: int, width: int) -> list[int]:
    """Lengths of alternating background and object runs of a crop at (x0, y0), column by column over the image."""
    steps = np.diff(np.pad(pixels.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    column, start = np.nonzero(steps == 1)
    _, stop = np.nonzero(steps == -1)
    begins = (x0 + column) * height + y0 + start
    ends = (x0 + column) * height + y0 + stop
    goes_on = begins[1:] == ends[:-1]  # a column that is full to its foot runs into the next one
    begins, ends = begins[np.r_[True, ~goes_on]], ends[np.r_[~goes_on, True]]
    edges = np.column_stack([begins, ends]).ravel()
    return [int(length) for length in np.diff(np.r_[0, edges, height * width])]
