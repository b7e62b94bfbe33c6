"""CLIPSeg as a text-prompted model (facts: transformers' ``CLIPSegForImageSegmentation``; input 352 px)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tissuetalk.models.segmentation.cards import CLIPSEG, weights_of
from tissuetalk.models.segmentation.loading import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    device,
    from_folder,
    normalised,
    resized,
    to_size,
    tokenizer_from,
    weights_hash,
)
from tissuetalk.models.segmentation.open_vocabulary import OpenVocabulary
from tissuetalk.models.segmenter import RGB, Context, Decoded, Prompt

MOST_PROMPTS = 16


class ClipsegSegmenter(OpenVocabulary):
    """The vision tower runs once per tile; text tower and decoder run per prompt."""

    card = CLIPSEG
    tile_px = 352
    margin_px = 64
    objects = False

    def __init__(self, model: Any, tokenizer: Any, *, weights_sha256: str) -> None:
        self.model = model.to(device())
        self.tokenizer = tokenizer
        self.weights_sha256 = weights_sha256

    @torch.inference_mode()
    def encode(self, tile: RGB, context: Context) -> tuple[list[torch.Tensor], tuple[int, int]]:
        side = self.model.config.vision_config.image_size
        pixels = normalised(resized(tile, side, side), IMAGENET_MEAN, IMAGENET_STD)
        seen = self.model.clip.vision_model(pixels, output_hidden_states=True)
        # hidden_states[0] is the embedding, so block i ends at i + 1.
        activations = [seen.hidden_states[layer + 1] for layer in self.model.config.extract_layers]
        return activations, (tile.shape[0], tile.shape[1])

    @torch.inference_mode()
    def decode(
        self, features: tuple[list[torch.Tensor], tuple[int, int]], prompts: Sequence[Prompt]
    ) -> list[Decoded]:
        activations, (height, width) = features
        decoded: list[Decoded] = []
        for start in range(0, len(prompts), MOST_PROMPTS):
            words = [prompt.words for prompt in prompts[start : start + MOST_PROMPTS]]
            repeated = tuple(one.expand(len(words), -1, -1) for one in activations)
            logits = self.model.decoder(repeated, self._sentences(words)).logits
            logits = logits.reshape(len(words), *logits.shape[-2:])
            decoded += [Decoded(one) for one in to_size(logits, height, width)]
        return decoded

    def _sentences(self, words: list[str]) -> torch.Tensor:
        """[N, projection] conditional vectors; one pass per sentence, so that padding cannot matter."""
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
    folder = weights_of(CLIPSEG.name, source)
    from transformers import CLIPSegForImageSegmentation

    model = from_folder(CLIPSegForImageSegmentation, folder, CLIPSEG.name)
    return ClipsegSegmenter(model, tokenizer_from(folder, CLIPSEG.name), weights_sha256=weights_hash(folder))
