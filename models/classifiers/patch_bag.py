"""A bag of patches and the objects in them, whether cut from an image or drawn in memory. Pixels are read when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.classifiers.patches import PATCH_UM
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB

Mask = NDArray[np.bool_]
WORK_PX = 1024
"""Patches are read at no more than this side."""


class PatchBag(Protocol):
    """What a slide classifier sees."""

    @property
    def name(self) -> str: ...

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects somebody segmented, found or not."""
        ...

    def __len__(self) -> int: ...

    def pixels(self, index: int) -> RGB:
        """[S, S, 3] of one patch."""
        ...

    def mask(self, index: int, name: str) -> Mask | None:
        """[S, S] where the object is in the patch, or None where it does not touch it."""
        ...


@dataclass(frozen=True)
class ObjectMask:
    """One object type on an image. mask: [h, w] bool, any resolution, covering ``box`` in full-resolution pixels."""

    name: str
    mask: Mask
    box: Box

    def within(self, box: Box, side: int) -> Mask | None:
        """[side, side] of the mask over a box, or None where it is empty."""
        down_x, down_y = self.box.width / self.mask.shape[1], self.box.height / self.mask.shape[0]
        columns = ((box.x0 + (np.arange(side) + 0.5) * box.width / side - self.box.x0) / down_x).astype(int)
        rows = ((box.y0 + (np.arange(side) + 0.5) * box.height / side - self.box.y0) / down_y).astype(int)
        known_x = (
            (columns >= 0) & (columns < self.mask.shape[1]) & _after(box.x0, box.width, side, self.box.x0)
        )
        known_y = (rows >= 0) & (rows < self.mask.shape[0]) & _after(box.y0, box.height, side, self.box.y0)
        found = np.zeros((side, side), bool)
        found[np.ix_(known_y, known_x)] = self.mask[np.ix_(rows[known_y], columns[known_x])]
        return found if found.any() else None


def _after(start: int, length: int, side: int, edge: int) -> Mask:
    """Which of ``side`` samples lie right of an edge; truncation alone would pull samples just left of it inside."""
    return np.asarray(start + (np.arange(side) + 0.5) * length / side >= edge)


class SourceBag:
    """Patches of one open image, with masks of the objects segmented on it."""

    def __init__(
        self,
        source: ImageSource,
        boxes: Sequence[Box],
        masks: Sequence[ObjectMask] = (),
        *,
        patch_um: float = PATCH_UM,
    ) -> None:
        self.name = source.name
        self.patch_um = patch_um
        self.boxes = tuple(boxes)
        self.objects = tuple(mask.name for mask in masks)
        if len(set(self.objects)) < len(self.objects):
            raise InvalidArgumentError(
                f"two masks have the same name among {', '.join(self.objects)}; merge them."
            )
        self._source = source
        self._masks = {mask.name: mask for mask in masks}

    def __len__(self) -> int:
        return len(self.boxes)

    def side(self, index: int) -> int:
        """Pixels along one side of a patch as it is read."""
        return min(WORK_PX, self.boxes[index].width)

    def pixels(self, index: int) -> RGB:
        side = self.side(index)
        return self._source.read_region(self.boxes[index], width=side, height=side)

    def mask(self, index: int, name: str) -> Mask | None:
        return self._masks[name].within(self.boxes[index], self.side(index))


@dataclass(frozen=True)
class Patch:
    """One patch in memory. pixels: [S, S, 3]. masks: object name to [S, S] bool; an object that is not there has no entry.

    group: patient, slide or field it comes from. width_um: what one side of it spans.
    """

    pixels: RGB
    masks: Mapping[str, Mask] = field(default_factory=dict)
    group: str = ""
    name: str = ""
    width_um: float = PATCH_UM


@dataclass(frozen=True)
class DrawnBag:
    """Patches in memory with a known label. evidence: indices of the patches that carry it; planted: the object that does."""

    name: str
    patches: tuple[Patch, ...]
    objects: tuple[str, ...]
    label: int
    planted: str | None = None
    evidence: tuple[int, ...] = ()

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(patch.group for patch in self.patches)

    def __len__(self) -> int:
        return len(self.patches)

    def pixels(self, index: int) -> RGB:
        return self.patches[index].pixels

    def mask(self, index: int, name: str) -> Mask | None:
        found = self.patches[index].masks.get(name)
        return found if found is not None and found.any() else None


def width_um(bag: PatchBag, index: int) -> float:
    """What one side of a patch spans; a bag that does not say has patches of the usual size."""
    if isinstance(bag, DrawnBag):
        return bag.patches[index].width_um
    return bag.patch_um if isinstance(bag, SourceBag) else PATCH_UM


def resized_patch(patch: RGB, side: int) -> RGB:
    """[side, side, 3]: area average when shrinking, bilinear when enlarging."""
    if patch.shape[:2] == (side, side):
        return patch
    method = cv2.INTER_AREA if patch.shape[0] > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(patch, (side, side), interpolation=method), np.uint8)
