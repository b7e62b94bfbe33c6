"""CLIPSeg as a text-prompted model (facts: transformers' ``CLIPSegForImageSegmentation``; input 352 px)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tissuetalk.models.segmentation.open_vocabulary import MPP, PublishedOpenVocabulary
from tissuetalk.models.segmentation.pretrained import (
    AnyWords,
    Entry,
    HubWeights,
    normalised,
    resized,
    to_size,
    without_gradients,
)
from tissuetalk.models.segmenter import RGB, Context, Decoded, ModelCard, Prompt

if TYPE_CHECKING:
    from torch import Tensor

CARD: Final = ModelCard(
    name="clipseg",
    summary="Region for any phrase from CLIP features with a small decoder (CLIPSeg rd64-refined).",
    licence="Apache-2.0",
    research_only=True,
    targets=("anything in words",),
    mpp=(MPP,),
    prompts="text",
    source="CIDAS/clipseg-rd64-refined (arXiv 2112.10003), loaded with transformers",
    metrics={"published PanNuke all nuclei, Dice (arXiv 2603.06384), fine-tuned": "65.53 %"},
    limits="Made for photographs. One region, no objects, no statement whether the target is there; coarse outlines.",
)
WEIGHTS: Final = HubWeights("clipseg", "TISSUETALK_CLIPSEG", "CIDAS/clipseg-rd64-refined", CARD.licence)
REPERTOIRE: Final = AnyWords(CARD, MPP, objects=False)
ENTRY: Final = Entry(CARD, f"{__name__}:load", WEIGHTS, lambda: REPERTOIRE)

MOST_PROMPTS = 16

ClipsegFeatures = tuple[list["Tensor"], tuple[int, int]]
"""Activations of the layers that the decoder reads, each [1, 1 + N, C], and the tile's height and width."""


class ClipsegSegmenter(PublishedOpenVocabulary):
    """The vision tower runs once per tile; text tower and decoder run per prompt."""

    card, repertoire, weights = CARD, REPERTOIRE, WEIGHTS
    kind = "CLIPSegForImageSegmentation"
    tile_px = 352
    margin_px = 64
    objects = False

    @without_gradients
    def encode(self, tile: RGB, context: Context) -> ClipsegFeatures:
        """The tile [H, W, 3] is stretched to the model's square, and the answer back."""
        side = self.model.config.vision_config.image_size
        seen = self.model.clip.vision_model(normalised(resized(tile, side, side)), output_hidden_states=True)
        # hidden_states[0] is the embedding, so block i ends at i + 1.
        activations = [seen.hidden_states[layer + 1] for layer in self.model.config.extract_layers]
        return activations, (tile.shape[0], tile.shape[1])

    @without_gradients
    def decode(self, features: ClipsegFeatures, prompts: Sequence[Prompt]) -> list[Decoded]:
        import torch

        activations, (height, width) = features
        sentence = self.model.clip.get_text_features
        decoded: list[Decoded] = []
        for start in range(0, len(prompts), MOST_PROMPTS):
            asked = prompts[start : start + MOST_PROMPTS]
            repeated = tuple(one.expand(len(asked), -1, -1) for one in activations)
            # [N, projection] conditional vectors; one pass per sentence, so that padding cannot matter
            said = torch.cat([sentence(**self.tokens(self.sent(prompt))).pooler_output for prompt in asked])
            logits = self.model.decoder(repeated, said).logits
            logits = logits.reshape(len(asked), *logits.shape[-2:])
            decoded += [Decoded(one) for one in to_size(logits, height, width)]
        return decoded


load = ClipsegSegmenter.load
