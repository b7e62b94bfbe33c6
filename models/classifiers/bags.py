"""A bag of patches and the objects in them. Pixels are read, and objects segmented, when somebody asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.classifiers.patches import PATCH_UM
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmentation.pretrained import resized
from tissuetalk.models.segmenter import RGB, Prompt, Segmenter

Mask = NDArray[np.bool_]
WORK_PX = 1024
"""Patches are read at no more than this side."""
PRESENT = 0.5
"""Probability from which an object counts as found in a patch."""
_REMEMBERED = 256
"""Patches whose masks are kept; a larger slide is segmented again for the next object, which costs time but no memory."""


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

    def width_um(self, index: int) -> float:
        """What one side of a patch spans."""
        ...


@dataclass(frozen=True)
class ObjectMask:
    """One object type on an image. mask: [h, w] bool, any resolution, covering ``box`` in full-resolution pixels."""

    name: str
    mask: Mask
    box: Box

    def within(self, box: Box, side: int) -> Mask | None:
        """[side, side] of the mask over a box, or None where it is empty."""
        # the mask pixel under the middle of every sample; nothing is smoothed, an edge stays where it is
        down_x, down_y = self.box.width / self.mask.shape[1], self.box.height / self.mask.shape[0]
        x = box.x0 + (np.arange(side) + 0.5) * box.width / side
        y = box.y0 + (np.arange(side) + 0.5) * box.height / side
        columns, rows = ((x - self.box.x0) / down_x).astype(int), ((y - self.box.y0) / down_y).astype(int)
        # against the edge itself: truncation alone would pull samples just left of it inside
        known_x = (x >= self.box.x0) & (columns >= 0) & (columns < self.mask.shape[1])
        known_y = (y >= self.box.y0) & (rows >= 0) & (rows < self.mask.shape[0])
        found = np.zeros((side, side), bool)
        found[np.ix_(known_y, known_x)] = self.mask[np.ix_(rows[known_y], columns[known_x])]
        return found if found.any() else None


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

    def width_um(self, index: int) -> float:
        return self.patch_um


class SegmentedBag(SourceBag):
    """A slide's patches, with masks by a segmentation model in place of stored ones.

    prompts: by the name of the object, as the model is asked for it. Raises InvalidArgumentError for an object the model
    was never made for.
    """

    def __init__(
        self,
        source: ImageSource,
        boxes: Sequence[Box],
        *,
        segmenter: Segmenter,
        prompts: Mapping[str, Prompt],
        mpp: float | None = None,
        patch_um: float = PATCH_UM,
    ) -> None:
        super().__init__(source, boxes, patch_um=patch_um)
        self.objects = tuple(prompts)
        self._segmenter = segmenter
        self._prompts = dict(prompts)
        if unknown := [label for label, prompt in prompts.items() if segmenter.capability(prompt) is None]:
            raise InvalidArgumentError(
                f"{segmenter.card.name} was never made for {', '.join(unknown)}; take them out of `objects`."
            )
        overview = source.overview()
        # stain statistics are those of the whole image: one patch can be all of one colour
        self._context = segmenter.prepare(overview)
        self._mpp = mpp or source.mpp or segmenter.assume_mpp(overview, source.width / overview.shape[1])
        self._known: dict[int, dict[str, Mask | None]] = {}

    def mask(self, index: int, name: str) -> Mask | None:
        if index not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[index] = self._segment(index)
        return self._known[index][name]

    def _segment(self, index: int) -> dict[str, Mask | None]:
        patch = self.pixels(index)
        side = patch.shape[0]
        patch_mpp = self._mpp * self.boxes[index].width / side
        by_scale: dict[float, list[str]] = {}
        for label, prompt in self._prompts.items():
            capability = self._segmenter.capability(prompt)
            assert capability is not None, "checked when the bag was made"
            by_scale.setdefault(capability.mpp, []).append(label)
        found: dict[str, Mask | None] = {}
        for mpp, labels in by_scale.items():
            small = max(32, round(side * patch_mpp / mpp))
            tile = resized(patch, small, small)
            # one encoding serves all objects that are looked for at this scale
            features = self._segmenter.encode(tile, self._context)
            prompts = [self._prompts[label] for label in labels]
            answers = self._segmenter.decode(features, prompts)
            for label, prompt, decoded in zip(labels, prompts, answers, strict=True):
                finished = self._segmenter.finish(decoded, prompt, self._context)
                small_mask = finished.mask.astype(np.uint8)
                large = cv2.resize(small_mask, (side, side), interpolation=cv2.INTER_NEAREST) > 0
                there = finished.presence >= PRESENT and large.any()
                found[label] = np.asarray(large) if there else None
        return found
