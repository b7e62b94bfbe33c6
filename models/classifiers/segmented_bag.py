"""Patches of a slide whose objects are segmented when somebody asks for them, patch by patch (explain.md, section 4, step 1)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from tissuetalk.models.classifiers.patch_bag import Mask, SourceBag
from tissuetalk.models.classifiers.patches import PATCH_UM
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import Prompt, Segmenter

PRESENT = 0.5
"""Probability from which an object counts as found in a patch."""
_REMEMBERED = 256
"""Patches whose masks are kept; a larger slide is segmented again for the next object, which costs time but no memory."""


class SegmentedBag(SourceBag):
    """A slide's patches, with masks by a segmentation model in place of stored ones.

    labels: canonical ``region-structure-object``. Raises InvalidArgumentError for an object the model was never made for.
    """

    def __init__(
        self,
        source: ImageSource,
        boxes: Sequence[Box],
        *,
        segmenter: Segmenter,
        labels: Sequence[str],
        mpp: float | None = None,
        patch_um: float = PATCH_UM,
    ) -> None:
        super().__init__(source, boxes, patch_um=patch_um)
        self.objects = tuple(labels)
        self._segmenter = segmenter
        self._prompts = {label: prompt_for(label) for label in labels}
        if unknown := [
            label for label, prompt in self._prompts.items() if segmenter.capability(prompt) is None
        ]:
            raise InvalidArgumentError(
                f"{segmenter.card.name} was never made for {', '.join(unknown)}; take them out of `objects`."
            )
        overview = source.overview()
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
            method = cv2.INTER_AREA if small < side else cv2.INTER_LINEAR
            tile = np.asarray(cv2.resize(patch, (small, small), interpolation=method), np.uint8)
            features = self._segmenter.encode(tile, self._context)
            prompts = [self._prompts[label] for label in labels]
            for label, prompt, decoded in zip(
                labels, prompts, self._segmenter.decode(features, prompts), strict=True
            ):
                finished = self._segmenter.finish(decoded, prompt, self._context)
                found[label] = _enlarged(finished.mask, side) if finished.presence >= PRESENT else None
        return found


def _enlarged(mask: Mask, side: int) -> Mask | None:
    large = cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0
    return np.asarray(large) if large.any() else None


def prompt_for(label: str) -> Prompt:
    """A canonical label as a model is asked for it. Raises InvalidArgumentError for anything else."""
    region, _, rest = label.partition("-")
    structure, _, name = rest.partition("-")
    if not (region and structure and name):
        raise InvalidArgumentError(f"{label!r} is not a canonical label such as breast-tissue-tumor.")
    return Prompt(label=label, words=name, text=f"{name} in {region} {structure} pathology image")
