"""Matching and losses of the full-size PathSegmentor (pathsegmentor.md, section 6).

There is one sentence a tile, so the Hungarian assignment is the cheapest query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.segmentation.pathsegmentor.base import cosine
from tissuetalk.models.segmentation.pathsegmentor.joint import QueryAnswers
from tissuetalk.models.training.base_recipe import BaseRecipe

BCE_COST: Final = 5.0
DICE_COST: Final = 5.0
SIMILARITY_COST: Final = 2.0
OVERSAMPLE: Final = 3
UNCERTAIN_SHARE: Final = 0.75
LARGEST_SCALE: Final = 100.0


def bce(logits: Tensor, truth: Tensor) -> Tensor:
    """[...] mean cross-entropy over the points of [..., P]."""
    return functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """[...] one minus soft Dice over the points of [..., P], smoothed by 1."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum(-1) + 1
    return 1 - overlap / (probability.sum(-1) + truth.sum(-1) + 1)


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """[B, N, P] values of maps [B, N, H, W] at points [B, P, 2] (x, y in 0..1), bilinear."""
    grid = 2 * points[:, None] - 1
    read = functional.grid_sample(maps, grid, mode="bilinear", align_corners=False, padding_mode="border")
    return read[:, :, 0]


def uncertain_points(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[B, count, 2]: three quarters where masks [B, H, W] are least sure among three times as many, the rest anywhere."""
    batch = logits.shape[0]
    drawn = torch.rand(batch, OVERSAMPLE * count, 2, generator=generator).to(logits.device)
    doubt = -at_points(logits[:, None], drawn)[:, 0].abs()
    kept = doubt.topk(round(UNCERTAIN_SHARE * count), dim=1).indices
    chosen = drawn.gather(1, kept[..., None].expand(-1, -1, 2))
    anywhere = torch.rand(batch, count - kept.shape[1], 2, generator=generator).to(logits.device)
    return torch.cat([chosen, anywhere], dim=1)


def best_query(answers: QueryAnswers, similarity: Tensor, truth: Tensor, points: Tensor) -> Tensor:
    """[B] the query each sentence's mask is assigned to. similarity: [B, N] scaled logits; truth: [B, H, W]."""
    with torch.no_grad():
        found = at_points(answers.masks.float(), points)
        wanted = at_points(truth[:, None], points).expand_as(found)
        cost = BCE_COST * bce(found, wanted) + DICE_COST * dice_loss(found, wanted)
        return (cost - SIMILARITY_COST * similarity.softmax(-1)).argmin(-1)


def supervised(
    steps: Sequence[QueryAnswers],
    sentence: Tensor,
    logit_scale: Tensor,
    truth: Tensor,
    shown: Tensor,
    counts: Tensor,
    recipe: BaseRecipe,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Loss over every prediction step with equal weight, and its parts.

    Args:
        sentence: [B, d]. truth: [B, H, W] in 0..1. shown: [B], 1 where the tile shows the target: its mask is assigned to
            a query, which is to be like the sentence. Elsewhere the query most like the sentence must paint nothing.
        counts: [B], 0 for a tile that teaches nothing.
    """
    rows = torch.arange(len(sentence), device=sentence.device)
    weight = counts / counts.sum().clamp(min=1)
    totals = torch.zeros(3, device=sentence.device)
    for answers in steps:
        scale = logit_scale.exp().clamp(max=LARGEST_SCALE)
        similarity = scale * cosine(answers.classes.float(), sentence.float())
        points = torch.rand(len(sentence), recipe.points, 2, generator=generator).to(truth.device)
        matched = best_query(answers, similarity, truth, points)
        chosen = torch.where(shown > 0, matched, similarity.argmax(-1))
        masks = answers.masks[rows, chosen].float()
        logits, wanted = _compared(masks, truth, recipe, generator)
        named = shown * functional.cross_entropy(similarity, chosen, reduction="none")
        parts = (bce(logits, wanted), dice_loss(logits, wanted), named)
        totals = totals + torch.stack([(part * weight).sum() for part in parts])
    weights = totals.new_tensor([recipe.bce_weight, recipe.dice_weight, recipe.similarity_weight])
    told = totals.detach() / len(steps)
    named_parts = dict(zip(("bce", "dice", "similarity"), (float(value) for value in told), strict=True))
    return (weights * totals).sum(), named_parts


def _compared(
    masks: Tensor, truth: Tensor, recipe: BaseRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """[B, P] logits and truth, on points or on every pixel of the mask's own size."""
    if recipe.full_image_loss:
        small = functional.interpolate(truth[:, None], size=masks.shape[-2:], mode="area")[:, 0]
        return masks.flatten(1), small.flatten(1)
    with torch.no_grad():
        points = uncertain_points(masks, recipe.points, generator)
        wanted = at_points(truth[:, None], points)[:, 0]
    return at_points(masks[:, None], points)[:, 0], wanted
