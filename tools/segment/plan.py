"""The plan of a run: for every scale a grid, the blocks that hold tissue, and the windows they reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tissuetalk.models.segmenter import Capability, Prompt
from tissuetalk.tools.segment.decide import PAD_PX
from tissuetalk.tools.segment.field import FieldOfView
from tissuetalk.tools.segment.grid import Block, Grid, SlideSettings, Window
from tissuetalk.tools.segment.tiles import BlockSpec, ImageTask
from tissuetalk.tools.segment.windows import WindowFiles, WindowSpec, save_tissue


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
    for model_mpp in sorted({capability.mpp for _, capability in asked}, reverse=True):
        grid = Grid.over(source, field.region, field.scale.mpp, model_mpp, model, settings)
        targets = tuple(index for index, (_, able) in enumerate(asked) if able.mpp == model_mpp)
        task = ImageTask(
            image=str(source.path or ""),
            image_name=source.name,
            image_sha256=source.sha256,
            model=model.card.name,
            weights_sha256=model.weights_sha256,
            prompts=tuple(asked[index][0] for index in targets),
            context=field.context(grid.step),
            step=grid.step,
        )
        blocks = tuple(block for block in grid.blocks() if _holds_tissue(field, grid, block))
        capabilities = tuple(asked[index][1] for index in targets)
        layers.append(ScaleLayer(grid, targets, capabilities, task, blocks))
    return tuple(layers)


def _holds_tissue(field: FieldOfView, grid: Grid, block: Block) -> bool:
    core = block.core.intersection(grid.box)
    return core is not None and field.tissue.reaches(grid.covered(core, field.source))


@dataclass(frozen=True)
class Plan:
    """Everything that decides the result of a run on disk. work: the folder of what is finished."""

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
        plan = cls(field, layers_of(field, asked, settings), work)
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
