"""The tiled segmentation engine: what a run does at every scale, and all of it for a region that fits in memory.

There it is one window and nothing is written. Blocks, blending, objects and outlines are those of a slide on disk (``slide.py``); every step is in ``tiles.py`` and
``decide.py``. Every tile is encoded once per scale, however many prompts share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.errors import ImageTooLargeError
from tissuetalk.models.images import Box
from tissuetalk.models.segmenter import Capability, Prompt, Segmenter, encoder_of
from tissuetalk.tools.segment.decide import (
    PAD_PX,
    Labels,
    ScaledPrompt,
    all_of,
    decide,
    tissue_in,
)
from tissuetalk.tools.segment.field import FieldOfView
from tissuetalk.tools.segment.grid import (
    DEFAULTS,
    MAX_MASK_PX,
    MAX_WORKING_PX,
    Block,
    Grid,
    SlideSettings,
    Window,
)
from tissuetalk.tools.segment.tiles import BlockSpec, HeldMaps, ImageTask, answers_of, blend
from tissuetalk.tools.segment.unsure import unsure_box
from tissuetalk.tools.segment.windows import WindowFiles, WindowSpec, save_tissue
from tissuetalk.tools.storage.features import FeatureCache

TILES_SHARE = 0.9
"""Part of the work that is tiles; the rest is deciding objects."""


@dataclass(frozen=True)
class FoundMask:
    """What a model said about one prompt, in full-resolution pixels of the region.

    labels: [H, W] int32, 0 background, 1..N objects, or the connected parts of a region. objects: which of the two.
    presence: 0..1. Below the capability's nothing is painted and ``weak_px`` counts what would have been.
    expected_dice: overlap to expect if the model's own pixel probabilities were right, 2 sum(p m) / sum(p + m).
    model_mpp: µm per pixel the model worked at. specks: objects too small to count.
    note: what a reader must know about this answer, in a few words; empty mostly. unsure: where one more example helps.
    """

    labels: Labels
    objects: bool
    presence: float
    model_mpp: float
    weak_px: int = 0
    note: str = ""
    expected_dice: float | None = None
    specks: int = 0
    unsure: Box | None = None

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
    for mpp in {field.mpp_for(capability) for _, capability in asked}:
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
    grid, question = layer.grid, layer.question(field.model, index)
    blended = blend(grid.box, layer.blocks, lambda block: maps[block.name], index, question.capability.blends)
    decided = decide(question, blended, grid.box, tissue)
    objects, nothing = (
        question.capability.objects,
        np.zeros((grid.region.height, grid.region.width), np.int32),
    )
    if decided is None:
        return FoundMask(nothing, objects, 0.0, layer.model_mpp)
    evidence = decided.evidence(grid.box, taught=question.is_taught)
    labels, specks = all_of(decided, grid)
    presence, dice = evidence.presence(question), evidence.expected_dice
    if presence < question.capability.present_from:
        return FoundMask(nothing, objects, presence, layer.model_mpp, int(np.count_nonzero(labels)))
    unsure = unsure_box(evidence.unsure, grid)
    return FoundMask(
        labels, objects, presence, layer.model_mpp, expected_dice=dice, specks=specks, unsure=unsure
    )


@dataclass(frozen=True)
class ScaleLayer:
    """All targets that are looked for at one scale. ``targets``: their places in the list of what is asked."""

    grid: Grid
    targets: tuple[int, ...]
    capabilities: tuple[Capability, ...]
    task: ImageTask
    blocks: tuple[Block, ...]

    @property
    def model_mpp(self) -> float:
        return self.grid.model_mpp

    def question(self, model: Segmenter, index: int) -> ScaledPrompt:
        """About the target at a place of ``targets``."""
        return ScaledPrompt(model, self.task.prompts[index], self.capabilities[index], self.task.context)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """Those that a tile of the plan reaches, in reading order."""
        return tuple(window for window in self.grid.windows if self.blocks_of(window, beyond=0))

    def blocks_of(self, window: Window, beyond: int = PAD_PX) -> tuple[Block, ...]:
        """Planned blocks whose tiles reach the window's core, or so many working pixels beyond it, in reading order."""
        box = window.core.grown(beyond)
        near = (self._by_place.get(at) for at in self.grid.blocks_near(box))
        return tuple(
            block for block in near if block is not None and block.tile.intersection(box) is not None
        )

    @cached_property
    def _by_place(self) -> dict[tuple[int, int], Block]:
        return {(block.column, block.row): block for block in self.blocks}


