"""MedSAM: boxes in, masks out (1024 px square input, image scaled to its own minimum and maximum, threshold 0.5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tissuetalk.models.segmentation.cards import MEDSAM, weights_of
from tissuetalk.models.segmentation.loading import device, from_folder, min_max, resized, weights_hash
from tissuetalk.models.segmentation.sam_family import Encoded, SamFamily
from tissuetalk.models.segmenter import RGB, Context


class MedsamSegmenter(SamFamily):
    """SAM ViT-B with MedSAM's weights and its own preparation of pictures, which differs from SAM's."""

    card = MEDSAM
    takes_points = False

    def __init__(self, model: Any, *, weights_sha256: str) -> None:
        self.model = model.to(device())
        self.side_px = int(model.config.vision_config.image_size)
        self.weights_sha256 = weights_sha256

    @torch.inference_mode()
    def encode(self, tile: RGB, context: Context | None = None) -> Encoded:
        height, width = tile.shape[:2]
        pixels = min_max(resized(tile, self.side_px, self.side_px))
        embeddings = self.model.get_image_embeddings(pixels)
        return Encoded(embeddings, height, width, self.side_px / width, self.side_px / height)

    def logits(
        self, embeddings: Any, *, boxes: torch.Tensor | None = None, points: torch.Tensor | None = None
    ) -> torch.Tensor:
        answer = self.model(
            image_embeddings=embeddings,
            input_boxes=None if boxes is None else boxes[None],
            multimask_output=False,
        )
        masks: torch.Tensor = answer.pred_masks[0, :, 0]
        return masks


def load(source: str | Path | None = None) -> MedsamSegmenter:
    """MedSAM from a hub id in the local cache or a folder. Raises ModelUnavailableError."""
    folder = weights_of(MEDSAM.name, source)
    from transformers import SamModel

    return MedsamSegmenter(from_folder(SamModel, folder, MEDSAM.name), weights_sha256=weights_hash(folder))
