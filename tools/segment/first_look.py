"""Something to say within seconds: a first look at a sample of the tissue, then what finished windows add to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import UnreadableImageError
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.answers.explained import EarlyFinding, Preliminary
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.rasters import SAMPLE_PX, SAMPLES, tissue_mask
from tissuetalk.tools.segment.engine import Plan, ScaleLayer
from tissuetalk.tools.segment.grid import Window
from tissuetalk.tools.segment.objects import SHOWN_SHARE
from tissuetalk.tools.segment.request import Wanted, name_of
from tissuetalk.tools.segment.stitching import WindowStore

AGAIN_AFTER_S, SELDOM = 5.0, 50
COARSEST = 8.0
"""A view of the whole region is judged too where it is at most this much coarser than the model's own scale."""
TISSUE_COLOUR = "#000000"
PICTURE_BYTES = 120_000
JSON_NAME, PICTURE_NAME = "preliminary.json", "preliminary.jpg"


@dataclass(frozen=True)
class _Estimate:
    presence: float
    share: float | None
    per_mm2: float | None


class FirstLook:
    """Keeps ``preliminary.json`` and ``preliminary.jpg`` in the folder of a run up to date."""

    def __init__(self, plan: Plan, asked: Sequence[Wanted], folder: Path) -> None:
        self._plan, self._asked, self._folder = plan, asked, folder
        width, height = drawing.picture_size(plan.field.region)
        self._marked = [np.zeros((height, width), bool) for _ in asked]
        self._coarse = list[str]()
        self._counts = [0] * len(asked)
        self._areas_px = [0.0] * len(asked)
        self._estimates = [_Estimate(0.0, None, None)] * len(asked)
        self._background: NDArray[np.uint8] | None = None
        self._next = 0.0

    def take(self) -> None:
        """Look, as far as the slide can be read: what is damaged is said when its block is worked on."""
        with suppress(UnreadableImageError):
            self._ask()
        with suppress(UnreadableImageError):
            self.write(0.0)

    def _ask(self) -> None:
        """Ask the model about a sample of the tissue, and about the whole region where its scale allows."""
        for layer in self._plan.layers:
            if not layer.blocks:
                continue
            field, task = self._plan.field, layer.task
            pixels = field.sample(layer.grid.step)
            answers = field.model.decode(field.model.encode(pixels, task.context), task.prompts)
            for index, prompt, maps in zip(layer.targets, task.prompts, answers, strict=True):
                finished = field.model.finish(maps, prompt, task.context)
                objects = finished.instances if self._asked[index].capability.objects else None
                self._estimates[index] = _estimate(
                    pixels, finished.mask, objects, finished.presence, layer.model_mpp
                )
            self._view(layer)

    def _view(self, layer: ScaleLayer) -> None:
        """The region in one picture of the model's tile size, if that is not too coarse to mean anything."""
        field, task = self._plan.field, layer.task
        region, side = field.region, layer.grid.tile_px
        step = max(region.width, region.height) / side
        if not layer.grid.step < step <= COARSEST * layer.grid.step:
            return
        width, height = max(1, round(region.width / step)), max(1, round(region.height / step))
        pixels = field.source.read_region(region, width=width, height=height)
        answers = field.model.decode(field.model.encode(pixels, task.context), task.prompts)
        for index, maps in zip(layer.targets, answers, strict=True):
            size = (self._marked[index].shape[1], self._marked[index].shape[0])
            self._marked[index] |= cv2.resize(maps.logits, size, interpolation=cv2.INTER_LINEAR) > 0
            self._coarse.append(
                f"{self._asked[index].capability.target} at {step * field.scale.mpp:.2g} instead of "
                f"{layer.model_mpp:g} µm/px"
            )

    def add(self, layer: ScaleLayer, window: Window, done_share: float) -> None:
        """Count a finished window in; written at most every few seconds."""
        files = self._plan.files(layer, window)
        for position, (index, summary) in enumerate(zip(layer.targets, files.read_summaries(), strict=True)):
            self._counts[index] += summary.small + summary.large
            self._areas_px[index] += float(summary.areas.sum())
            old = self._estimates[index]
            question = layer.question(self._plan.field.model, position)
            presence = max(old.presence, summary.evidence.presence(question))
            self._estimates[index] = _Estimate(presence, old.share, old.per_mm2)
            self._paint(layer, window, position, index)
        if time.monotonic() > self._next:
            with suppress(UnreadableImageError):
                self.write(done_share)

    def _paint(self, layer: ScaleLayer, window: Window, position: int, index: int) -> None:
        store = WindowStore(self._plan.folder(layer, "windows"), layer.grid, [window], position)
        at = (window.column, window.row)
        core = store.labels(at)[window.full.inside(store.frame(at))] > 0
        marked, region = self._marked[index], self._plan.field.region
        across, down = marked.shape[1] / region.width, marked.shape[0] / region.height
        x0, x1 = (int((x - region.x0) * across) for x in (window.full.x0, window.full.x1))
        y0, y1 = (int((y - region.y0) * down) for y in (window.full.y0, window.full.y1))
        if x1 > x0 and y1 > y0:
            share = cv2.resize(core.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
            marked[y0:y1, x0:x1] = share > SHOWN_SHARE

    def write(self, done_share: float) -> None:
        """The two files; the next time is so far off that writing takes little of the run."""
        started, field = time.monotonic(), self._plan.field
        picture = field.tissue.picture(field.region)
        area = float(picture.mean()) * field.region.width * field.region.height * field.scale.mpp**2 / 1e6
        caveat = (
            f"preliminary: estimates come from at most {SAMPLES} places of {SAMPLE_PX} px in the tissue, counts from the "
            "parts that are finished, where objects on seams are not joined yet; wait for the result before you quote it"
        )
        if self._coarse and not done_share:
            caveat += f"; the outlines were judged on a coarse view ({', '.join(self._coarse)})"
        early = Preliminary(
            tissue_area_mm2=area if field.scale.known else None,
            done_share=min(max(done_share, 0.0), 1.0),
            findings=[self._finding(index) for index in range(len(self._asked))],
            caveat=caveat,
        )
        write_whole(self._folder / PICTURE_NAME, self._picture(picture))
        write_whole(self._folder / JSON_NAME, early.model_dump_json(indent=1).encode())
        took = time.monotonic() - started
        self._next = started + max(AGAIN_AFTER_S, took * SELDOM)

    def _finding(self, index: int) -> EarlyFinding:
        each, guess = self._asked[index], self._estimates[index]
        parts = [f"presence {guess.presence:.2f}"]
        if guess.share is not None:
            parts.append(f"about {guess.share:.0%} of the tissue")
        if guess.per_mm2 is not None and self._plan.field.scale.known:
            parts.append(f"about {guess.per_mm2:,.0f} per mm² of tissue")
        if self._counts[index]:
            parts.append(f"{self._counts[index]:,} found so far")
        return EarlyFinding(
            name=name_of(each.target),
            presence=round(min(max(guess.presence, 0.0), 1.0), 4),
            estimated_tissue_share=guess.share,
            estimated_per_mm2=guess.per_mm2 if self._plan.field.scale.known else None,
            count_so_far=self._counts[index] if each.capability.objects else None,
            area_px_so_far=round(self._areas_px[index]),
            statement=", ".join(parts),
        )

    def _picture(self, tissue: NDArray[np.bool_]) -> bytes:
        if self._background is None:
            self._background = drawing.pixels_of(self._plan.field.source, self._plan.field.region)
        layers = [drawing.DrawnMask(tissue.astype(np.int32), TISSUE_COLOUR, "tissue")]
        for index, (each, marked) in enumerate(zip(self._asked, self._marked, strict=True)):
            caption = f"{name_of(each.target)}, so far"
            layers.append(drawing.DrawnMask(marked.astype(np.int32), drawing.colour_of(index), caption))
        mpp = self._plan.field.scale.known_mpp
        return drawing.as_jpeg_within(
            drawing.draw(self._background, self._plan.field.region, layers=layers, mpp=mpp), PICTURE_BYTES
        )


def _estimate(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    objects: NDArray[np.int32] | None,
    presence: float,
    model_mpp: float,
) -> _Estimate:
    """From a mosaic of squares. Objects on the top or left edge of a square are not counted, as in a counting frame."""
    tissue = tissue_mask(pixels)
    tissue_px = int(np.count_nonzero(tissue))
    if not tissue_px:
        return _Estimate(presence, None, None)
    share = float(np.count_nonzero(mask & tissue)) / tissue_px
    if objects is None or not objects.any():
        return _Estimate(presence, share, 0.0 if objects is not None else None)
    numbers, areas = np.unique(objects[objects > 0], return_counts=True)
    if float(areas.mean()) > (SAMPLE_PX / 4) ** 2:
        return _Estimate(presence, share, None)
    cut = np.union1d(objects[::SAMPLE_PX].ravel(), objects[:, ::SAMPLE_PX].ravel())
    counted = int(np.count_nonzero(~np.isin(numbers, cut)))
    return _Estimate(presence, share, counted / (tissue_px * model_mpp**2 / 1e6))
