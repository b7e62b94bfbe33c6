"""SAM 3 as a text-prompted model (facts: transformers' ``Sam3Model``; input 1008 px, mean and deviation 0.5).

A query's mask counts as far as the model believes that the query is the thing named: every pixel takes the highest,
over queries, of the smaller of mask logit and score logit. Above 0 that is the union of the masks whose score passes
0.5, the released rule, and below it stays a graded map that can be blended over tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tissuetalk.models.segmentation.cards import SAM3, weights_of
from tissuetalk.models.segmentation.loading import (
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

HALF = (0.5, 0.5, 0.5)
MOST_TOKENS = 32


class Sam3Segmenter(OpenVocabulary):
    """Image features once per tile; every prompt decoded in its own pass over them."""

    card = SAM3
    tile_px = 504
    margin_px = 64
    objects = True

    def __init__(self, model: Any, tokenizer: Any, *, weights_sha256: str) -> None:
        self.model = model.to(device())
        self.tokenizer = tokenizer
        self.weights_sha256 = weights_sha256

    @torch.inference_mode()
    def encode(self, tile: RGB, context: Context) -> tuple[Any, tuple[int, int]]:
        side = self.model.config.image_size
        seen = self.model.get_vision_features(normalised(resized(tile, side, side), HALF, HALF))
        return seen, (tile.shape[0], tile.shape[1])

    @torch.inference_mode()
    def decode(self, features: tuple[Any, tuple[int, int]], prompts: Sequence[Prompt]) -> list[Decoded]:
        return [self._decode_one(features, prompt.words) for prompt in prompts]

    def _decode_one(self, features: tuple[Any, tuple[int, int]], words: str) -> Decoded:
        seen, (height, width) = features
        length = min(MOST_TOKENS, self.model.config.text_config.max_position_embeddings)
        tokens = self.tokenizer(words, truncation=True, max_length=length, return_tensors="pt").to(device())
        answer = self.model(
            vision_embeds=seen, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
        present = answer.presence_logits[0].reshape(())
        score = torch.sigmoid(answer.pred_logits[0]) * torch.sigmoid(present)
        belief = torch.logit(score.float(), eps=1e-6)[:, None, None]
        logits = torch.minimum(answer.pred_masks[0].float(), belief).amax(dim=0, keepdim=True)
        return Decoded(to_size(logits, height, width)[0], presence=float(present))


def load(source: str | Path | None = None) -> Sam3Segmenter:
    """SAM 3 from a hub id in the local cache or a folder. Raises ModelUnavailableError."""
    folder = weights_of(SAM3.name, source)
    from transformers import Sam3Model

    model = from_folder(Sam3Model, folder, SAM3.name)
    return Sam3Segmenter(model, tokenizer_from(folder, SAM3.name), weights_sha256=weights_hash(folder))
