"""Area-average and bilinear resampling whose result does not depend on how the work was cut into tiles."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmenter import RGB


def source_span(start: float, step: float, count: int, length: int) -> tuple[int, int]:
    """First and one-past-last source pixel that ``count`` output pixels of size ``step`` need, of ``length``."""
    margin = 0.5 if step < 1 else 0.0
    first = int(np.floor(start - margin + 1e-6))
    last = int(np.ceil(start + step * count + margin - 1e-6))
    first = min(max(first, 0), length - 1)
    return first, min(max(last, first + 1), length)


def resample(pixels: RGB, *, x: tuple[float, float], y: tuple[float, float], width: int, height: int) -> RGB:
    """Resample [h, w, 3] to [height, width, 3].

    x, y: (start, step) in pixels of ``pixels``: output pixel i covers ``start + i * step`` to
    ``start + (i + 1) * step``. A step of at least 1 averages exactly what is covered, a smaller one is
    bilinear between pixel centres. Pixels are repeated past the edge.
    """
    if x == (0.0, 1.0) and y == (0.0, 1.0) and pixels.shape[:2] == (height, width):
        return pixels
    rows = _weights(y[0], y[1], height, pixels.shape[0])
    columns = _weights(x[0], x[1], width, pixels.shape[1])
    tall = rows @ pixels.reshape(pixels.shape[0], -1).astype(np.float32)
    tall = np.ascontiguousarray(tall.reshape(height, -1, 3).swapaxes(0, 1))
    both = columns @ tall.reshape(tall.shape[0], -1)
    out = np.clip(np.rint(both), 0, 255).astype(np.uint8).reshape(width, height, 3)
    return np.ascontiguousarray(out.swapaxes(0, 1))


@lru_cache(maxsize=64)
def _weights(start: float, step: float, count: int, length: int) -> Any:
    """Sparse [count, length] matrix whose rows sum to 1."""
    from scipy.sparse import csr_matrix

    index, weight = _area(start, step, count) if step >= 1 else _bilinear(start, step, count)
    row = np.repeat(np.arange(count), index.shape[1])
    column = np.clip(index, 0, length - 1).ravel()
    weight = weight / weight.sum(axis=1, keepdims=True)
    keep = weight.ravel() > 0
    entries = (weight.ravel()[keep].astype(np.float32), (row[keep], column[keep]))
    return csr_matrix(entries, shape=(count, length), dtype=np.float32)


def _area(start: float, step: float, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    left = start + step * np.arange(count)[:, None]
    right = left + step
    first = np.floor(left + 1e-6).astype(np.intp)
    index = first + np.arange(int(np.ceil(step)) + 1)
    overlap = np.minimum(right, index + 1) - np.maximum(left, index)
    return index, np.where(overlap > 1e-6, overlap, 0.0)


def _bilinear(start: float, step: float, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    centre = start + step * (np.arange(count)[:, None] + 0.5) - 0.5
    first = np.floor(centre)
    fraction = centre - first
    index = first.astype(np.intp) + np.arange(2)
    return index, np.concatenate([1 - fraction, fraction], axis=1)
