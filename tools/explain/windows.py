"""Which part of a picture is worth a closer look, as boxes in full-resolution pixels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.masks.layer import MaskLayer, layers_of
from tissuetalk.tools.storage.result_folder import ResultFolder

Weight = NDArray[np.float32]
MOST_SEEN_PX = 4096 * 4096
"""A mask is looked over in at most so many pixels; of a slide that is a coarser level of its labels."""


def layer_of(folder: ResultFolder, mask: Mask) -> MaskLayer:
    """The mask of a picture or a slide."""
    (layer,) = layers_of(folder, [mask])
    return layer


def looked_over(layer: MaskLayer) -> NDArray[np.bool_]:
    """[h, w] where the mask is, over its whole region at whatever scale is small enough."""
    return layer.labels.overview(MOST_SEEN_PX).values


def busiest(weight: Weight, region: Box, width: int, height: int) -> Box:
    """The ``width`` x ``height`` box (full-resolution pixels) of the region with the largest sum of ``weight``.

    weight: [h, w] at any scale covering the region. A region that is smaller is returned whole on that side.
    """
    width, height = min(width, region.width), min(height, region.height)
    across, down = weight.shape[1] / region.width, weight.shape[0] / region.height
    kernel = (max(1, round(width * across)), max(1, round(height * down)))
    # outside the region nothing counts: any other border would mirror weight into the sum
    sums = cv2.boxFilter(
        weight.astype(np.float32), -1, kernel, normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    x = int(np.clip((column + 0.5) / across - width / 2, 0, region.width - width))
    y = int(np.clip((row + 0.5) / down - height / 2, 0, region.height - height))
    return Box(region.x0 + x, region.y0 + y, region.x0 + x + width, region.y0 + y + height)


def edges(mask: NDArray[np.bool_]) -> Weight:
    """[H, W] 1 on the inner outline of a mask."""
    small = mask.astype(np.uint8)
    return np.asarray(small - cv2.erode(small, np.ones((3, 3), np.uint8)), np.float32)


def hot_spots(weight: Weight, region: Box, side_px: int, most: int, least: float) -> list[tuple[Box, float]]:
    """Up to ``most`` boxes that hardly overlap, with the mean of ``weight`` in each, highest first.

    least: mean weight from which a box counts.
    """
    left = weight.copy()
    found: list[tuple[Box, float]] = []
    for _ in range(most):
        box = busiest(left, region, side_px, side_px)
        place = inside(box, region, weight.shape)
        share = float(left[place].mean())
        if share < least:
            break
        found.append((box, share))
        # what was found does not count again
        left[place] = 0
    return found


def inside(box: Box, region: Box, shape: Sequence[int]) -> tuple[slice, slice]:
    """The rows and columns of an [H, W] array covering ``region`` that lie in ``box``."""
    across, down = shape[1] / region.width, shape[0] / region.height
    top, left = int((box.y0 - region.y0) * down), int((box.x0 - region.x0) * across)
    bottom, right = round((box.y1 - region.y0) * down), round((box.x1 - region.x0) * across)
    return slice(max(top, 0), max(bottom, top + 1)), slice(max(left, 0), max(right, left + 1))
