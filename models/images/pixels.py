"""Whatever a file stores as 8-bit RGB on white, and at any scale.

Resampling is by area average or bilinear, and its result does not depend on how the work was cut into tiles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import UnreadableImageError

RGB = NDArray[np.uint8]
"""[H, W, 3] pixels, 0..255."""

_FULL_SCALES = (255, 1023, 4095, 16383, 65535)
_BAND_PIXELS = 4_000_000

Alpha = Literal["none", "straight", "premultiplied"]
"""Whether the last sample is opacity, and whether the colours were already multiplied by it."""


def full_scale(dtype: np.dtype[Any], largest: float) -> float:
    """The stored value that means white.

    Cameras put 10, 12 or 14 bits into 16-bit files, so white is the smallest of 2^8-1, 2^10-1, 2^12-1, 2^14-1
    and 2^16-1 that holds the largest value of the image. Floating point is 0..1, or 0..255 and up by the same rule.

    Raises UnreadableImageError for values that cannot be brightness.
    """
    if dtype == np.uint8:
        return 255.0
    if dtype == np.bool_:
        return 1.0
    if dtype.kind == "f" and largest <= 1.0:
        return 1.0
    if dtype.kind in "uif" and largest <= _FULL_SCALES[-1]:
        return float(next(white for white in _FULL_SCALES if largest <= white))
    raise UnreadableImageError(
        f"pixels of type {dtype} with values up to {largest:.6g} are not a colour image; save it as 8-bit RGB"
    )


def to_rgb(samples: NDArray[Any], *, white: float = 255.0, alpha: Alpha = "none") -> RGB:
    """[H, W, S] of any type (S: grey, grey+alpha, RGB or RGBA) as [H, W, 3] uint8 with alpha put on white."""
    if samples.dtype == np.uint8 and samples.shape[2] == 3:
        return np.ascontiguousarray(samples)
    if alpha == "straight" and _is_opaque(samples) and white == 255.0:
        import cv2  # only slides need it

        return np.asarray(cv2.cvtColor(samples, cv2.COLOR_RGBA2RGB))
    height, width = samples.shape[:2]
    out = np.empty((height, width, 3), np.uint8)
    band = max(1, _BAND_PIXELS // max(width, 1))  # bounds the float copy of a large region
    for top in range(0, height, band):
        out[top : top + band] = _band_to_rgb(samples[top : top + band], white, alpha)
    return out


def _is_opaque(samples: NDArray[Any]) -> bool:
    """8-bit RGBA without a hole, as slides have it nearly everywhere: nothing shows through."""
    return samples.dtype == np.uint8 and samples.shape[2] == 4 and bool(samples[..., 3].min() == 255)


def orient(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF/TIFF orientation (1..8; anything else means upright) to [H, W, ...]."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _band_to_rgb(samples: NDArray[Any], white: float, alpha: Alpha) -> NDArray[np.uint8]:
    if samples.dtype != np.uint8 or white != 255.0:
        # Cameras write NaN and infinity for dead pixels.
        scaled = np.nan_to_num(samples.astype(np.float32)) * np.float32(255.0 / white)
        samples = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    shape = (*samples.shape[:2], 3)
    if alpha == "none":
        return np.broadcast_to(samples, shape)
    colour, opacity = samples[..., :-1].astype(np.uint16), samples[..., -1:].astype(np.uint16)
    if alpha == "premultiplied":
        on_white = np.minimum(colour + (255 - opacity), 255)  # some writers round the colour up
    else:
        on_white = (colour * opacity + 255 * (255 - opacity) + 127) // 255  # rounded, in whole numbers
    return np.broadcast_to(on_white.astype(np.uint8), shape)


def source_span(start: float, step: float, count: int, length: int) -> tuple[int, int]:
    """First and one-past-last source pixel that ``count`` output pixels of size ``step`` need, of ``length``."""
    margin = 0.5 if step < 1 else 0.0  # bilinear reaches half a pixel beyond
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
    # Separable: rows, then columns, each as one sparse product.
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
    first = np.floor(left + 1e-6).astype(np.intp)  # 2.9999999 is where pixel 3 starts
    index = first + np.arange(int(np.ceil(step)) + 1)
    overlap = np.minimum(right, index + 1) - np.maximum(left, index)
    return index, np.where(overlap > 1e-6, overlap, 0.0)


def _bilinear(start: float, step: float, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    centre = start + step * (np.arange(count)[:, None] + 0.5) - 0.5
    first = np.floor(centre)
    fraction = centre - first
    index = first.astype(np.intp) + np.arange(2)
    return index, np.concatenate([1 - fraction, fraction], axis=1)
