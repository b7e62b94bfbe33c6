"""SAM 2: boxes or points in, masks out (1024 px square input, ImageNet mean and deviation)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmentation.pretrained import Entry, HubWeights, normalised
from tissuetalk.models.segmentation.sam_family import PublishedSam, any_place
from tissuetalk.models.segmenter import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

CARD: Final = ModelCard(
    name="sam2",
    summary="The object inside a box or under a point (SAM 2.1 tiny).",
    licence="Apache-2.0",
    research_only=True,
    targets=("what is inside a box or under a point",),
    mpp=(),
    prompts="boxes and points",
    source="facebook/sam2.1-hiera-tiny (arXiv 2408.00714), loaded with transformers",
    metrics={},
    limits="Made for photographs and video. Knows no names. A point is ambiguous: the mask the model trusts most is taken.",
)
WEIGHTS: Final = HubWeights("sam2", "TISSUETALK_SAM2", "facebook/sam2.1-hiera-tiny", CARD.licence)
ENTRY: Final = Entry(CARD, f"{__name__}:load", WEIGHTS, lambda: any_place(CARD))


class Sam2Segmenter(PublishedSam):
    """A box gets the one mask made for unambiguous prompts; a point the best of three by the model's own estimate."""

    card, weights = CARD, WEIGHTS
    kind = "Sam2Model"
    takes_points = True

    @property
    def side_px(self) -> int:
        side = self.model.config.prompt_encoder_config.image_size
        return int(side if isinstance(side, int) else side[0])

    def pixels(self, square: NDArray[np.uint8]) -> Tensor:
        return normalised(square)

    def logits(self, embeddings: Any, *, boxes: Tensor | None = None, points: Tensor | None = None) -> Tensor:
        import torch

        answer = self.model(
            image_embeddings=embeddings,
            input_boxes=None if boxes is None else boxes[None],
            input_points=None if points is None else points[None, :, None],
            multimask_output=points is not None,
        )
        best = answer.iou_scores[0].argmax(dim=-1)
        masks: Tensor = answer.pred_masks[0, torch.arange(len(best)), best]
        return masks


load = Sam2Segmenter.load
