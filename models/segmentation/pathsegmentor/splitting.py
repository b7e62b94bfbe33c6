"""Objects of the shipped default's masks: which specks and holes do not count, and how a mask is parted into objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from tissuetalk.models.masks.characteristics import without_specks


@dataclass(frozen=True)
class Rule:
    """How one target's objects look, in pixels at its own scale.

    smallest_px: area below which objects are dropped. hole_px: area below which holes are filled. smooth_px: smoothing
    before centres are taken. predicted: share of the network's depth in the depth, beside the mask's own. deep_px: below
    the outline, where the mask's own depth is full. dip: of two centres close by the deeper one stays alone unless the way
    between them is shallower than both by this. core: if set, an object's centre is a whole connected core, deeper than
    this, and not a peak: for long and branching objects.
    """

    smallest_px: int
    hole_px: int
    smooth_px: float = 2.0
    predicted: float = 0.8
    deep_px: float = 30.0
    dip: float = 0.06
    core: float | None = None


RULES: Mapping[str, Rule] = {
    "nuclei": Rule(60, 60),
    "tumour nuclei": Rule(100, 80),
    "non-tumour nuclei": Rule(80, 60),
    "mitosis": Rule(100, 80),
    "gland": Rule(150, 400, 6.0, predicted=0.5, deep_px=20.0, core=0.45),
    "glomerulus": Rule(300, 2000, 6.0, predicted=0.5, deep_px=20.0, core=0.3),
    "tumour": Rule(200, 100),
    "lymphocytes": Rule(60, 60),
    "adipose tissue": Rule(400, 400),
    "stroma": Rule(200, 100),
}
"""Chosen on training images of DSB, PUMA and EBHI; how nuclei are parted is better on all sets, held out and trained on."""
DIP_REACH_PX = 32
"""How far apart two centres may be of which one is given up: no step here looks further, so every window decides the same."""


AROUND_PX = 64
"""Further than any step here looks beyond the mask; a border of so many pixels is larger than any hole that is filled."""
BESIDE = ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Steps to the neighbours of a pixel, edges before corners."""


def around(marked: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of [H, W] in which objects are decided as in all of it: what is marked, and ``AROUND_PX`` beyond.

    From even places, so that halving pairs the same pixels. Small pictures are looked at whole: all around a mark may be a hole.
    """
    height, width = marked.shape
    if height % 2 or width % 2 or min(height, width) < 4 * AROUND_PX:
        return slice(None), slice(None)
    x, y, across, down = cv2.boundingRect(marked.view(np.uint8))
    (left, right), (top, bottom) = (
        (max(0, start - AROUND_PX) // 2 * 2, min(side, (start + length + AROUND_PX + 1) // 2 * 2))
        for start, length, side in ((x, across, width), (y, down, height))
    )
    return slice(top, bottom), slice(left, right)


def tidy(mask: NDArray[np.bool_], target: str) -> NDArray[np.bool_]:
    """[H, W] without specks and pinholes."""
    return without_specks(mask, RULES[target].smallest_px, RULES[target].hole_px)


def split_objects(
    mask: NDArray[np.bool_], depth_logits: NDArray[np.float32], target: str
) -> NDArray[np.int32]:
    """[H, W] object numbers 1..N, 0 background: the mask flooded from the centres of its objects.

    Depth is a mean of the predicted relative depth and the mask's own. The flooding runs at half
    size, which is the network's own; the outline stays the mask's.
    """
    rule = RULES[target]
    height, width = mask.shape
    size = ((width + 1) // 2, (height + 1) // 2)
    # Nearest, not area: a thin bridge between two objects must not thicken.
    small = np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.uint8)
    predicted = 1 / (1 + np.exp(-cv2.resize(depth_logits, size, interpolation=cv2.INTER_AREA)))
    own = np.minimum(cv2.distanceTransform(small, cv2.DIST_L2, 3) / (rule.deep_px / 2), 1)
    mean = rule.predicted * predicted + (1 - rule.predicted) * own
    depth = cv2.GaussianBlur(mean.astype(np.float32), (0, 0), rule.smooth_px / 2)
    centres = _centres(depth, small, rule)
    # No compactness: long glands would be cut into round pieces.
    flooded = watershed(-depth, centres, mask=small > 0)
    full = cv2.resize(flooded.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    labels = np.zeros((height + 2, width + 2), np.int32)
    np.multiply(full, mask, out=labels[1:-1, 1:-1], casting="unsafe")
    _give_to_neighbours(labels, mask)
    return _numbered(labels[1:-1, 1:-1], rule.smallest_px)


def _give_to_neighbours(labels: NDArray[np.int32], mask: NDArray[np.bool_]) -> None:
    """Mask pixels that halving lost go to an object beside them: the same one whatever its number, which is a window's own.

    labels: [H + 2, W + 2], with a border of nothing around ``mask``. Twice, for those beside one that was lost itself.
    """
    width = labels.shape[1]
    y, x = np.divmod(np.flatnonzero(mask & (labels[1:-1, 1:-1] == 0)), width - 2)
    flat, at = labels.ravel(), (y + 1) * width + x + 1
    for _ in range(2):
        found = np.zeros(len(at), np.int32)
        for down, right in BESIDE:
            found = np.where(found == 0, flat[at + down * width + right], found)
        flat[at] = found
        at = at[found == 0]


def _centres(depth: NDArray[np.float32], small: NDArray[np.uint8], rule: Rule) -> NDArray[np.int32]:
    """[h, w] numbered seeds; every connected part of the mask has at least one."""
    if rule.core is None:
        seeds = _peaks(np.where(small > 0, depth, np.float32(-1)), rule.dip) & (small > 0)
    else:
        seeds = (depth > rule.core) & (small > 0)
    most, parts = cv2.connectedComponents(small, connectivity=4)
    count, centres = cv2.connectedComponents(seeds.astype(np.uint8), connectivity=8)
    alone = np.ones(most, bool)
    alone[parts[seeds]] = alone[0] = False
    at = alone[parts]
    centres[at] = parts[at] + count
    return np.asarray(centres, np.int32)


def _peaks(depth: NDArray[np.float32], dip: float) -> NDArray[np.bool_]:
    """[h, w] where no way of DIP_REACH_PX leads to anything deeper without passing what is shallower by ``dip``."""
    flooded, beside = depth - np.float32(dip), np.empty_like(depth)
    for _ in range(DIP_REACH_PX // 2):
        cv2.dilate(flooded, np.ones((3, 3), np.uint8), dst=beside)
        np.minimum(beside, depth, out=flooded)
    return np.asarray(depth - flooded >= 0.999 * dip, np.bool_)


def _numbered(labels: NDArray[np.int32], smallest_px: int) -> NDArray[np.int32]:
    """Numbers 1..N in reading order of their first pixel, small objects dropped."""
    flat = labels.ravel()
    at = np.flatnonzero(flat > 0)[::-1]  # backwards, so that the first pixel is written last and stays
    marked = flat[at]
    areas = np.bincount(marked, minlength=1)
    first = np.zeros(len(areas), np.int64)
    first[marked] = at
    kept = np.flatnonzero(areas >= max(smallest_px, 1))
    order = kept[np.argsort(first[kept])]
    numbers = np.zeros(len(areas), np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return np.asarray(numbers[flat].reshape(labels.shape), np.int32)
