"""From a mask and a core-distance map to separate objects. Works on the stitched maps, so tiles leave no trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed


@dataclass(frozen=True)
class Rule:
    """How one target's objects look, in pixels at its own scale.

    smallest_px: smaller objects are dropped. hole_px: smaller holes are filled. core: an object's core is where the
    predicted relative depth passes this. smooth_px: sigma of smoothing before cores are taken.
    """

    smallest_px: int
    hole_px: int
    core: float = 0.5
    smooth_px: float = 1.0


RULES: Mapping[str, Rule] = {
    "nuclei": Rule(60, 60, 0.5, 1.0),
    "tumour nuclei": Rule(100, 80, 0.5, 1.0),
    "non-tumour nuclei": Rule(80, 60, 0.5, 1.0),
    "mitosis": Rule(100, 80, 0.5, 1.0),
    "gland": Rule(150, 400, 0.4, 2.0),
    "glomerulus": Rule(600, 2000, 0.4, 3.0),
    "tumour": Rule(200, 100),
}


def tidy(mask: NDArray[np.bool_], target: str) -> NDArray[np.bool_]:
    """Drop specks and fill pinholes."""
    rule = RULES[target]
    kept = _without_small(mask, rule.smallest_px)
    return ~_without_small(~kept, rule.hole_px)


def _without_small(mask: NDArray[np.bool_], smallest_px: int) -> NDArray[np.bool_]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest_px
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)


def split_objects(mask: NDArray[np.bool_], depth_logits: NDArray[np.float32], target: str) -> NDArray[np.int32]:
    """[H, W] object numbers 1..N, 0 background: the mask flooded from the cores, parts without a core kept whole.

    The flooding runs at half size, which is the network's own; the outline stays the mask's.
    """
    rule = RULES[target]
    height, width = mask.shape
    size = ((width + 1) // 2, (height + 1) // 2)
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    depth = cv2.resize(depth_logits, size, interpolation=cv2.INTER_AREA)
    depth = cv2.GaussianBlur(np.asarray(1 / (1 + np.exp(-depth)), np.float32), (0, 0), rule.smooth_px)
    cores = ((depth > rule.core) & small).astype(np.uint8)
    count, markers = cv2.connectedComponents(cores, connectivity=4)
    parts_count, parts = cv2.connectedComponents(small.astype(np.uint8), connectivity=4)
    has_core = np.zeros(parts_count, np.bool_)
    has_core[parts[cores > 0]] = True
    bare = small & ~has_core[parts]
    markers = np.where(bare, parts + count, markers).astype(np.int32)
    flooded = watershed(-depth, markers, mask=small) if count > 1 else markers
    full = cv2.resize(flooded.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    full = _claim_rim(np.where(mask, full, 0).astype(np.int32), mask)
    return _numbered(full, rule.smallest_px)


def _claim_rim(labels: NDArray[np.int32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Give mask pixels that halving lost to the object beside them."""
    grown = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8), iterations=2).astype(np.int32)
    return np.asarray(np.where(mask & (labels == 0), grown, labels), np.int32)


def _numbered(labels: NDArray[np.int32], smallest_px: int) -> NDArray[np.int32]:
    """Numbers 1..N in reading order of their first pixel, small objects dropped."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    flat = labels.ravel()
    seen, first = np.unique(flat, return_index=True)
    order = [int(label) for _, label in sorted(zip(first, seen, strict=True)) if areas[label] >= smallest_px]
    numbers = np.zeros(len(areas), np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return np.asarray(numbers[flat].reshape(labels.shape), np.int32)
