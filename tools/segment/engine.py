"""The tiled segmentation engine on a region that fits in memory: one window, and nothing is written.

Blocks, blending, objects and outlines are those of a slide on disk (``slide.py``); every step is in ``tiles.py`` and
``decide.py``. Every tile is encoded once per scale, however many prompts share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.errors import ImageTooLargeError
from tissuetalk.models.segmenter import Capability, Prompt
from tissuetalk.tools.segment.decide import Labels, ScaledPrompt, all_of, decide, tissue_in
from tissuetalk.tools.segment.field import FieldOfView
from tissuetalk.tools.segment.grid import DEFAULTS, MAX_MASK_PX, MAX_WORKING_PX, Block, Grid, SlideSettings
from tissuetalk.tools.segment.plan import ScaleLayer, layers_of
from tissuetalk.tools.segment.tiles import BlockSpec, HeldMaps, answers_of, blend
from tissuetalk.tools.storage.features import FeatureCache

PRESENT = 0.5
"""Calibrated probability from which a target counts as found (the model card reports the curve)."""
TILES_SHARE = 0.9
"""Part of the work that is tiles; the rest is deciding objects."""


@dataclass(frozen=True)
class FoundMask:
    """What a model said about one prompt, in full-resolution pixels of the region.

    labels: [H, W] int32, 0 background, 1..N objects, or the connected parts of a region. objects: which of the two.
    presence: 0..1. Below PRESENT nothing is painted and ``weak_px`` counts what would have been.
    expected_dice: overlap to expect if the model's own pixel probabilities were right, 2 sum(p m) / sum(p + m).
    model_mpp: µm per pixel the model worked at. specks: objects too small to count.
    note: what a reader must know about this answer, in a few words; empty mostly.
    """

    labels: Labels
    objects: bool
    presence: float
    model_mpp: float
    weak_px: int = 0
    note: str = ""
    expected_dice: float | None = None
    specks: int = 0

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """[H, W]."""
        return self.labels > 0

    @property
    def instances(self) -> Labels | None:
        """[H, W], None for a region."""
        return self.labels if self.objects else None


def find_masks(
    field: FieldOfView,
    asked: Sequence[tuple[Prompt, Capability]],
    control: Control = Control(),
    settings: SlideSettings = DEFAULTS,
) -> list[FoundMask]:
    """One answer per prompt, in the order asked.

    Raises ImageTooLargeError when the region does not fit in memory and CancelledError as soon as ``control`` says so.
    """
    region = field.region
    if region.width * region.height > MAX_MASK_PX:
        raise too_large(region.width, region.height)
    for mpp in {capability.mpp for _, capability in asked}:
        step = mpp / field.scale.mpp
        if region.width * region.height / step**2 > MAX_WORKING_PX:
            raise ImageTooLargeError(
                f"at {mpp} µm/px the region is {region.width / step:.0f} x {region.height / step:.0f} px, too much to hold "
                "at once; pass a smaller region=[x0, y0, x1, y1]."
            )
    found: dict[int, FoundMask] = {}
    for layer in reversed(layers_of(field, asked, settings)):
        part = control.part(len(found) / len(asked), (len(found) + len(layer.targets)) / len(asked))
        maps = _maps_of(field, layer, part.part(0, TILES_SHARE))
        tissue = tissue_in(field.tissue, layer.grid.box, layer.grid.step)
        deciding = part.part(TILES_SHARE, 1)
        for index, target in enumerate(layer.targets):
            deciding.check()
            found[target] = _finish(field, layer, index, maps, tissue)
            deciding.report((index + 1) / len(layer.targets), "deciding objects")
    return [found[index] for index in range(len(asked))]


def too_large(width: int, height: int) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"a region of {width} x {height} px is more than can be segmented in one go; "
        f"pass region=[x0, y0, x1, y1] with at most {MAX_MASK_PX // 1_000_000} million pixels."
    )


def _maps_of(field: FieldOfView, layer: ScaleLayer, control: Control) -> dict[str, HeldMaps]:
    """What the model says about every block, by the block's name."""
    cache = field.features or FeatureCache(memory_bytes=0)
    maps = {}
    for number, block in enumerate(layer.blocks):
        control.check()
        spec = BlockSpec(layer.task, block)
        (answers,) = answers_of([spec], [None], field.model, field.source, cache)
        maps[block.name] = HeldMaps.of(answers)
        control.report((number + 1) / len(layer.blocks), f"tile {number + 1} of {len(layer.blocks)}")
    return maps


def _finish(
    field: FieldOfView, layer: ScaleLayer, index: int, maps: dict[str, HeldMaps], tissue: NDArray[np.bool_]
) -> FoundMask:
    """The answer to one prompt of a layer. tissue: [grid.box.height, grid.box.width]."""
    grid, capability = layer.grid, layer.capabilities[index]
    question = ScaledPrompt(field.model, layer.task.prompts[index], capability, layer.task.context)

    def read(block: Block) -> HeldMaps:
        return maps[block.name]

    decided = decide(question, blend(grid.box, layer.blocks, read, index), grid.box, tissue)
    objects = capability.objects
    if decided is None:
        return FoundMask(_nothing(grid), objects, 0.0, layer.model_mpp)
    evidence = decided.evidence(grid.box)
    labels, specks = all_of(decided, grid)
    presence = evidence.presence(question)
    if presence < PRESENT:
        weak_px = int(np.count_nonzero(labels))
        return FoundMask(_nothing(grid), objects, presence, layer.model_mpp, weak_px)
    return FoundMask(
        labels, objects, presence, layer.model_mpp, expected_dice=evidence.expected_dice, specks=specks
    )


def _nothing(grid: Grid) -> Labels:
    return np.zeros((grid.region.height, grid.region.width), np.int32)
