"""Objects of one window, decided on the blended maps of all blocks it sees. Pure and idempotent, like a block."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models import registry
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.masks.outlines import polygons
from tissuetalk.models.segmenter import Context, Prompt, Segmenter
from tissuetalk.tools.masks.tissue import Tissue
from tissuetalk.tools.segment import rows
from tissuetalk.tools.segment.blocks import opened
from tissuetalk.tools.segment.cutting import Cut, connected, cut, view_of
from tissuetalk.tools.segment.grid import Block, Window, inside, intersection
from tissuetalk.tools.segment.maps import BlockMaps, blend, read_maps, write_file
from tissuetalk.tools.segment.memory import give_back

GLASS_PX = 64
"""How much of the view beyond all tiles is looked at: more than any smoothing reaches, and than the largest hole filled."""

Numbers = NDArray[np.uint16] | NDArray[np.int32]
"""[H, W] of one window: 1..small are whole objects, then fragments."""


@dataclass(frozen=True)
class WindowSpec:
    """What to do, as plain values.

    region: all working pixels of the run. blocks: those whose tiles reach the window's view, files in ``block_folder``.
    mpp: µm per full-resolution pixel or None. tissue: file of the tissue mask. out: path without ending of what to write.
    """

    image: str
    image_name: str
    image_sha256: str
    model: str
    weights_sha256: str
    prompts: tuple[Prompt, ...]
    context: Context
    step: float
    model_mpp: float
    mpp: float | None
    region: Box
    window: Window
    blocks: tuple[Block, ...]
    block_folder: str
    tissue: str
    out: str


@dataclass(frozen=True)
class WindowSummary:
    """What the run needs to know of a window and one prompt, besides its labels and rows."""

    presence: float
    small: int
    large: int
    areas: NDArray[np.int64]
    fragments: list[dict[str, Any]]
    seen_px: int


def run_window(spec: WindowSpec) -> str:
    """Do one window in whatever process this is and return the path of its summary, which is written last."""
    return compute(spec, registry.load(spec.model), opened(spec.image, spec.image_name, spec.image_sha256))


def compute(spec: WindowSpec, model: Segmenter, source: ImageSource) -> str:
    """Blend, finish, cut and write, prompt by prompt."""
    files = WindowFiles(Path(spec.out))
    files.out.parent.mkdir(parents=True, exist_ok=True)
    view = view_of(spec.window, spec.region)
    seen = _seen(spec, view)
    tissue = _tissue_in(spec, seen)

    @lru_cache(maxsize=len(spec.blocks) if len(spec.prompts) > 1 else 1)
    def read(block: Block) -> BlockMaps:
        return read_maps(Path(spec.block_folder) / f"{block.name}.maps")

    summaries = [
        _one_prompt(spec, index, model, source, seen, tissue, read, files)
        for index in range(len(spec.prompts))
    ]
    as_values = [{**asdict(each), "areas": each.areas.tolist()} for each in summaries]
    write_file(files.summary, json.dumps(as_values).encode())
    give_back()
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

    def outlines(self, prompt: int) -> Path:
        """WKB of the fragments, in working pixels."""
        return self.out.with_name(f"{self.out.name}.{prompt}.wkb")

    def read_summaries(self) -> list[WindowSummary]:
        stored = json.loads(self.summary.read_bytes())
        return [WindowSummary(**{**each, "areas": np.array(each["areas"], np.int64)}) for each in stored]

    def write_labels(self, prompt: int, labels: NDArray[np.int32]) -> None:
        """In two bytes a pixel where the numbers allow, as they nearly always do."""
        narrow = int(labels.max(initial=0)) <= np.iinfo(np.uint16).max
        raw = labels.astype(np.uint16 if narrow else np.int32)
        write_file(self.labels(prompt), bytes(imagecodecs.zstd_encode(raw.tobytes(), level=1)))

    def read_labels(self, prompt: int, shape: tuple[int, int]) -> Numbers:
        raw = imagecodecs.zstd_decode(self.labels(prompt).read_bytes())
        if len(raw) == 2 * shape[0] * shape[1]:
            return np.frombuffer(raw, np.uint16).reshape(shape)
        return np.frombuffer(raw, np.int32).reshape(shape)

    def read_outlines(self, prompt: int) -> list[shapely.Geometry]:
        lines = self.outlines(prompt).read_text("ascii").split()
        return [shapely.from_wkb(line) for line in lines]


def _one_prompt(
    spec: WindowSpec,
    index: int,
    model: Segmenter,
    source: ImageSource,
    seen: Box,
    tissue: NDArray[np.bool_],
    read: Any,
    files: WindowFiles,
) -> WindowSummary:
    blended = blend(seen, spec.blocks, read, index)
    labels = np.zeros((seen.height, seen.width), np.int32)
    presence = 0.0
    if blended is not None:
        finished = model.finish(blended[0], spec.prompts[index], spec.context)
        labels = connected(finished.mask) if finished.instances is None else finished.instances
        presence = float(finished.presence)
    found = cut(labels, seen, spec.window, spec.region, tissue)
    core = intersection(spec.window.core, seen)
    _write(spec, index, found, source, files)
    return WindowSummary(
        presence=presence,
        small=found.small,
        large=found.large,
        areas=found.areas,
        fragments=[{**asdict(each), "box": each.box.as_list()} for each in found.fragments],
        seen_px=0 if core is None else int(np.count_nonzero(labels[inside(core, seen)])),
    )


def _write(spec: WindowSpec, index: int, found: Cut, source: ImageSource, files: WindowFiles) -> None:
    files.write_labels(index, found.labels)
    shapes = []
    if found.large:
        core = found.labels[inside(spec.window.core, found.frame)]
        pieces = np.where(core > found.small, core - found.small, 0).astype(np.int32)
        shapes = [shape for _, shape in polygons(pieces, (spec.window.core.x0, spec.window.core.y0))]
    write_file(
        files.outlines(index), "\n".join(shapely.to_wkb(shape, hex=True) for shape in shapes).encode("ascii")
    )
    columns = {field.name: np.zeros(0) for field in rows.schema(spec.mpp is not None)}
    outlines: list[bytes] = []
    if found.small:
        box, whole = _whole(found)
        x, y = (box.x0 * spec.step, spec.step), (box.y0 * spec.step, spec.step)
        rgb = source.read_grid(x, y, width=box.width, height=box.height)
        columns = rows.columns_of(whole, rgb, box, spec.region, spec.step, spec.mpp)
        outlines = rows.outlines_of(whole, box, spec.step)
    table = rows.as_table(
        np.arange(1, found.small + 1),
        _blocks_of(found.anchors, spec),
        outlines,
        columns,
        spec.mpp is not None,
    )
    rows.write_rows(files.rows(index), table)


def _whole(found: Cut) -> tuple[Box, NDArray[np.int32]]:
    """The smallest box around all whole objects, and their numbers in it."""
    marked = (found.labels > 0) & (found.labels <= found.small)
    down, across = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    x0, y0 = found.frame.x0, found.frame.y0
    box = Box(x0 + int(across[0]), y0 + int(down[0]), x0 + int(across[-1]) + 1, y0 + int(down[-1]) + 1)
    at = inside(box, found.frame)
    return box, np.where(marked[at], found.labels[at], 0)


def _seen(spec: WindowSpec, view: Box) -> Box:
    """The part of the view that tiles reach, with as much glass around as keeps every answer the same.

    It starts at an even place of the view, so that halving the maps pairs the same pixels.
    """
    tiles = [tile for block in spec.blocks if (tile := intersection(block.tile, view)) is not None]
    if not tiles:
        return Box(view.x0, view.y0, view.x0 + 2, view.y0 + 2)
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
    return intersection(seen, view) or view


def _blocks_of(anchors: NDArray[np.int64], spec: WindowSpec) -> list[str]:
    """The block that holds the first pixel of each object."""
    side = spec.blocks[0].side
    return [f"{spec.model_mpp:g}:{x // side}_{y // side}" for x, y in anchors.tolist()]


@lru_cache(maxsize=4)
def load_tissue(path: str) -> Tissue:
    with np.load(path) as stored:
        return Tissue(stored["mask"], float(stored["step_x"]), float(stored["step_y"]))


def save_tissue(path: Path, tissue: Tissue) -> None:
    part = path.with_name("part-" + path.name)
    np.savez(part, mask=tissue.mask, step_x=tissue.step_x, step_y=tissue.step_y)
    part.replace(path)


def _tissue_in(spec: WindowSpec, view: Box) -> NDArray[np.bool_]:
    x, y = (
        (start + np.arange(count, dtype=np.float64) + 0.5) * spec.step
        for start, count in ((view.x0, view.width), (view.y0, view.height))
    )
    return load_tissue(spec.tissue).near_at(x, y)
