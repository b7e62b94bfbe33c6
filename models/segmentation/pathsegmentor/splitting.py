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

    smallest_px: area below which objects are dropped. hole_px: area below which holes are filled. smooth_px, apart_px:
    smoothing before centres are taken and smallest distance between two. deep_px: depth below the outline at which a
    pixel counts as core. core: if set, an object's centre is a whole connected core, deeper than this, and not a peak: for
    long and branching objects.
    """

    smallest_px: int
    hole_px: int
    smooth_px: float = 3.0
    apart_px: int = 8
    deep_px: float = 20.0
    core: float | None = None


RULES: Mapping[str, Rule] = {
    "nuclei": Rule(60, 60),
    "tumour nuclei": Rule(100, 80),
    "non-tumour nuclei": Rule(80, 60),
    "mitosis": Rule(100, 80),
    "gland": Rule(150, 400, 6.0, core=0.45),
    "glomerulus": Rule(300, 2000, 6.0, core=0.3),
    "tumour": Rule(200, 100),
}
"""Chosen on training images of DSB, PUMA and EBHI."""


def tidy(mask: NDArray[np.bool_], target: str) -> NDArray[np.bool_]:
    """[H, W] without specks and pinholes."""
    rule = RULES[target]
    kept = _without_small(mask, rule.smallest_px)
    return ~_without_small(~kept, rule.hole_px)


def _without_small(mask: NDArray[np.bool_], smallest_px: int) -> NDArray[np.bool_]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest_px
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)


def split_objects(
    mask: NDArray[np.bool_], depth_logits: NDArray[np.float32], target: str
) -> NDArray[np.int32]:
    """[H, W] object numbers 1..N, 0 background: the mask flooded from the centres of its objects.

    Depth is the mean of the predicted relative depth and the mask's own. The flooding runs at half
    size, which is the network's own; the outline stays the mask's.
    """
    rule = RULES[target]
    height, width = mask.shape
    size = ((width + 1) // 2, (height + 1) // 2)
    # Nearest, not area: a thin bridge between two objects must not thicken.
    small = np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.uint8)
    predicted = 1 / (1 + np.exp(-cv2.resize(depth_logits, size, interpolation=cv2.INTER_AREA)))
    own = np.minimum(cv2.distanceTransform(small, cv2.DIST_L2, 3) / (rule.deep_px / 2), 1)
    depth = cv2.GaussianBlur(((predicted + own) / 2).astype(np.float32), (0, 0), rule.smooth_px / 2)
    centres = _centres(depth, small, rule)
    # No compactness: long glands would be cut into round pieces.
    flooded = watershed(-depth, centres, mask=small > 0)
    full = cv2.resize(flooded.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST).astype(
        np.int32
    )
    full = _claim_rim(np.where(mask, full, 0).astype(np.int32), mask)
    return _numbered(full, rule.smallest_px)


def _centres(depth: NDArray[np.float32], small: NDArray[np.uint8], rule: Rule) -> NDArray[np.int32]:
    """[h, w] numbered seeds; every connected part of the mask has at least one."""
    if rule.core is None:
        reach = 2 * (rule.apart_px // 2) + 1
        highest = cv2.dilate(depth, np.ones((reach, reach), np.uint8))
        seeds = (depth >= highest) & (small > 0)
    else:
        seeds = (depth > rule.core) & (small > 0)
    _, parts = cv2.connectedComponents(small, connectivity=4)
    count, centres = cv2.connectedComponents(seeds.astype(np.uint8), connectivity=8)
    seeded = np.bincount(parts.ravel(), weights=seeds.ravel()) > 0
    return np.asarray(np.where((small > 0) & ~seeded[parts], parts + count, centres), np.int32)


def _claim_rim(labels: NDArray[np.int32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Give mask pixels that halving lost to the object beside them."""
    grown = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8), iterations=2).astype(np.int32)
    return np.asarray(np.where(mask & (labels == 0), grown, labels), np.int32)


def _numbered(labels: NDArray[np.int32], smallest_px: int) -> NDArray[np.int32]:
    """Numbers 1..N in reading order of their first pixel, small objects dropped."""
    flat = labels.ravel()
    at = np.flatnonzero(flat)[::-1]  # backwards, so that the first pixel is written last and stays
    marked = flat[at]
    areas = np.bincount(marked, minlength=1)
    first = np.zeros(len(areas), np.int64)
    first[marked] = at
    kept = np.flatnonzero(areas >= max(smallest_px, 1))
    order = kept[np.argsort(first[kept])]
    numbers = np.zeros(len(areas), np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return np.asarray(numbers[flat].reshape(labels.shape), np.int32)
