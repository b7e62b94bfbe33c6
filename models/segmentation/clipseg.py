"""CLIPSeg as a text-prompted model (facts: transformers' ``CLIPSegForImageSegmentation``; input 352 px)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tissuetalk.models.segmentation.entry import AnyWords, Entry, HubWeights
from tissuetalk.models.segmentation.open_vocabulary import MPP, OpenVocabulary
from tissuetalk.models.segmentation.pretrained import (
    device,
    from_hub,
    normalised,
    resized,
    to_size,
    tokenizer_from,
    weights_hash,
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


class ClipsegSegmenter(OpenVocabulary):
    """The vision tower runs once per tile; text tower and decoder run per prompt."""

    card, repertoire = CARD, REPERTOIRE
    tile_px = 352
    margin_px = 64
    objects = False

    def __init__(self, model: Any, tokenizer: Any, *, weights_sha256: str) -> None:
        self.model = model.to(device())
        self.tokenizer = tokenizer
        self.weights_sha256 = weights_sha256

    @without_gradients
    def encode(self, tile: RGB, context: Context) -> ClipsegFeatures:
        side = self.model.config.vision_config.image_size
        seen = self.model.clip.vision_model(normalised(resized(tile, side, side)), output_hidden_states=True)
        # hidden_states[0] is the embedding, so block i ends at i + 1.
        activations = [seen.hidden_states[layer + 1] for layer in self.model.config.extract_layers]
        return activations, (tile.shape[0], tile.shape[1])

    @without_gradients
    def decode(self, features: ClipsegFeatures, prompts: Sequence[Prompt]) -> list[Decoded]:
        activations, (height, width) = features
        decoded: list[Decoded] = []
        for start in range(0, len(prompts), MOST_PROMPTS):
            words = [prompt.words for prompt in prompts[start : start + MOST_PROMPTS]]
            repeated = tuple(one.expand(len(words), -1, -1) for one in activations)
            logits = self.model.decoder(repeated, self._sentences(words)).logits
            logits = logits.reshape(len(words), *logits.shape[-2:])
            decoded += [Decoded(one) for one in to_size(logits, height, width)]
        return decoded

    def _sentences(self, words: list[str]) -> Tensor:
        """[N, projection] conditional vectors; one pass per sentence, so that padding cannot matter."""
        import torch

        length = self.model.config.text_config.max_position_embeddings
        vectors = []
        for text in words:
            tokens = self.tokenizer(text, truncation=True, max_length=length, return_tensors="pt").to(
                device()
            )
            said = self.model.clip.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
            vectors.append(said.pooler_output)
        return torch.cat(vectors)


def load(source: str | Path | None = None) -> ClipsegSegmenter:
    """CLIPSeg from a hub id in the local cache or a folder. Raises ModelUnavailableError."""
    model, folder = from_hub("CLIPSegForImageSegmentation", WEIGHTS, source)
    return ClipsegSegmenter(model, tokenizer_from(folder, CARD.name), weights_sha256=weights_hash(folder))
