"""Objects of one window on disk, decided on the blended maps of all blocks it sees. Pure and idempotent, like a block."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.memory import give_back
from tissuetalk.models.segmenter import Capability, Segmenter
from tissuetalk.models.writing import whole_file, write_whole
from tissuetalk.tools.masks.rasters import Tissue
from tissuetalk.tools.segment.decide import (
    NOTHING,
    Cut,
    Fragment,
    Labels,
    RegionEvidence,
    ScaledPrompt,
    cut,
    decide,
    frame_of,
    tissue_in,
    view_of,
)
from tissuetalk.tools.segment.grid import Block, Grid, Window
from tissuetalk.tools.segment.objects import Measuring, no_rows, write_rows
from tissuetalk.tools.segment.tiles import ImageTask, PackedMaps, blend, opened, read_maps

GLASS_PX = 64
"""How much of the view beyond all tiles is looked at: more than any smoothing reaches, and than the largest hole filled."""

GIVE_BACK_EVERY_S = 30.0
"""What the next tile would have to fetch from the system again, page by page, after every window."""

Numbers = NDArray[np.uint16] | NDArray[np.int32]
"""[H, W] of one window: 1..small are whole objects, then fragments."""


@dataclass(frozen=True)
class WindowSpec:
    """What to do, as plain values.

    blocks: those whose tiles reach the window's view, files in ``block_folder``. capabilities: one per prompt.
    mpp: µm per full-resolution pixel or None. tissue: file of the tissue mask. out: path without ending of what to write.
    """

    task: ImageTask
    capabilities: tuple[Capability, ...]
    mpp: float | None
    grid: Grid
    window: Window
    blocks: tuple[Block, ...]
    block_folder: str
    tissue: str
    out: str


@dataclass(frozen=True)
class WindowSummary:
    """What one window says about one prompt, besides its labels and rows. first: [small, 2] x, y in working pixels."""

    small: int
    areas: NDArray[np.int64]
    first: NDArray[np.int64]
    fragments: list[Fragment]
    specks: int
    evidence: RegionEvidence

    @property
    def large(self) -> int:
        return len(self.fragments)

    @classmethod
    def of(cls, found: Cut, evidence: RegionEvidence) -> WindowSummary:
        return cls(found.small, found.areas, found.first, found.fragments, found.specks, evidence)

    def as_json(self) -> dict[str, Any]:
        stored = asdict(self)
        for values in (stored, stored["evidence"]):
            values.update(
                {name: each.tolist() for name, each in values.items() if isinstance(each, np.ndarray)}
            )
        for fragment, each in zip(stored["fragments"], self.fragments, strict=True):
            fragment["box"] = each.box.as_list()
        return stored

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> WindowSummary:
        fragments = [
            Fragment(**{**each, "box": Box(*each["box"]), "first": tuple(each["first"])})
            for each in stored["fragments"]
        ]
        evidence = stored["evidence"] | {"strongest": np.array(stored["evidence"]["strongest"], np.float32)}
        if (unsure := evidence.get("unsure")) is not None:
            evidence["unsure"] = tuple(unsure)
        return cls(
            stored["small"],
            np.array(stored["areas"], np.int64),
            np.array(stored["first"], np.int64).reshape(-1, 2),
            fragments,
            stored["specks"],
            RegionEvidence(**evidence),
        )


def run_window(spec: WindowSpec) -> str:
    """Do one window in whatever process this is and return the path of its summary, which is written last."""
    task = spec.task
    return write_window(spec, task.loaded, opened(task.image, task.image_name, task.image_sha256))


def write_window(spec: WindowSpec, model: Segmenter, source: ImageSource) -> str:
    """Blend, decide, cut and write, prompt by prompt."""
    files = WindowFiles(Path(spec.out))
    seen = _seen(spec)
    tissue = tissue_in(load_tissue(spec.tissue), seen, spec.grid.step)

    # with one prompt a block is read once; with several, all of them are kept packed until the last
    @lru_cache(maxsize=len(spec.blocks) if len(spec.task.prompts) > 1 else 1)
    def read(block: Block) -> PackedMaps:
        return read_maps(Path(spec.block_folder) / f"{block.name}.maps")

    summaries = []
    for index, (prompt, capability) in enumerate(zip(spec.task.prompts, spec.capabilities, strict=True)):
        question = ScaledPrompt(model, prompt, capability, spec.task.context)
        summaries.append(_one_prompt(spec, index, question, source, seen, tissue, read).as_json())
    write_whole(files.summary, json.dumps(summaries))
    give_back(GIVE_BACK_EVERY_S)
    return str(files.summary)


@dataclass(frozen=True)
class WindowFiles:
    """The files of one window."""

    out: Path

    @property
    def summary(self) -> Path:
        return self.out.with_name(f"{self.out.name}.json")

    def labels(self, prompt: int) -> Path:
        return self.out.with_name(f"{self.out.name}.{prompt}.labels")

    def rows(self, prompt: int) -> Path:
        """Whole objects."""
        return self.out.with_name(f"{self.out.name}.{prompt}.parquet")

    def read_summaries(self) -> list[WindowSummary]:
        return [WindowSummary.from_json(each) for each in json.loads(self.summary.read_bytes())]

    def write_labels(self, prompt: int, labels: Labels) -> None:
        """In two bytes a pixel where the numbers allow, as they nearly always do."""
        narrow = int(labels.max(initial=0)) <= np.iinfo(np.uint16).max
        raw = labels.astype(np.uint16 if narrow else np.int32)
        write_whole(self.labels(prompt), bytes(imagecodecs.zstd_encode(raw.tobytes(), level=1)))

    def read_labels(self, prompt: int, shape: tuple[int, int]) -> Numbers:
        raw = imagecodecs.zstd_decode(self.labels(prompt).read_bytes())
        if len(raw) == 2 * shape[0] * shape[1]:
            return np.frombuffer(raw, np.uint16).reshape(shape)
        return np.frombuffer(raw, np.int32).reshape(shape)


def _one_prompt(
    spec: WindowSpec,
    index: int,
    question: ScaledPrompt,
    source: ImageSource,
    seen: Box,
    tissue: NDArray[np.bool_],
    read: Callable[[Block], PackedMaps],
) -> WindowSummary:
    files, grid = WindowFiles(Path(spec.out)), spec.grid
    decided = decide(
        question, blend(seen, spec.blocks, read, index, question.capability.blends), seen, tissue
    )
    if decided is None:
        frame = frame_of(spec.window, grid)
        none = np.zeros(0, np.int64)
        found = Cut(
            frame, np.zeros((frame.height, frame.width), np.int32), 0, none, none.reshape(0, 2), [], 0
        )
    else:
        found = cut(decided, spec.window, grid)
    core = spec.window.core.intersection(seen)
    files.write_labels(index, found.labels)
    write_rows(files.rows(index), _rows(spec, found, source))
    evidence = (
        NOTHING if decided is None or core is None else decided.evidence(core, taught=question.is_taught)
    )
    return WindowSummary.of(found, evidence)


def _rows(spec: WindowSpec, found: Cut, source: ImageSource) -> Any:
    """Whole objects under the window's own numbers; those that no pixel shows have no row."""
    grid = spec.grid
    whole = np.where(found.labels <= found.small, found.labels, 0) if found.large else found.labels
    box = Box.around(whole, found.frame.x0, found.frame.y0)
    if box is None:
        return no_rows(spec.mpp)
    whole = np.ascontiguousarray(whole[box.inside(found.frame)])
    shown = np.flatnonzero(found.areas[: found.small] > 0)
    names = grid.block_names(found.first[shown, 0], found.first[shown, 1])
    blocks = [f"{grid.model_mpp:g}:{name}" for name in names]
    return Measuring(source, grid, spec.mpp).rows(whole, box, blocks)


