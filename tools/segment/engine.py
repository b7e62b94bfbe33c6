"""From an open image and prompts to masks: scales, tiles, blending, and back to full resolution.

Models see tiles at their own scale; this module decides which tiles, blends what comes back, and brings
masks to the pixels of the source. Every tile is encoded once per scale, however many prompts share it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control, Progress, Stop
from tissuetalk.models.errors import CancelledError, ImageTooLargeError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import Capability, Context, Decoded, Prompt, Segmenter
from tissuetalk.tools.segment.field import FieldOfView
from tissuetalk.tools.storage.features import FeatureCache

MAX_WORKING_PX = 64_000_000
"""Largest region, in pixels at the model's scale, whose maps are held in memory at once."""
MAX_MASK_PX = 160_000_000
"""Largest region, in full-resolution pixels, whose mask is returned in full."""

PRESENT = 0.5
"""Calibrated probability from which a target counts as found (the model card reports the curve)."""


@dataclass(frozen=True)
class FoundMask:
    """What a model said about one prompt, in full-resolution pixels of the region.

    mask: [H, W] bool. instances: [H, W] int32 (0 background, 1..N) or None. presence: 0..1.
    Below PRESENT nothing is painted and ``weak_px`` counts what would have been.
    expected_dice: overlap to expect if the model's own pixel probabilities were right, 2 sum(p m) / sum(p + m).
    source_mpp: µm per pixel of these arrays. model_mpp: µm per pixel the model worked at.
    note: what a reader must know about this answer, in a few words; empty mostly.
    """

    mask: NDArray[np.bool_]
    instances: NDArray[np.int32] | None
    presence: float
    source_mpp: float
    model_mpp: float
    weak_px: int = 0
    note: str = ""
    expected_dice: float | None = None


@dataclass(frozen=True)
class Tile:
    """Where a tile lies in the region, in pixels at the working scale."""

    x: int
    y: int
    width: int
    height: int


def find_masks(
    field: FieldOfView, asked: Sequence[tuple[Prompt, Capability]], control: Control = Control()
) -> list[FoundMask]:
    """One answer per prompt, in the order asked.

    Raises ImageTooLargeError when the region does not fit in memory and CancelledError as soon as ``control`` says so.
    """
    model, source, region, mpp, features = (
        field.model,
        field.source,
        field.region,
        field.scale.mpp,
        field.features,
    )
    progress, stop = control.progress, control.stop
    if region.width * region.height > MAX_MASK_PX:
        raise ImageTooLargeError(
            f"a region of {region.width} x {region.height} px is more than can be segmented in one go; "
            f"pass region=[x0, y0, x1, y1] with at most {MAX_MASK_PX // 1_000_000} million pixels."
        )
    context = model.prepare(source.overview())
    cache = features or FeatureCache(memory_bytes=0)
    order = sorted(range(len(asked)), key=lambda index: asked[index][1].mpp)
    answers: dict[int, FoundMask] = {}
    for scale_mpp, group in groupby(order, key=lambda index: asked[index][1].mpp):
        indices = list(group)
        prompts = [asked[index][0] for index in indices]

        def share(done: float, what: str, already: int = len(answers), here: int = len(indices)) -> None:
            progress((already + done * here) / len(asked), what)

        stitched = _at_one_scale(model, source, region, mpp, scale_mpp, prompts, context, cache, share, stop)
        for index, prompt, maps in zip(indices, prompts, stitched, strict=True):
            if stop():
                raise CancelledError("stopped as asked; call segment again to start over.")
            answers[index] = _at_full_resolution(model, prompt, maps, context, region, mpp, scale_mpp)
    return [answers[index] for index in range(len(asked))]


def _at_one_scale(
    model: Segmenter,
    source: ImageSource,
    region: Box,
    mpp: float,
    model_mpp: float,
    prompts: Sequence[Prompt],
    context: Context,
    cache: FeatureCache,
    progress: Progress,
    stop: Stop,
) -> list[Decoded]:
    """Blended maps of every prompt over the whole region, at the model's scale."""
    width = max(1, round(region.width * mpp / model_mpp))
    height = max(1, round(region.height * mpp / model_mpp))
    if width * height > MAX_WORKING_PX:
        raise ImageTooLargeError(
            f"at {model_mpp} µm/px the region is {width} x {height} px, too much to hold at once; "
            "pass a smaller region=[x0, y0, x1, y1]."
        )
    tiles = list(plan_tiles(width, height, model.tile_px, 2 * model.margin_px))
    blends = [_Blend(width, height) for _ in prompts]
    for number, tile in enumerate(tiles):
        if stop():
            raise CancelledError("stopped as asked; call segment again to start over.")
        key = f"{source.sha256} {model.weights_sha256} {region.as_list()} {width}x{height} {tile}"

        def encoded(tile: Tile = tile) -> Any:
            return model.encode(_read_tile(source, region, tile, width, height), context)

        decoded = model.decode(cache.get(key, model, encoded), prompts)
        weight = _ramp(tile, width, height, 2 * model.margin_px)
        for blend, maps in zip(blends, decoded, strict=True):
            blend.add(tile, maps, weight)
        progress((number + 1) / len(tiles), f"tile {number + 1} of {len(tiles)}")
    return [blend.result() for blend in blends]


