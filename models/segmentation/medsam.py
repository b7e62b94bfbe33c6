"""MedSAM: boxes in, masks out (1024 px square input, image scaled to its own minimum and maximum, threshold 0.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmentation.pretrained import Entry, HubWeights, min_max
from tissuetalk.models.segmentation.sam_family import PublishedSam, any_place
from tissuetalk.models.segmenter import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

CARD: Final = ModelCard(
    name="medsam",
    summary="The object inside each box (MedSAM: SAM ViT-B tuned on medical images).",
    licence="Apache-2.0",
    research_only=True,
    targets=("what is inside a box",),
    mpp=(),
    prompts="boxes and points",
    source="flaviagiammarino/medsam-vit-base (arXiv 2304.12306), loaded with transformers",
    metrics={"published PathSeg overall, Dice, union box / instance box (arXiv 2506.20988)": "0.526 / 0.774"},
    limits="Boxes only. Knows no names: the box decides. One mask per box; slow on a CPU.",
)
WEIGHTS: Final = HubWeights("medsam", "TISSUETALK_MEDSAM", "flaviagiammarino/medsam-vit-base", CARD.licence)
ENTRY: Final = Entry(CARD, f"{__name__}:load", WEIGHTS, lambda: any_place(CARD))


class MedsamSegmenter(PublishedSam):
    """SAM ViT-B with MedSAM's weights and its own preparation of pictures, which differs from SAM's."""

    card, weights = CARD, WEIGHTS
    kind = "SamModel"
    takes_points = False

    @property
    def side_px(self) -> int:
        return int(self.model.config.vision_config.image_size)

    def pixels(self, square: NDArray[np.uint8]) -> Tensor:
        return min_max(square)

    def logits(self, embeddings: Any, *, boxes: Tensor | None = None, points: Tensor | None = None) -> Tensor:
        answer = self.model(
            image_embeddings=embeddings,
            input_boxes=None if boxes is None else boxes[None],
            multimask_output=False,
        )
        masks: Tensor = answer.pred_masks[0, :, 0]
        return masks


load = MedsamSegmenter.load
