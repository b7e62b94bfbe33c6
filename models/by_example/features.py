"""What a head reads at a place: maps of a frozen encoder where the model offers them, colour and fine texture always.

Every map covers the tile at a stride of its own. A linear read-out is applied to each map where it lies and only its
sum is enlarged, so that hundreds of channels cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmenter import RGB, Context, FeatureMap, Segmenter

Floats = NDArray[np.float32]

COLOUR_STRIDE = 2
SIGMAS = (1.0, 2.0, 4.0, 8.0)
"""Of colour and texture, in working pixels."""


def sampled(maps: FeatureMap, x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """[n, C], bilinear, at the middles of working pixels x, y of the tile; as ``enlarged`` would give them."""
    values, (height, width) = maps.values, maps.values.shape[1:]
    across, down = ((axis + 0.5) / maps.stride - 0.5 for axis in (x, y))
    left, top = np.clip(across, 0, width - 1), np.clip(down, 0, height - 1)
    x0, y0 = np.floor(left).astype(int), np.floor(top).astype(int)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (left - x0).astype(np.float32), (top - y0).astype(np.float32)
    upper = values[:, y0, x0] * (1 - fx) + values[:, y0, x1] * fx
    lower = values[:, y1, x0] * (1 - fx) + values[:, y1, x1] * fx
    return np.asarray((upper * (1 - fy) + lower * fy).T, np.float32)


def enlarged(values: Floats, stride: float, height: int, width: int) -> Floats:
    """[H, W] of a tile from a map [h, w] that covers it at a stride, bilinear."""
    if stride == 1:
        return values[:height, :width]
    size = (round(values.shape[1] * stride), round(values.shape[0] * stride))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.float32)[:height, :width]


def deep_maps(model: Segmenter, tile: RGB, context: Context) -> tuple[Any, list[FeatureMap]]:
    """The model's own features, and its frozen maps; none of a model that offers none."""
    offered = getattr(model, "encode_with_maps", None)
    if offered is None:
        return model.encode(tile, context), []
    features, maps = offered(tile, context)
    return features, list(maps)


def colour_maps(tile: RGB) -> list[FeatureMap]:
    """Optical density, its gradient and its curvature at several sizes."""
    small = cv2.resize(tile, None, fx=1 / COLOUR_STRIDE, fy=1 / COLOUR_STRIDE, interpolation=cv2.INTER_AREA)
    small = np.atleast_3d(small)
    density = -np.log10((small.astype(np.float32) + 1) / 256)
    channels: list[Floats] = []
    for sigma in SIGMAS:
        smooth = cv2.GaussianBlur(density, (0, 0), sigma / COLOUR_STRIDE)
        channels += list(np.moveaxis(smooth, 2, 0))
        grey = smooth.mean(2)
        across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
        channels.append(np.hypot(across, down) * sigma)
        channels.append(cv2.Laplacian(grey, cv2.CV_32F) * sigma**2)
        spread = (
            cv2.GaussianBlur(density.mean(2) ** 2, (0, 0), sigma)
            - cv2.GaussianBlur(density.mean(2), (0, 0), sigma) ** 2
        )
        channels.append(np.sqrt(np.maximum(spread, 0)))
    return [FeatureMap(np.stack(channels).astype(np.float32), COLOUR_STRIDE)]


def gathered(maps: Sequence[FeatureMap], x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """[n, all channels] of every map at working pixels of the tile."""
    return np.concatenate([sampled(each, x, y) for each in maps], axis=1)
