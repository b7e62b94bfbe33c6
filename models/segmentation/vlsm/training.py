"""Losses, optimisers and one step of training, with the settings of the paper and of the code released later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.segmentation.vlsm.networks import Vlsm
from tissuetalk.models.segmenter import RGB

Preset = Literal["paper", "released"]


@dataclass(frozen=True)
class Settings:
    """rate: of the decoder; encoder_rate: of trained encoders. dice, cross: weights of the two losses."""

    dice: float
    cross: float
    rate: float
    encoder_rate: float
    patience: int
    decay: float = 0.0
    clip_norm: float | None = None
    batch: int = 16


SETTINGS: Final[dict[tuple[Preset, bool], Settings]] = {
    ("paper", False): Settings(1.0, 0.2, 1e-3, 1e-3, 50),
    ("paper", True): Settings(0.0, 1.0, 1e-5, 1e-6, 10),
    ("released", False): Settings(1.0, 0.2, 2e-4, 2e-4, 50, decay=1e-3, clip_norm=0.5),
    ("released", True): Settings(0.0, 1.0, 2e-5, 2e-5, 10, decay=1e-3, clip_norm=0.5),
}
"""By preset and whether the model is CRIS."""


def settings_of(model: Vlsm, preset: Preset) -> Settings:
    return SETTINGS[preset, model.name == "cris"]


def vlsm_loss(logits: Tensor, truth: Tensor, settings: Settings) -> Tensor:
    """Weighted soft Dice and cross-entropy of [B, S, S] logits; truth in 0..1."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum((-2, -1)) + 1
    dice = 1 - overlap / (probability.sum((-2, -1)) + truth.sum((-2, -1)) + 1)
    cross = functional.binary_cross_entropy_with_logits(logits, truth)
    return settings.dice * dice.mean() + settings.cross * cross


def optimiser_of(model: Vlsm, settings: Settings) -> torch.optim.Optimizer:
    """Adam, or AdamW where weights decay; encoders at their own rate."""
    inside = {id(weight) for part in model.network.encoders for weight in part.parameters()}
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in learned if id(weight) not in inside], "lr": settings.rate},
        {"params": [weight for weight in learned if id(weight) in inside], "lr": settings.encoder_rate},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.decay:
        return torch.optim.AdamW(groups, weight_decay=settings.decay)
    return torch.optim.Adam(groups)


def train_step(
    model: Vlsm,
    optimiser: torch.optim.Optimizer,
    settings: Settings,
    images: Sequence[RGB],
    texts: Sequence[str],
    masks: Sequence[Mask],
) -> float:
    """One step on a batch; masks [H, W] are brought to the network's size. Returns the loss."""
    model.train()
    logits = model(images, texts)
    size = (logits.shape[-1], logits.shape[-2])
    small = [cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for mask in masks]
    loss = vlsm_loss(logits, torch.from_numpy(np.stack(small)).to(logits), settings)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if settings.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimiser.step()
    return float(loss.detach())
