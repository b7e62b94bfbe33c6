"""What a head reads at a place: maps of a frozen encoder where the model offers them, colour and fine texture always.

Every map covers the tile at a stride of its own. A linear read-out is applied to each map where it lies and only its
sum is enlarged, so that hundreds of channels cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmenter import RGB, Context, FeatureMap, FrozenFeatures, Segmenter

Floats = NDArray[np.float32]

OCTAVES: Final = 5
"""Colour and texture are looked at in the tile and at 1/2, 1/4, 1/8 and 1/16 of its size."""
COLOUR_WEIGHT: Final = 1.2
"""Of each octave, beside a map of the encoder: together they count as six of those."""
SMOOTH_PX: Final = 1.5
FINE_PX: Final = (0.7, 1.5)
"""Smoothing of the colour that unstained targets are told by."""
LARGEST: Final = 5.0
"""Standardised features are cut off here: a speck of ink must not outvote the rest."""

_DENSITY: Final = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)


def densities(pixels: RGB) -> Floats:
    """Optical densities of pixels [H, W, 3] or [n, 3]."""
    return np.asarray(cv2.LUT(np.ascontiguousarray(pixels), _DENSITY), np.float32).reshape(pixels.shape)


def _grey(planes: Floats) -> Floats:
    """[H, W], the mean of three planes [H, W, 3]."""
    return np.asarray(cv2.transform(planes, np.full((1, 3), 1 / 3, np.float32)), np.float32)


def _colour_axes(pixels: RGB) -> Floats:
    """[H, W, 3]: lightness and the two axes of colour, smoothed."""
    lab = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2LAB)
    return np.asarray(cv2.GaussianBlur(lab, (0, 0), SMOOTH_PX), np.float32)


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


def gathered(maps: Sequence[FeatureMap], x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """[n, all channels] of every map at working pixels of the tile."""
    return np.concatenate([sampled(each, x, y) for each in maps], axis=1)


def enlarged(values: Floats, stride: float, height: int, width: int) -> Floats:
    """[H, W] of a tile from a map [h, w] that covers it at a stride, bilinear."""
    if stride == 1:
        return values[:height, :width]
    size = (round(values.shape[1] * stride), round(values.shape[0] * stride))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.float32)[:height, :width]


@dataclass(frozen=True)
class SeenTile:
    """Everything that is read of one tile. base: the model's own features of it, where they came of the same pass."""

    maps: list[FeatureMap]
    base: Any = None


def maps_of(
    model: Segmenter, tile: RGB, context: Context, reductions: Sequence[int], finest: int = 0
) -> SeenTile:
    """The model's maps of the tile shrunk so many times, and colour and texture of the tile itself from an octave on."""
    maps, base = [], None
    if isinstance(offers := offered_by(model), FrozenFeatures):
        for reduction in reductions:
            features, deep = offers.encode_with_maps(shrunk(tile, reduction), context)
            base = features if reduction == 1 else base
            maps += [_covering(tile, each, each.stride * reduction) for each in deep]
    return SeenTile([*maps, *colour_maps(tile, finest)], base)


def _covering(tile: RGB, offered: FeatureMap, stride: float) -> FeatureMap:
    """Without what a model saw beyond the tile's border."""
    height, width = (int(np.ceil(side / stride)) for side in tile.shape[:2])
    return FeatureMap(offered.values[:, :height, :width], stride, offered.weight)


def offered_by(model: Segmenter) -> object:
    """The model itself: one that is loaded on demand does not show what it offers before it is."""
    return getattr(model, "_model", model)


def shrunk(tile: RGB, reduction: int) -> RGB:
    """[ceil(H / reduction), ceil(W / reduction), 3]: exact means, mirrored beyond the border."""
    if reduction == 1:
        return tile
    bottom, right = -tile.shape[0] % reduction, -tile.shape[1] % reduction
    whole = cv2.copyMakeBorder(np.ascontiguousarray(tile), 0, bottom, 0, right, cv2.BORDER_REFLECT)
    size = (whole.shape[1] // reduction, whole.shape[0] // reduction)
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)


def colour_maps(tile: RGB, finest: int = 0) -> list[FeatureMap]:
    """Optical densities, edges, ridges and unevenness, at several sizes."""
    return [
        FeatureMap(_colour(shrunk(tile, 2**octave)), 2**octave, COLOUR_WEIGHT)
        for octave in range(finest, OCTAVES)
    ]


def _colour(pixels: RGB) -> Floats:
    """[10, H, W]: three optical densities, gradient, two curvatures, unevenness, and three axes of colour."""
    density = densities(pixels)
    smooth = np.asarray(cv2.GaussianBlur(density, (0, 0), SMOOTH_PX), np.float32)
    grey, raw = _grey(smooth), _grey(density)
    steepness = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    across, down = cv2.Sobel(grey, cv2.CV_32F, 2, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 2)
    middle, half = (across + down) / 2, (across - down) / 2
    turn = cv2.magnitude(half, cv2.Sobel(grey, cv2.CV_32F, 1, 1))
    mean = cv2.GaussianBlur(raw, (0, 0), 2 * SMOOTH_PX)
    uneven = np.sqrt(np.maximum(cv2.GaussianBlur(raw * raw, (0, 0), 2 * SMOOTH_PX) - mean * mean, 0))
    steepness = cv2.GaussianBlur(steepness, (0, 0), SMOOTH_PX)
    texture = [np.asarray(each, np.float32) for each in (steepness, middle + turn, middle - turn, uneven)]
    return np.stack([*cv2.split(smooth), *texture, *cv2.split(_colour_axes(pixels))])


def fine_colour(tile: RGB) -> list[FeatureMap]:
    """Nothing but colour, hardly smoothed: where something unstained ends."""
    density = densities(tile)
    planes = [cv2.split(cv2.GaussianBlur(density, (0, 0), sigma)) for sigma in FINE_PX]
    planes.append(cv2.split(_colour_axes(tile)))
    return [FeatureMap(np.stack([plane for three in planes for plane in three]).astype(np.float32), 1)]


def channel_shares(maps: Sequence[FeatureMap]) -> Floats:
    """[D]: what standardised channels are multiplied with, so that every map counts by its weight and not by its width."""
    shares = [np.full(len(each.values), np.sqrt(each.weight / len(each.values) / len(maps))) for each in maps]
    return np.concatenate(shares).astype(np.float32)
