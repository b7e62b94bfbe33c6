"""The PFPs network: a request enters the image encoder, the mask decoder and the dynamic head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tissuetalk.models.segmentation.pfps.dynamic_head import DynamicHead, HeadKind
from tissuetalk.models.segmentation.pfps.efficient_sam import (
    INVALID,
    POINT,
    SMALL,
    ImageEncoder,
    MaskDecoder,
    PromptEncoder,
    SamSizes,
)

Strategy = Literal["one-set", "two-set", "text"]


@dataclass(frozen=True)
class PfpsSizes:
    """strategy: how a request is said. head: what the dynamic head replaces. train_neck: frozen in HATs."""

    sam: SamSizes = SMALL
    strategy: Strategy = "text"
    head: HeadKind = "hats"
    train_neck: bool = False

    @property
    def request_tokens(self) -> int:
        return 2 if self.strategy == "two-set" else 1


class Pfps(nn.Module):
    """Images, requests and perhaps points in; background and foreground logits out."""

    def __init__(self, sizes: PfpsSizes, request: nn.Module) -> None:
        """request: makes [B, T, C] tokens; SentenceVector, OneSetIds or TwoSetIds."""
        super().__init__()
        sam = sizes.sam
        self.sizes = sizes
        self.request = request
        self.image_encoder = ImageEncoder(sam)
        self.prompt_encoder = PromptEncoder(sam)
        self.mask_decoder = MaskDecoder(sam)
        self.to_decoder = nn.Linear(sam.width, sam.decoder_width)
        self.head = DynamicHead(
            image_width=sam.decoder_width,
            request_width=sizes.request_tokens * sam.width,
            feature_width=sam.upscaling[1],
            kind=sizes.head,
            scale=sam.patch_px,
        )
        self.image_encoder.requires_grad_(False)
        self.image_encoder.neck.requires_grad_(sizes.train_neck)
        unused = [self.mask_decoder.output_hypernetworks_mlps, self.mask_decoder.iou_prediction_head]
        for part in unused:  # the dynamic head takes their place
            part.requires_grad_(False)

    def forward(self, images: Tensor, request: Tensor, points_xy: Tensor, pointed: Tensor) -> Tensor:
        """[B, 2, S, S] logits (background, foreground).

        Args:
            images: [B, 3, S, S], normalised by ``prepared``.
            request: [B, T, C] from ``self.request``.
            points_xy: [B, 2] in input pixels; any value where there is no point.
            pointed: [B] bool, whether the request has a point (tasks 6 to 9).
        """
        embedding = self.image_encoder(images, request)
        labels = torch.where(pointed, POINT, INVALID)[:, None]
        places = self.prompt_encoder(points_xy[:, None], labels)
        prompts = torch.cat([places, self.to_decoder(request)], dim=1)
        _, seen = self.mask_decoder.attend(embedding, self.prompt_encoder.dense_places(), prompts)
        features = self.mask_decoder.upscale(seen) if self.sizes.head == "hats" else seen
        logits: Tensor = self.head(embedding, request.flatten(1), features)
        return logits


def foreground(logits: Tensor) -> Tensor:
    """[B, H, W] bool: where the foreground logit is the larger one."""
    return logits[:, 1] > logits[:, 0]
