"""How an evaluation asks: a canonical label as it is, anything else read as a user's words are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tissuetalk.models.errors import TissuetalkError, UnknownLabelError
from tissuetalk.models.images import open_image
from tissuetalk.models.masks.characteristics import Labels, Mask
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.prompts.readers import make_reader
from tissuetalk.prompts.target import Request
from tissuetalk.prompts.taxonomy import is_label
from tissuetalk.tools.answers.results import TargetArgument
from tissuetalk.tools.segment.field import FieldOfView, region_of, scale_of
from tissuetalk.tools.segment.request import read_request
from tissuetalk.tools.segment.segment import FieldMasks, segment_field
from tissuetalk.tools.storage.features import FeatureCache

MEMORY_BYTES = 256 * 2**20


class ModelUnderTest:
    """One model asked about many images; features of the last images are kept for further questions."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.features = FeatureCache(memory_bytes=MEMORY_BYTES)
        self._reader = make_reader("rules")

    def request(self, words: str) -> Request:
        """What the words ask for; a canonical label asks for just that."""
        # read as words, a label of three parts could lead to several targets
        if is_label(words):
            target = [TargetArgument(label=words)]
            return read_request(self._reader, words=None, targets=target, points=None, boxes=None, organ=None)
        return self._reader.translate(words)

    def label_of(self, words: str) -> str:
        """The canonical label the words lead to, "" when they lead to none."""
        try:
            targets = self.request(words).targets
        except TissuetalkError:
            return ""
        return (targets[0].label or "") if targets else ""

    def look(self, image: Path, words: str, mpp: float | None) -> FieldMasks:
        """Everything the model found. Raises UnknownLabelError when it was not made for any of it."""
        request = self.request(words)
        with open_image(image, name=image.name) as source:
            region, scale = region_of(source, None), scale_of(source, mpp, self.segmenter)
            looked = segment_field(FieldOfView(source, self.segmenter, region, scale, self.features), request)
        if not looked.found:
            reasons = "; ".join(item.reason for item in looked.refused)
            raise UnknownLabelError(f"{words!r} cannot be asked of {self.segmenter.card.name}: {reasons}.")
        return looked

    def segment_image(self, image: Path, words: str, mpp: float | None) -> tuple[Mask, Labels | None]:
        """One mask of everything found; objects stay apart where only one target has them. Both [H, W]."""
        found = self.look(image, words, mpp).found
        if len(found) == 1:
            return found[0].mask, found[0].instances
        return np.any([each.mask for each in found], axis=0), None
