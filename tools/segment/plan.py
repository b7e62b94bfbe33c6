"""The plan of a run: for every scale a grid, the blocks that hold tissue, and the windows they reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import Context, Prompt, Segmenter
from tissuetalk.tools.masks.tissue import Tissue, sample
from tissuetalk.tools.segment.blocks import BlockSpec
from tissuetalk.tools.segment.cutting import view_of
from tissuetalk.tools.segment.field import Scale
from tissuetalk.tools.segment.grid import Block, Grid, Window, grown, intersection
from tissuetalk.tools.segment.settings import SlideSettings
from tissuetalk.tools.segment.targets import Wanted
from tissuetalk.tools.segment.windows import WindowFiles, WindowSpec


@dataclass(frozen=True)
class Layer:
    """All targets that are looked for at one scale. ``targets``: their places in the list of what is asked."""

    name: str
    model_mpp: float
    grid: Grid
    targets: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    context: Context
    blocks: tuple[Block, ...]
    folder: Path

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """Those that a tile of the plan reaches, in reading order."""
        return tuple(window for window in self.grid.windows() if self.blocks_of(window, within=window.core))

    @cached_property
    def _by_place(self) -> dict[tuple[int, int], Block]:
        return {(block.column, block.row): block for block in self.blocks}

    def blocks_of(self, window: Window, within: Box | None = None) -> tuple[Block, ...]:
        """Planned blocks whose tiles reach the window's view (or another box), in reading order."""
        box = grown(within or view_of(window, self.grid.box), self.grid.margin_px)
        side = self.grid.block_px
        places = (
            (column, row)
            for row in range(box.y0 // side, -(-box.y1 // side))
            for column in range(box.x0 // side, -(-box.x1 // side))
        )
        return tuple(self._by_place[place] for place in places if place in self._by_place)

    @property
    def block_folder(self) -> Path:
        return self.folder / "blocks"

    @property
    def window_folder(self) -> Path:
        return self.folder / "windows"

    def block_file(self, block: Block) -> Path:
        return self.block_folder / f"{block.name}.maps"

    def files(self, window: Window) -> WindowFiles:
        return WindowFiles(self.window_folder / window.name)


@dataclass(frozen=True)
class Plan:
    """Everything that decides the result of a run."""

    source: ImageSource
    model: Segmenter
    scale: Scale
    region: Box
    tissue: Tissue
    tissue_file: Path
    layers: tuple[Layer, ...]

    def block_spec(self, layer: Layer, block: Block) -> BlockSpec:
        return BlockSpec(
            image=str(self.source.path or ""),
            image_name=self.source.name,
            image_sha256=self.source.sha256,
            model=self.model.card.name,
            weights_sha256=self.model.weights_sha256,
            prompts=layer.prompts,
            context=layer.context,
            step=layer.grid.step,
            block=block,
            out=str(layer.block_file(block)),
        )

    def window_spec(self, layer: Layer, window: Window) -> WindowSpec:
        return WindowSpec(
            image=str(self.source.path or ""),
            image_name=self.source.name,
            image_sha256=self.source.sha256,
            model=self.model.card.name,
            weights_sha256=self.model.weights_sha256,
            prompts=layer.prompts,
            context=layer.context,
            step=layer.grid.step,
            model_mpp=layer.model_mpp,
            mpp=self.scale.mpp if self.scale.known else None,
            region=layer.grid.box,
            window=window,
            blocks=layer.blocks_of(window),
            block_folder=str(layer.block_folder),
            tissue=str(self.tissue_file),
            out=str(layer.window_folder / window.name),
        )


def plan_layers(
    source: ImageSource,
    model: Segmenter,
    region: Box,
    scale: Scale,
    asked: Sequence[Wanted],
    settings: SlideSettings,
    tissue: Tissue,
    folder: Path,
) -> tuple[Layer, ...]:
    """One layer per scale, the coarsest first: it is done soonest."""
    layers = []
    for model_mpp in sorted({each.capability.mpp for each in asked}, reverse=True):
        grid = Grid.over(region, scale.mpp, model_mpp, model, settings.tile_px, settings.window_px)
        targets = tuple(index for index, each in enumerate(asked) if each.capability.mpp == model_mpp)
        blocks = []
        for block in grid.blocks():
            core = intersection(block.core, grid.box)
            if core is not None and tissue.reaches(grid.full(core, source.width, source.height)):
                blocks.append(block)
        name = f"{model_mpp:g}um"
        layers.append(
            Layer(
                name=name,
                model_mpp=model_mpp,
                grid=grid,
                targets=targets,
                prompts=tuple(asked[index].prompt for index in targets),
                context=model.prepare(sample(source, tissue, grid.step)),
                blocks=tuple(blocks),
                folder=folder / name,
            )
        )
    return tuple(layers)
