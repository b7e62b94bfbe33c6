"""What text-prompted models made for photographs have in common as a ``Segmenter``.

They answer any words, so they never refuse; what they say about presence is all the evidence there is.
"""

from __future__ import annotations

import numpy as np

from tissuetalk.models.masks.characteristics import components
from tissuetalk.models.segmenter import RGB, Capability, Context, Decoded, Finished, ModelCard, Prompt

MPP = 0.5


class OpenVocabulary:
    """The half of ``Segmenter`` that needs no network. ``objects``: whether separate objects come back."""

    card: ModelCard
    weights_sha256: str
    tile_px: int
    margin_px: int
    objects: bool

    def capability(self, prompt: Prompt) -> Capability | None:
        words = prompt.words.strip()
        return Capability(target=words, mpp=MPP, objects=self.objects) if words else None

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return []

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return MPP

    def prepare(self, overview: RGB) -> Context:
        return Context({})

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        """Foreground above 0; objects are its 8-connected components of at least 36 px."""
        mask = np.asarray(stitched.logits > 0.0)
        evidence = (
            float(stitched.logits.max(initial=-30.0)) if stitched.presence is None else stitched.presence
        )
        presence = float(1.0 / (1.0 + np.exp(-np.clip(evidence, -30.0, 30.0))))
        if not self.objects:
            return Finished(mask, None, presence)
        instances = components(mask)
        return Finished(instances > 0, instances, presence)
