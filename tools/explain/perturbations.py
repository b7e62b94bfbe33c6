"""Mild changes of a picture that should not change what is in it, each with the way back for the maps.

A perturbed model is a model: it changes every tile before it is encoded and brings the answers back to the tile's own
pixels, so the engine that tiles and blends needs to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmenter import RGB, Context, Decoded, Prompt, Segmenter, encoder_of

Maps = NDArray[np.float32]
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
"""Optical density per channel of haematoxylin, eosin and a third stain (Ruifrok and Johnston 2001)."""


def restained(rgb: RGB, haematoxylin: float, eosin: float) -> RGB:
    """Each stain's optical density times a factor."""
    # to stains, scaled, and back, in one 3 x 3 matrix
    change = np.linalg.inv(STAINS) @ np.diag([haematoxylin, eosin, 1.0]) @ STAINS
    density: Maps = -np.log(np.maximum(rgb.astype(np.float32) / 255, 1 / 255)) @ change.astype(np.float32)
    # rounded: truncation would darken every picture by half a level
    return np.clip(np.exp(-density) * 255 + 0.5, 0, 255).astype(np.uint8)


def brightened(rgb: RGB, factor: float) -> RGB:
    table = np.clip(np.arange(256) * factor + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(rgb, table), np.uint8)


def blurred(rgb: RGB, sigma_px: float) -> RGB:
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma_px), np.uint8)


def recompressed(rgb: RGB, quality: int) -> RGB:
    # OpenCV takes the channels for BGR; encoding and decoding undo each other, only the chroma is swapped
    _, data = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


@dataclass(frozen=True)
class Perturbation:
    """name and words: for a reader. apply: on [H, W, 3] pixels. back: maps [K, h, w] of the changed tile to ``(H, W)``."""

    name: str
    words: str
    apply: Callable[[RGB], RGB]
    back: Callable[[Maps, tuple[int, int]], Maps] = lambda maps, shape: maps


def _resized(rgb: RGB, factor: float) -> RGB:
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _to_shape(maps: Maps, shape: tuple[int, int]) -> Maps:
    size = (shape[1], shape[0])
    return np.stack([cv2.resize(each, size, interpolation=cv2.INTER_LINEAR) for each in maps])


def _mirrored(rgb: RGB) -> RGB:
    return np.ascontiguousarray(rgb[:, ::-1])


def _mirrored_maps(maps: Maps, shape: tuple[int, int]) -> Maps:
    return np.ascontiguousarray(maps[:, :, ::-1])


KINDS: tuple[Perturbation, ...] = (
    Perturbation("stain", "12 % more haematoxylin, 12 % less eosin", lambda rgb: restained(rgb, 1.12, 0.88)),
    Perturbation("brightness", "8 % darker light", lambda rgb: brightened(rgb, 0.92)),
    Perturbation("blur", "slightly out of focus (sigma 1 px)", lambda rgb: blurred(rgb, 1.0)),
    Perturbation("scale", "5 % smaller", lambda rgb: _resized(rgb, 0.95), _to_shape),
    Perturbation("mirror", "mirrored", _mirrored, _mirrored_maps),
    Perturbation("compression", "JPEG quality 50", lambda rgb: recompressed(rgb, 50)),
)
"""One mild change each; strengths are what scanners and laboratories differ by without anyone calling it a fault."""

TOGETHER = Perturbation(
    "together",
    "other stain, darker, slightly blurred, smaller and mirrored at once",
    lambda rgb: _mirrored(_resized(blurred(brightened(restained(rgb, 0.92, 1.08), 0.94), 0.7), 0.95)),
    lambda maps, shape: _to_shape(_mirrored_maps(maps, shape), shape),
)
"""All of it at once, at lower strength and the other way round: one look at every pixel."""


class PerturbedSegmenter:
    """A loaded model that sees every tile changed."""

    def __init__(self, model: Segmenter, change: Perturbation) -> None:
        # another hash: features of changed tiles must never be found as those of the picture
        self.card, self.weights_sha256 = model.card, f"{model.weights_sha256} {change.name}"
        self.tile_px, self.margin_px, self.encoder = model.tile_px, model.margin_px, encoder_of(model)
        self._model, self._change = model, change
        # statistics are those of the image as it is: only tiles are changed
        self.prepare, self.assume_mpp, self.finish = model.prepare, model.assume_mpp, model.finish
        self.capability, self.nearest, self.sent = model.capability, model.nearest, model.sent

    def encode(self, tile: RGB, context: Context) -> tuple[Any, tuple[int, int]]:
        changed = self._change.apply(tile)
        return self._model.encode(changed, context), (tile.shape[0], tile.shape[1])

    def decode(self, features: tuple[Any, tuple[int, int]], prompts: Sequence[Prompt]) -> list[Decoded]:
        (inner, shape), answers = features, []
        for maps in self._model.decode(inner, prompts):
            logits = self._change.back(maps.logits[None], shape)[0]
            objects = None if maps.object_maps is None else self._change.back(maps.object_maps, shape)
            answers.append(replace(maps, logits=logits, object_maps=objects))
        return answers
