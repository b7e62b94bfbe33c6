"""Questions to the PFPs network, its loss and one step of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.segmentation.pfps.efficient_sam import prepared
from tissuetalk.models.segmentation.pfps.language import UNITS
from tissuetalk.models.segmentation.pfps.network import Pfps, foreground
from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.segmenter import RGB

SMOOTH = 1.0


@dataclass(frozen=True)
class Question:
    """One request about one image, in both forms it can be said in.

    truth: [H, W]. unit: key of UNIT_WORDS. task: 1 to 9. sentence: the task in words. point_xy: pixels of the image.
    """

    image: RGB
    truth: Mask
    unit: str
    task: int
    sentence: str
    point_xy: tuple[float, float] | None = None


def pfps_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Sigmoid Dice plus cross-entropy over both channels of [B, 2, H, W]; truth [B, H, W] in 0..1.

    The paper names no loss; this is that of its ancestor (spec pfps.md, section 7).
    """
    both = torch.stack([1 - truth, truth], dim=1)
    probability = logits.sigmoid()
    overlap = (probability * both).sum((-2, -1))
    total = probability.sum((-2, -1)) + both.sum((-2, -1))
    dice = 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)
    return dice.mean() + functional.binary_cross_entropy_with_logits(logits, both)


def ask(model: Pfps, questions: Sequence[Question]) -> Tensor:
    """[B, 2, S, S] logits at the model's input size, by sentence or ID as the model was built."""
    side = model.sizes.sam.image_px
    images = torch.cat([pixels_of(question.image, side) for question in questions])
    points = torch.zeros(len(questions), 2)
    for row, question in enumerate(questions):
        if question.point_xy is not None:
            height, width = question.image.shape[:2]
            points[row] = torch.tensor(
                [question.point_xy[0] * side / width, question.point_xy[1] * side / height]
            )
    pointed = torch.tensor([question.point_xy is not None for question in questions])
    if model.sizes.strategy == "text":
        request = model.request([question.sentence for question in questions])
    else:
        units = torch.tensor([UNITS.index(question.unit) for question in questions], device=images.device)
        tasks = torch.tensor([question.task for question in questions], device=images.device)
        request = model.request(units, tasks)
    logits: Tensor = model(images, request, points.to(images.device), pointed.to(images.device))
    return logits


def pixels_of(image: RGB, side: int) -> Tensor:
    """[1, 3, side, side], normalised."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device())
    return prepared(pixels[None].float() / 255, side)


def optimiser_of(model: Pfps, *, learning_rate: float = 1e-3) -> torch.optim.Adam:
    return torch.optim.Adam((each for each in model.parameters() if each.requires_grad), learning_rate)


def train_step(model: Pfps, optimiser: torch.optim.Optimizer, questions: Sequence[Question]) -> float:
    """One step on a batch; returns its loss."""
    model.train()
    logits = ask(model, questions)
    truth = torch.stack([torch.from_numpy(question.truth).float() for question in questions]).to(
        logits.device
    )
    if truth.shape[-2:] != logits.shape[-2:]:
        truth = functional.interpolate(truth[:, None], logits.shape[-2:], mode="nearest")[:, 0]
    loss = pfps_loss(logits, truth)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimiser.step()
    return float(loss.detach())


@torch.inference_mode()
def answer(model: Pfps, question: Question) -> Mask:
    """[H, W] mask at the image's own size."""
    model.eval()
    logits = functional.interpolate(
        ask(model, [question]), question.image.shape[:2], mode="bilinear", align_corners=False
    )
    return np.asarray(foreground(logits)[0].cpu().numpy())
