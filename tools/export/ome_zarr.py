"""OME-Zarr (NGFF 0.5): a label pyramid per mask, over the pyramid of the segmented region."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from tissuetalk.models.writing import library
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.rasters import create_pyramid
from tissuetalk.tools.masks.stored import SegmentedRegion

LONGEST_IMAGE_PX = 8192
"""A region with longer sides goes with a smaller picture of itself; labels are always whole."""
MOST_PROPERTIES = 10_000
"""More objects than this are not listed in the labels' metadata: their numbers are in parquet and csv."""
BLOCK_PX = 2048


def write(masks: SegmentedRegion, out: Path) -> None:
    """A folder that napari and other NGFF readers open: the region, and ``labels/<mask_id>`` over it.

    Pixel values of labels are object numbers. Scales are in micrometres, or in pixels where the scale is unknown;
    the region's corner is each level's translation.
    """
    root = library("zarr").open_group(str(out), mode="w")
    shrink = max(1.0, max(masks.region.width, masks.region.height) / LONGEST_IMAGE_PX)
    _write_image(masks, root, shrink)
    root.attrs["tissuetalk"] = {**masks.about(), "image_reduced": shrink}
    labels = root.create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": [layer.record.mask_id for layer in masks.layers]}
    for layer in masks.layers:
        path = out / "labels" / layer.record.mask_id
        layer.save_labels(path)
        group = library("zarr").open_group(str(path), mode="r+")
        described = dict(group.attrs["ome"])
        described["image-label"] = {"version": "0.5", **_label_metadata(layer)}
        group.attrs["ome"] = described


def _write_image(masks: SegmentedRegion, root: Any, shrink: float) -> None:
    """The region's pixels, [3, H, W] a level, read block by block."""
    region, corner = masks.region, (masks.region.x0, masks.region.y0)
    size = math.ceil(region.width / shrink - 1e-9), math.ceil(region.height / shrink - 1e-9)
    levels = create_pyramid(
        root, size, corner_xy=corner, step=shrink, mpp=masks.mpp, dtype="uint8", channels=3
    )
    with masks.open_image() as source:
        for number, level in enumerate(levels):
            step = shrink * 2**number
            _, height, width = level.shape
            for top in range(0, height, BLOCK_PX):
                for left in range(0, width, BLOCK_PX):
                    # each level is read from the image itself: repeated halving would blur it
                    block = source.read_grid(
                        (region.x0 + left * step, step),
                        (region.y0 + top * step, step),
                        width=min(BLOCK_PX, width - left),
                        height=min(BLOCK_PX, height - top),
                    )
                    at = (slice(None), slice(top, top + BLOCK_PX), slice(left, left + BLOCK_PX))
                    level[at] = np.moveaxis(block, -1, 0)


def _label_metadata(layer: MaskLayer) -> dict[str, Any]:
    known: dict[str, Any] = {"source": {"image": "../../"}}
    if not layer.has_objects:
        known["colors"] = [{"label-value": 1, "rgba": [*drawing.rgb(layer.record.colour), 255]}]
        known["properties"] = [{"label-value": 1, "name": layer.name, "area_px": layer.record.area_px}]
    elif layer.count() <= MOST_PROPERTIES:
        known["properties"] = [
            {"label-value": number, "name": layer.name, "area_px": area}
            for batch in layer.rows(["id", "area_px"])
            for number, area in zip(batch["id"].tolist(), batch["area_px"].tolist(), strict=True)
        ]
    return known