def plan_tiles(width: int, height: int, side: int, overlap: int) -> Iterator[Tile]:
    """Equal tiles that cover the region, neighbours sharing at least ``overlap`` px."""
    for y, tile_height in _spans(height, side, overlap):
        for x, tile_width in _spans(width, side, overlap):
            yield Tile(x, y, tile_width, tile_height)


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    if length <= side:
        return [(0, length)]
    count = math.ceil((length - overlap) / (side - overlap))
    return [(round(k * (length - side) / (count - 1)), side) for k in range(count)]


def _read_tile(source: ImageSource, region: Box, tile: Tile, width: int, height: int) -> NDArray[np.uint8]:
    """The tile's pixels; its corners are rounded to full-resolution pixels of the source."""
    across, down = region.width / width, region.height / height
    box = Box(
        region.x0 + round(tile.x * across),
        region.y0 + round(tile.y * down),
        region.x0 + max(round((tile.x + tile.width) * across), round(tile.x * across) + 1),
        region.y0 + max(round((tile.y + tile.height) * down), round(tile.y * down) + 1),
    )
    return source.read_region(
        box.clipped_to(source.width, source.height), width=tile.width, height=tile.height
    )


def _ramp(tile: Tile, width: int, height: int, overlap: int) -> NDArray[np.float32]:
    """[H, W] blending weight: 1 inside, falling towards edges that have a neighbour."""

    def profile(start: int, length: int, total: int) -> NDArray[np.float32]:
        weight = np.ones(length, np.float32)
        slope = (np.arange(overlap, dtype=np.float32) + 0.5) / max(overlap, 1)
        if overlap and start > 0:
            weight[:overlap] = np.minimum(weight[:overlap], slope[:length])
        if overlap and start + length < total:
            weight[-overlap:] = np.minimum(weight[-overlap:], slope[::-1][-length:])
        return weight

    return np.outer(profile(tile.y, tile.height, height), profile(tile.x, tile.width, width)).astype(
        np.float32
    )


class _Blend:
    """Weighted mean of overlapping tiles; presence is the highest any tile saw."""

    def __init__(self, width: int, height: int) -> None:
        self._shape = (height, width)
        self._logits = np.zeros(self._shape, np.float32)
        self._weight = np.zeros(self._shape, np.float32)
        self._objects: NDArray[np.float32] | None = None
        self._presence: float | None = None

    def add(self, tile: Tile, maps: Decoded, weight: NDArray[np.float32]) -> None:
        place = (slice(tile.y, tile.y + tile.height), slice(tile.x, tile.x + tile.width))
        self._logits[place] += maps.logits * weight
        self._weight[place] += weight
        if maps.object_maps is not None:
            if self._objects is None:
                self._objects = np.zeros((len(maps.object_maps), *self._shape), np.float32)
            self._objects[(slice(None), *place)] += maps.object_maps * weight
        if maps.presence is not None:
            self._presence = maps.presence if self._presence is None else max(self._presence, maps.presence)

    def result(self) -> Decoded:
        np.divide(self._logits, self._weight, out=self._logits)
        if self._objects is not None:
            np.divide(self._objects, self._weight, out=self._objects)
        return Decoded(self._logits, self._presence, self._objects)


def _at_full_resolution(
    model: Segmenter,
    prompt: Prompt,
    maps: Decoded,
    context: Context,
    region: Box,
    mpp: float,
    model_mpp: float,
) -> FoundMask:
    """Objects are decided at the model's scale; outlines are drawn where the smoothly enlarged logits cross zero."""
    finished = model.finish(maps, prompt, context)
    size = (region.width, region.height)
    expected = _expected_dice(maps.logits, finished.mask)
    if maps.logits.shape == (region.height, region.width):
        return _gated(finished.mask, finished.instances, finished.presence, mpp, model_mpp, expected)
    outline = cv2.resize(maps.logits, size, interpolation=cv2.INTER_LINEAR) > 0
    kept = cv2.dilate(finished.mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    filled = (finished.mask & (maps.logits <= 0)).astype(np.uint8)
    mask = outline & (cv2.resize(kept, size, interpolation=cv2.INTER_NEAREST_EXACT) > 0)
    mask |= cv2.resize(filled, size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    instances = None
    if finished.instances is not None:
        instances = np.where(mask, _enlarge_labels(finished.instances, size), 0)
    return _gated(mask, instances, finished.presence, mpp, model_mpp, expected)


def _expected_dice(logits: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Every other pixel is enough."""
    painted = mask[::2, ::2]
    share = 1 / (1 + np.exp(-np.clip(logits[::2, ::2], -30, 30)))
    return float(2 * share[painted].sum() / max(1e-6, float(share.sum()) + painted.sum()))


def _gated(
    mask: NDArray[np.bool_],
    instances: NDArray[np.int32] | None,
    presence: float,
    mpp: float,
    model_mpp: float,
    expected_dice: float,
) -> FoundMask:
    if presence >= PRESENT:
        return FoundMask(mask, instances, presence, mpp, model_mpp, expected_dice=expected_dice)
    nothing = None if instances is None else np.zeros_like(instances)
    return FoundMask(np.zeros_like(mask), nothing, presence, mpp, model_mpp, weak_px=int(mask.sum()))


def _enlarge_labels(labels: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Nearest-neighbour enlargement after growing each object by a pixel, so that smooth outlines stay covered."""
    grown = labels.copy()
    neighbours = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
    grown[labels == 0] = neighbours[labels == 0]
    enlarged = cv2.resize(grown.astype(np.float32), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return enlarged.astype(np.int32)