def _seen(spec: WindowSpec) -> Box:
    """The part of the view that tiles reach, with as much glass around as keeps every answer the same.

    It starts at an even place of the view, so that halving the maps pairs the same pixels.
    """
    view = view_of(spec.window, spec.grid)
    tiles = [tile for block in spec.blocks if (tile := block.tile.intersection(view)) is not None]
    if not tiles:
        return Box(view.x0, view.y0, min(view.x0 + 2, view.x1), min(view.y0 + 2, view.y1))
    x0, y0 = (
        max(0, least - GLASS_PX) // 2 * 2
        for least in (min(tile.x0 for tile in tiles) - view.x0, min(tile.y0 for tile in tiles) - view.y0)
    )
    x1, y1 = (
        most + GLASS_PX + 1
        for most in (max(tile.x1 for tile in tiles) - view.x0, max(tile.y1 for tile in tiles) - view.y0)
    )
    width, height = (last - first + (last - first) % 2 for first, last in ((x0, x1), (y0, y1)))
    seen = Box(view.x0 + x0, view.y0 + y0, view.x0 + x0 + width, view.y0 + y0 + height)
    return seen.intersection(view) or view


@lru_cache(maxsize=4)
def load_tissue(path: str) -> Tissue:
    with np.load(path) as stored:
        return Tissue(stored["mask"], float(stored["step_x"]), float(stored["step_y"]))


def save_tissue(path: Path, tissue: Tissue) -> None:
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, mask=tissue.mask, step_x=tissue.step_x, step_y=tissue.step_y)
