"""The one rule that tells tissue from glass, on a small view of the whole image, and a sample of tissue at a model's scale.

Blocks of work, areas of tissue and densities per tissue all come from ``Tissue.of``. Models judge stain and scale of a
slide from the sample, not from a view of mostly glass.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import UnreadableImageError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB
from tissuetalk.tools.answers.results import SegmentResult

BRIGHT_OD = 0.08
"""Mean optical density below which a pixel counts as glass."""
VIEW_PX = 2048
"""Longest side of the view on which tissue is told from glass."""
BESIDE_PX = 4
"""Pixels of the view beside tissue that are worked on too."""
LEAST_PX = 12
"""Parts smaller than this in the view are dust."""
SAMPLE_PX, SAMPLES = 256, 16
RULE = (
    f"mean optical density above {BRIGHT_OD:g} on a view of at most {VIEW_PX} px, "
    f"parts of at least {LEAST_PX} px of that view"
)
_DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)
"""Optical density of an 8-bit value; 1 is added so that black has one."""


def tissue_mask(view: RGB) -> NDArray[np.bool_]:
    """[H, W] where there is more than glass: optical density, meant over the channels and 5 x 5 px of [H, W, 3]."""
    density = cv2.transform(cv2.LUT(view, _DENSITY), np.full((1, 3), 1 / 3, np.float32))
    return np.asarray(cv2.blur(density, (5, 5)) > BRIGHT_OD, bool)


@dataclass(frozen=True)
class Tissue:
    """[h, w] bool over the whole slide; ``step_x``, ``step_y``: full-resolution pixels per pixel of it.

    near: the mask and what lies beside it, where a nucleus in pale tissue may be; work is done there.
    """

    mask: NDArray[np.bool_]
    step_x: float
    step_y: float

    @cached_property
    def near(self) -> NDArray[np.bool_]:
        kernel = np.ones((2 * BESIDE_PX + 1, 2 * BESIDE_PX + 1), np.uint8)
        return np.asarray(cv2.dilate(self.mask.astype(np.uint8), kernel), bool)

    @classmethod
    def of(cls, source: ImageSource) -> Tissue:
        """Look at the whole slide. Raises UnreadableImageError where its small levels are damaged."""
        view = source.overview(VIEW_PX)
        found = tissue_mask(view)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
        large = stats[:, cv2.CC_STAT_AREA] >= LEAST_PX
        large[0] = False
        height, width = found.shape
        return cls(np.asarray(large[parts], bool), source.width / width, source.height / height)

    def reaches(self, box: Box) -> bool:
        """Whether there is tissue in or beside a full-resolution box."""
        height, width = self.mask.shape
        x0, y0 = min(int(box.x0 / self.step_x), width - 1), min(int(box.y0 / self.step_y), height - 1)
        x1, y1 = int(np.ceil(box.x1 / self.step_x)), int(np.ceil(box.y1 / self.step_y))
        return bool(self.near[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].any())

    def picture(self, region: Box) -> NDArray[np.bool_]:
        """[h, w] over exactly the region, at about the view's scale or finer."""
        width = max(1, min(region.width, VIEW_PX, round(region.width / self.step_x) or 1))
        height = max(1, min(region.height, VIEW_PX, round(region.height / self.step_y) or 1))
        return self._at(
            self.mask,
            region.x0 + (np.arange(width) + 0.5) * region.width / width,
            region.y0 + (np.arange(height) + 0.5) * region.height / height,
        )

    def near_at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[len(y), len(x)]: whether full-resolution places are tissue or beside it."""
        return self._at(self.near, x, y)

    def _at(
        self, mask: NDArray[np.bool_], x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        height, width = mask.shape
        columns = np.clip((x / self.step_x).astype(np.int64), 0, width - 1)
        rows = np.clip((y / self.step_y).astype(np.int64), 0, height - 1)
        return mask[np.ix_(rows, columns)]


def sample(source: ImageSource, tissue: Tissue, step: float) -> RGB:
    """A square of up to 16 views of tissue, 256 px each at ``step`` full-resolution pixels a pixel, side by side.

    The same slide and step give the same sample, whatever region is asked about. Without tissue: the slide's overview.
    """
    side = SAMPLE_PX * step
    places = _places(tissue, side)
    if not places:
        return source.overview()
    across = int(np.ceil(np.sqrt(min(len(places), SAMPLES))))
    chosen = [places[number * len(places) // across**2] for number in range(across**2)]
    views = [view for place in dict.fromkeys(chosen) if (view := _readable(source, place, step)) is not None]
    if not views:
        return source.overview()
    out = np.empty((across * SAMPLE_PX, across * SAMPLE_PX, 3), np.uint8)
    for number in range(across**2):
        top, left = (at * SAMPLE_PX for at in divmod(number, across))
        out[top : top + SAMPLE_PX, left : left + SAMPLE_PX] = views[number % len(views)]
    return out


def _readable(source: ImageSource, place: tuple[float, float], step: float) -> RGB | None:
    """One square of the sample; None where the slide is damaged, which is said when its block is worked on."""
    try:
        return source.read_grid((place[0], step), (place[1], step), width=SAMPLE_PX, height=SAMPLE_PX)
    except UnreadableImageError:
        return None


def _places(tissue: Tissue, side: float) -> list[tuple[float, float]]:
    """Corners of squares of ``side`` full-resolution pixels that are mostly tissue, row by row; else the fullest one."""
    height, width = tissue.mask.shape
    rows, columns = max(1, round(height * tissue.step_y / side)), max(1, round(width * tissue.step_x / side))
    rows, columns = min(rows, height), min(columns, width)
    share = cv2.resize(tissue.mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    if not share.any():
        return []
    chosen = np.argwhere(share >= min(0.6, float(share.max())))
    full_height, full_width = height * tissue.step_y, width * tissue.step_x
    return [
        (
            min(max((column + 0.5) * full_width / columns - side / 2, 0), max(full_width - side, 0)),
            min(max((row + 0.5) * full_height / rows - side / 2, 0), max(full_height - side, 0)),
        )
        for row, column in chosen.tolist()
    ]


def tissue_mm2(folder: Path, result: SegmentResult, source: ImageSource) -> float | None:
    """Of the segmented region: what a slide's run has written down, else counted; None where the scale is not known."""
    image = result.image
    mpp = image.known_mpp
    if mpp is None:
        return None
    about = folder / "slide" / "slide.json"
    if about.is_file():
        written = json.loads(about.read_text("utf-8"))["tissue_area_mm2"]
        return None if written is None else float(written)
    region = Box.from_sequence(image.region)
    share = float(Tissue.of(source).picture(region).mean())
    return share * region.width * region.height * mpp**2 / 1e6
