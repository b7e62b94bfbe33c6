"""A result as data to learn from: the picture, a mask for each target that was found, and the words, in a manifest.

``tissuetalk evaluate`` and ``train`` read it as it is. Rows of several exports may be put together in one file.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.writing import CsvWriter
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.stored import SegmentedRegion

MOST_PX = 64_000_000
COLUMNS = ("file", "mask", "mask_kind", "mask_class", "group", "organ", "stain", "mpp_um", "note")


def write(masks: SegmentedRegion, out: Path) -> None:
    """``image.png``, ``masks/NAME.png``, ``manifest.csv``. Raises InvalidArgumentError for what is too large or empty."""
    region = masks.region
    if region.width * region.height > MOST_PX:
        raise InvalidArgumentError(
            f"a region of {region.width} x {region.height} px is too large to learn from as one picture; segment a region "
            f"of at most {MOST_PX // 1_000_000} million pixels and save that."
        )
    found = [layer for layer in masks.layers if layer.record.found]
    if not found:
        raise InvalidArgumentError(
            "nothing was found, so there is nothing to learn from; correct the result first."
        )
    (out / "masks").mkdir(parents=True, exist_ok=True)
    with masks.open_image() as source:
        pixels = source.read_region(region, width=region.width, height=region.height)
    cv2.imwrite(str(out / "image.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    with (out / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = CsvWriter(file, COLUMNS, line_end="\r\n")
        writer.header()
        for layer in found:
            writer.row(_row(layer, masks, _write_mask(layer, out)))


def _write_mask(layer: MaskLayer, out: Path) -> str:
    """16 bits with a number per object, 8 bits with 0 and 255 for a region; the path below ``out``."""
    labels, name = layer.in_full(), f"masks/{layer.record.mask_id}.png"
    numbered = layer.has_objects and int(labels.max(initial=0)) <= np.iinfo(np.uint16).max
    picture = labels.astype(np.uint16) if numbered else (labels > 0).astype(np.uint8) * 255
    cv2.imwrite(str(out / name), picture)
    return name


def _row(layer: MaskLayer, masks: SegmentedRegion, mask: str) -> dict[str, object]:
    record = layer.record
    made = "segmented by a model, not checked"
    if record.taught is not None:
        how = "corrected" if masks.result.parent is not None else "taught"
        made = f"{how} by {record.taught.positive + record.taught.negative} examples"
    return {
        "file": "image.png",
        "mask": mask,
        "mask_kind": "instance" if layer.has_objects else "binary",
        "mask_class": record.label or record.name,
        "group": masks.result.image.image_id,
        "organ": (record.label or "").split("-")[0],
        "stain": "",
        "mpp_um": "unknown" if masks.mpp is None else f"{masks.mpp:g}",
        "note": f"words: {record.evidence}; {made}; {record.provenance.model}",
    }
