"""SAM 2: boxes or points in, masks out (1024 px square input, ImageNet mean and deviation)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tissuetalk.models.segmentation.cards import SAM2, weights_of
from tissuetalk.models.segmentation.loading import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    device,
    from_folder,
    normalised,
    resized,
    weights_hash,
)
from tissuetalk.models.segmentation.sam_family import Encoded, SamFamily
from tissuetalk.models.segmenter import RGB, Context


class Sam2Segmenter(SamFamily):
    """A box gets the one mask made for unambiguous prompts; a point the best of three by the model's own estimate."""

    card = SAM2
    takes_points = True

    def __init__(self, model: Any, *, weights_sha256: str) -> None:
        self.model = model.to(device())
        side = model.config.prompt_encoder_config.image_size
        self.side_px = int(side if isinstance(side, int) else side[0])
        self.weights_sha256 = weights_sha256

    @torch.inference_mode()
    def encode(self, tile: RGB, context: Context | None = None) -> Encoded:
        height, width = tile.shape[:2]
        pixels = normalised(resized(tile, self.side_px, self.side_px), IMAGENET_MEAN, IMAGENET_STD)
        embeddings = self.model.get_image_embeddings(pixels)
        return Encoded(embeddings, height, width, self.side_px / width, self.side_px / height)

    def logits(
        self, embeddings: Any, *, boxes: torch.Tensor | None = None, points: torch.Tensor | None = None
    ) -> torch.Tensor:
        answer = self.model(
            image_embeddings=embeddings,
            input_boxes=None if boxes is None else boxes[None],
            input_points=None if points is None else points[None, :, None],
            multimask_output=points is not None,
        )
        best = answer.iou_scores[0].argmax(dim=-1)
        masks: torch.Tensor = answer.pred_masks[0, torch.arange(len(best)), best]
        return masks


def load(source: str | Path | None = None) -> Sam2Segmenter:
    """SAM 2 from a hub id in the local cache or a folder. Raises ModelUnavailableError."""
    folder = weights_of(SAM2.name, source)
    from transformers import Sam2Model

    return Sam2Segmenter(from_folder(Sam2Model, folder, SAM2.name), weights_sha256=weights_hash(folder))
