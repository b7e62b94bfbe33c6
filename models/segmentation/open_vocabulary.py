"""What text-prompted models have in common as ``Segmenter``s when a mask is all that their network gives.

What such a model says about presence is all the evidence there is: its presence logit, else its strongest pixel, or the mean
probability of what it paints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from tissuetalk.models.segmentation.pretrained import (
    HubWeights,
    device,
    from_hub,
    tokenizer_from,
    weights_hash,
    word_ids,
)
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
PresenceBy = Literal["strongest pixel", "mean probability"]


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
    presence_is: PresenceBy = "strongest pixel"

    def capability(self, prompt: Prompt) -> Capability | None:
        return self.repertoire.capability(prompt)

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return self.repertoire.nearest(prompt, limit)

    def sent(self, prompt: Prompt) -> str:
        """What was said; a sentence of the prompt's own where it must be read as it stands."""
        return prompt.text if prompt.verbatim else prompt.words

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return MPP

    def prepare(self, overview: RGB) -> Context:
        return Context({})

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        """Foreground above 0; objects are its 8-connected components of at least 36 px."""
        mask = np.asarray(stitched.logits > 0.0)
        logits = stitched.logits.max(initial=-30.0) if stitched.presence is None else stitched.presence
        if stitched.presence is None and self.presence_is == "mean probability" and mask.any():
            logits = stitched.logits[mask]
        presence = float(np.mean(1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0)))))
        if not self.has_objects(prompt):
            return Finished(mask, None, presence)
        from tissuetalk.models.masks.characteristics import components

        instances = components(mask)
        return Finished(instances > 0, instances, presence)

    def has_objects(self, prompt: Prompt) -> bool:
        """Whether this prompt's mask is split into objects."""
        return self.objects


class PublishedOpenVocabulary(OpenVocabulary):
    """A text-prompted model of transformers with its tokenizer; ``kind`` is the name of its class there."""

    kind: ClassVar[str]
    weights: ClassVar[HubWeights]

    def __init__(self, model: Any, tokenizer: Any, *, weights_sha256: str) -> None:
        self.model = model.to(device())
        self.tokenizer = tokenizer
        self.weights_sha256 = weights_sha256

    @classmethod
    def load(cls, source: str | Path | None = None) -> Self:
        """From a hub id in the local cache or a folder. Raises ModelUnavailableError."""
        model, folder = from_hub(cls.kind, cls.weights, source)
        return cls(model, tokenizer_from(folder, cls.card.name), weights_sha256=weights_hash(folder))

    def tokens(self, words: str, longest: int | None = None) -> dict[str, Any]:
        """Ids and attention mask [1, L] of one phrase, cut to what the text tower takes."""
        length = self.model.config.text_config.max_position_embeddings
        return word_ids(self.tokenizer, words, length if longest is None else min(longest, length))
