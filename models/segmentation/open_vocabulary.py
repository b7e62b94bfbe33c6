"""What text-prompted models have in common as ``Segmenter``s when a mask is all that their network gives.

What such a model says about presence is all the evidence there is: its presence logit, else its strongest pixel.
"""

from __future__ import annotations

import numpy as np

from tissuetalk.models.segmenter import (
    RGB,
    Capability,
    Context,
    Decoded,
    Finished,
    ModelCard,
    Prompt,
    Repertoire,
)

MPP = 0.5


class OpenVocabulary:
    """The half of ``Segmenter`` that needs no network.

    repertoire: what it can be asked for. objects: whether separate objects come back.
    """

    card: ModelCard
    repertoire: Repertoire
    weights_sha256: str
    tile_px: int
    margin_px: int
    objects: bool

    def capability(self, prompt: Prompt) -> Capability | None:
        return self.repertoire.capability(prompt)

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return self.repertoire.nearest(prompt, limit)

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
        if not self.has_objects(prompt):
            return Finished(mask, None, presence)
        from tissuetalk.models.masks.characteristics import components

        instances = components(mask)
        return Finished(instances > 0, instances, presence)

    def has_objects(self, prompt: Prompt) -> bool:
        """Whether this prompt's mask is split into objects."""
        return self.objects
