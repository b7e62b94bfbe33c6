"""SAM 3 as a text-prompted model (facts: transformers' ``Sam3Model``; input 1008 px, mean and deviation 0.5).

A query's mask counts as far as the model believes that the query is the thing named: every pixel takes the highest,
over queries, of the smaller of mask logit and score logit. Above 0 that is the union of the masks whose score passes
0.5, the released rule, and below it stays a graded map that can be blended over tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

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
    name="sam3",
    summary="Open-vocabulary detection and segmentation of every instance of a short noun phrase (SAM 3).",
    licence="SAM License (Meta), access on request",
    research_only=True,
    targets=("anything in words",),
    mpp=(MPP,),
    prompts="text",
    source="facebook/sam3 (arXiv 2511.16719), loaded with transformers",
    metrics={"published PanNuke all nuclei, Dice (arXiv 2603.06384), fine-tuned": "78.45 %"},
    limits="Made for photographs. At most 200 objects per tile; knows no diagnosis; not evaluated here without weights.",
)
WEIGHTS: Final = HubWeights("sam3", "TISSUETALK_SAM3", "facebook/sam3", CARD.licence)
REPERTOIRE: Final = AnyWords(CARD, MPP, objects=True)
ENTRY: Final = Entry(CARD, f"{__name__}:load", WEIGHTS, lambda: REPERTOIRE)

HALF = (0.5, 0.5, 0.5)
MOST_TOKENS = 32


class Sam3Segmenter(PublishedOpenVocabulary):
    """Image features once per tile; every prompt decoded in its own pass over them."""

    card, repertoire, weights = CARD, REPERTOIRE, WEIGHTS
    kind = "Sam3Model"
    tile_px = 504
    margin_px = 64
    objects = True

    @without_gradients
    def encode(self, tile: RGB, context: Context) -> tuple[Any, tuple[int, int]]:
        """The tile [H, W, 3] is stretched to the model's square, and the answer back."""
        side = self.model.config.image_size
        seen = self.model.get_vision_features(normalised(resized(tile, side, side), HALF, HALF))
        return seen, (tile.shape[0], tile.shape[1])

    @without_gradients
    def decode(self, features: tuple[Any, tuple[int, int]], prompts: Sequence[Prompt]) -> list[Decoded]:
        seen, (height, width) = features
        decoded = []
        for prompt in prompts:
            answer = self.model(vision_embeds=seen, **self.tokens(self.sent(prompt), MOST_TOKENS))
            present = float(answer.presence_logits[0].reshape(()))
            decoded.append(Decoded(to_size(union_of_queries(answer), height, width)[0], presence=present))
        return decoded


def union_of_queries(answer: Any) -> Tensor:
    """[1, h, w] logits of an answer about one image."""
    import torch

    present = torch.sigmoid(answer.presence_logits[0].reshape(()))
    score = torch.sigmoid(answer.pred_logits[0]) * present  # as in the released rule
    belief = torch.logit(score.float(), eps=1e-6)[:, None, None]
    return torch.minimum(answer.pred_masks[0].float(), belief).amax(dim=0, keepdim=True)


def most_tokens(model: Any) -> int:
    """What a sentence is cut to."""
    return min(MOST_TOKENS, int(model.config.text_config.max_position_embeddings))


load = Sam3Segmenter.load