def layers_of(
    field: FieldOfView, asked: Sequence[tuple[Prompt, Capability]], settings: SlideSettings
) -> tuple[ScaleLayer, ...]:
    """One layer per scale, the coarsest first: it is done soonest. The same question always gives the same layers."""
    source, model = field.source, field.model
    layers = []
    shown_at = [field.mpp_for(capability) for _, capability in asked]
    for model_mpp in sorted(set(shown_at), reverse=True):
        grid = Grid.over(source, field.region, field.scale.mpp, model_mpp, model, settings)
        targets = tuple(index for index, mpp in enumerate(shown_at) if mpp == model_mpp)
        task = ImageTask(
            image=str(source.path or ""),
            image_name=source.name,
            image_sha256=source.sha256,
            model=(model if field.lessons is None else field.lessons.base).card.name,
            weights_sha256=model.weights_sha256,
            prompts=tuple(asked[index][0] for index in targets),
            context=field.context(grid.step),
            step=grid.step,
            looks=tuple(asked[index][1].looks for index in targets),
            encoder=encoder_of(model),
        )
        blocks = tuple(
            block
            for block in grid.blocks()
            if (core := block.core.intersection(grid.box)) is not None
            and field.tissue.reaches(grid.covered(core, source))
        )
        capabilities = tuple(asked[index][1] for index in targets)
        layers.append(ScaleLayer(grid, targets, capabilities, task, blocks))
    return tuple(layers)


@dataclass(frozen=True)
class Plan:
    """Everything that decides the result of a run on disk. work: the folder of what is finished, two below the result's."""

    field: FieldOfView
    layers: tuple[ScaleLayer, ...]
    work: Path

    @classmethod
    def make(
        cls,
        field: FieldOfView,
        asked: Sequence[tuple[Prompt, Capability]],
        settings: SlideSettings,
        work: Path,
    ) -> Plan:
        layers = layers_of(field, asked, settings)
        if field.lessons is not None:
            files = field.lessons.write(work.parent.parent)
            layers = tuple(replace(each, task=replace(each.task, learned=files)) for each in layers)
        plan = cls(field, layers, work)
        save_tissue(plan.tissue_file, field.tissue)
        return plan

    @property
    def tissue_file(self) -> Path:
        return self.work / "tissue.npz"

    def layer_of(self, target: int) -> ScaleLayer:
        return next(layer for layer in self.layers if target in layer.targets)

    def folder(self, layer: ScaleLayer, kind: str) -> Path:
        """kind: ``blocks`` or ``windows``."""
        return self.work / f"{layer.model_mpp:g}um" / kind

    def block_file(self, layer: ScaleLayer, block: Block) -> Path:
        return self.folder(layer, "blocks") / f"{block.name}.maps"

    def files(self, layer: ScaleLayer, window: Window) -> WindowFiles:
        return WindowFiles(self.folder(layer, "windows") / window.name)

    def block_spec(self, layer: ScaleLayer, block: Block) -> BlockSpec:
        return BlockSpec(layer.task, block, str(self.block_file(layer, block)))

    def window_spec(self, layer: ScaleLayer, window: Window) -> WindowSpec:
        return WindowSpec(
            task=layer.task,
            capabilities=layer.capabilities,
            mpp=self.field.scale.known_mpp,
            grid=layer.grid,
            window=window,
            blocks=layer.blocks_of(window),
            block_folder=str(self.folder(layer, "blocks")),
            tissue=str(self.tissue_file),
            out=str(self.folder(layer, "windows") / window.name),
        )
