"""Where one more example would help most: the place whose pixels hang most in the balance."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.tools.segment.grid import Grid

UNSURE_PX, LEAST_UNSURE = 48, 0.2
"""Side of the place where one more example would help, in working pixels, and how much it must hang in the balance."""
Unsure = tuple[float, int, int]
"""How much, 0..1, and the middle working pixel x, y."""


def least_sure(logits: NDArray[np.float32], covered: NDArray[np.bool_], core: Box) -> Unsure | None:
    """Mean of 4 p (1 - p) around the working pixel where that is highest."""
    if not covered.any():
        return None
    share = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    balance = cv2.blur(
        np.where(covered, 4 * share * (1 - share), 0).astype(np.float32),
        (UNSURE_PX, UNSURE_PX),
        borderType=cv2.BORDER_CONSTANT,
    )
    row, column = np.unravel_index(int(balance.argmax()), balance.shape)
    return round(float(balance[row, column]), 6), core.x0 + int(column), core.y0 + int(row)


def unsure_box(unsure: Unsure | None, grid: Grid) -> Box | None:
    """Where one more example would help most, in full-resolution pixels; None where all is clear."""
    if unsure is None or unsure[0] < LEAST_UNSURE:
        return None
    _, x, y = unsure
    half = UNSURE_PX // 2
    seen = Box(x - half, y - half, x + half, y + half).intersection(grid.box)
    return None if seen is None else grid.full(seen).intersection(grid.region)
