"""Where to look on a slide: tissue by CLAM's rules, cut into patches that are read only when asked for.

Rules: Lu et al., Nat. Biomed. Eng. 2021 (CLAM); the thresholds are those of its public code. Ours: one grid for all tissue, so
that patches never overlap; a patch lies wholly in the image; small images need proportionally less tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB

PATCH_PX, PATCH_UM = 1024, 256.0
"""A patch's side: 1024 px at full resolution, which at 0.25 µm per pixel is 256 µm."""
PatchUm = Annotated[float, Field(ge=8, le=4096)]
PatchPx = Annotated[int, Field(ge=32, le=16384)]
"""Sides that a card or a recipe may name: some cells to a field of view."""
MOST_PATCHES = 500_000
"""On the grid over one image; a whole slide has some thousands."""
LEAST_PATCHES = 10
"""Slides of a cohort with fewer patches are left out of training."""
_UNIT_PX = 512
_DOWNSAMPLE = 64.0
_LEAST_VIEW_PX = 256
"""The tissue view of a small image is reduced less, so that its shorter side keeps about this many pixels."""


@dataclass(frozen=True)
class TissueRules:
    """Areas are in units of 512 x 512 full-resolution pixels, as in CLAM.

    least_share: a contour this large a share of the image counts however small the image is.
    """

    saturation: int = 8
    median_px: int = 7
    closing_px: int = 4
    least_tissue: float = 100.0
    least_hole: float = 16.0
    most_holes: int = 8
    least_share: float = 0.005


TCGA = TissueRules(least_tissue=16.0, least_hole=4.0)
"""CLAM's preset for TCGA slides."""


@dataclass(frozen=True)
class TissueOutline:
    """outline, holes: [h, w] bool; a hole is the part of an outline that is none. downsample: full-resolution px per px."""

    outline: NDArray[np.bool_]
    holes: NDArray[np.bool_]
    downsample: float

    def box(self) -> Box | None:
        """What all tissue lies in, in full-resolution pixels; None without tissue."""
        rows, columns = np.nonzero(self.outline.any(1))[0], np.nonzero(self.outline.any(0))[0]
        if not rows.size:
            return None
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        return Box(*(int(edge * self.downsample) for edge in edges))

    def holds(self, box: Box) -> bool:
        """CLAM's four-point test: a point half way between centre and border is tissue, and the centre is no hole."""
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        dx, dy = box.width / 4, box.height / 4
        corners = ((x + sx * dx, y + sy * dy) for sx in (-1, 1) for sy in (-1, 1))
        return not self._at(self.holes, x, y) and any(self._at(self.outline, *point) for point in corners)

    def _at(self, where: NDArray[np.bool_], x: float, y: float) -> bool:
        row, column = int(y / self.downsample), int(x / self.downsample)
        # a patch may reach over the last pixel of the reduced view
        return row < where.shape[0] and column < where.shape[1] and bool(where[row, column])


def find_tissue(source: ImageSource, rules: TissueRules = TissueRules()) -> TissueOutline:
    """Saturated parts of a view reduced 64 times (less for small images), without specks and with large holes cut out."""
    reduction = min(_DOWNSAMPLE, max(1.0, min(source.width, source.height) / _LEAST_VIEW_PX))
    view = source.read_scaled(source.box, 1 / reduction)
    mask = stained(view, rules)
    # two levels: outlines, and holes whose last entry in the tree names their outline
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outline, holes = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, np.uint8)
    unit = (_UNIT_PX / reduction) ** 2
    # CLAM's threshold is made for whole slides; on a small image a share of its area counts
    least = min(rules.least_tissue * unit, rules.least_share * mask.size)
    for index, (_, _, _, parent) in enumerate(tree[0] if tree is not None else ()):
        if parent != -1:
            continue
        inside = [contours[i] for i in range(len(contours)) if tree[0][i][3] == index]
        area = cv2.contourArea(contours[index]) - sum(cv2.contourArea(hole) for hole in inside)
        if area <= least:
            continue
        cv2.drawContours(outline, contours, index, 1, cv2.FILLED)
        largest = sorted(inside, key=cv2.contourArea, reverse=True)[: rules.most_holes]
        kept = [hole for hole in largest if cv2.contourArea(hole) > rules.least_hole * unit]
        cv2.drawContours(holes, kept, -1, 1, cv2.FILLED)
    return TissueOutline(outline > 0, holes > 0, source.width / mask.shape[1])


def stained(view: RGB, rules: TissueRules = TissueRules()) -> NDArray[np.bool_]:
    """[H, W] where a picture is saturated enough to be tissue: median filter, threshold, closing."""
    saturation = cv2.cvtColor(view, cv2.COLOR_RGB2HSV)[..., 1]
    smooth = cv2.medianBlur(saturation, rules.median_px)
    mask = (smooth > rules.saturation).astype(np.uint8)
    kernel = np.ones((rules.closing_px, rules.closing_px), np.uint8)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel) > 0)


def patch_side_px(mpp: float | None, *, patch_um: float = PATCH_UM, patch_px: int = PATCH_PX) -> int:
    """Side of a patch in full-resolution pixels: as many µm on every scanner, or ``patch_px`` where nobody knows the scale."""
    return patch_px if mpp is None else max(1, round(patch_um / mpp))


def patch_boxes(
    source: ImageSource, *, side_px: int, rules: TissueRules = TissueRules(), region: Box | None = None
) -> list[Box]:
    """Patches that hold tissue, row by row; nothing but the reduced view is read.

    region: only patches inside it. An image can have no patch at all: see ``require_patches``.
    """
    tissue = find_tissue(source, rules)
    around = tissue.box()
    if around is None:
        return []
    limits = (region or source.box).clipped_to(source.width, source.height)
    xs = _starts(max(around.x0, limits.x0), min(around.x1, limits.x1), limits.x1, side_px)
    ys = _starts(max(around.y0, limits.y0), min(around.y1, limits.y1), limits.y1, side_px)
    if len(xs) * len(ys) > MOST_PATCHES:
        raise InvalidArgumentError(
            f"{source.name} would be cut into {len(xs) * len(ys)} patches of {side_px} px; give the real µm per pixel, a smaller "
            "region, or larger patches."
        )
    grid = [Box(x, y, x + side_px, y + side_px) for y in ys for x in xs]
    return [box for box in grid if box.x0 >= limits.x0 and box.y0 >= limits.y0 and tissue.holds(box)]


def _starts(first: int, last: int, limit: int, side: int) -> list[int]:
    """Where patches begin along one axis; the grid moves back where its last patch would leave the image by a little."""
    count = -((first - last) // side)
    overhang = first + count * side - limit
    if overhang > 0:
        count, first = (count, first - overhang) if overhang <= first else (count - 1, first)
    return [first + step * side for step in range(max(0, count))]


def require_patches(boxes: list[Box], source: ImageSource, side_px: int, least: int = 2) -> list[Box]:
    """The boxes, or InvalidArgumentError when there are too few to call it a bag of patches."""
    if len(boxes) < least:
        raise InvalidArgumentError(
            f"{source.name} ({source.width} by {source.height} px) gives {len(boxes)} patches of {side_px} px with tissue; "
            f"a slide classifier needs at least {least}: give a larger image or region, or its real µm per pixel."
        )
    return boxes
