"""Losses of groups of prompts: several sentences for one target on one image (prompt_groups.md, section 4).

``L = (1/K) sum_i Lseg_i + lambda Lgroup + beta Lcons``; architecture and inference stay as they are.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.segmentation.layers import soft_dice
from tissuetalk.models.training.recipes import GroupGradient

Reduction = Literal["mean", "sum"]
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


def group_weights(
    losses: Tensor, *, gradient: GroupGradient = "weights", strength: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """[..., K] detached weight of each sentence's loss: what ``mean + strength * Lgroup`` does to its gradient.

    Because the centred qualities sum to 0, the gradient of Lgroup with respect to ``Lseg_i`` is ``quality_i / temperature``.
    ``weights`` clamps at 0 and renormalises, so that no sentence is pushed the wrong way; ``weights_raw`` does not;
    ``none`` is the literal reading with all gradients stopped; ``softmax`` replaces the mean by the softmax weights.
    """
    losses = losses.detach()
    count = losses.shape[-1]
    even = torch.full_like(losses, 1 / count)
    # The literal reading of the paper stops every gradient: the group term then changes nothing.
    if gradient == "none" or count == 1:
        return even
    if gradient == "softmax":
        return torch.softmax(-losses / temperature, dim=-1)
    raw = even + strength * quality(losses) / temperature
    if gradient == "weights_raw":
        return raw
    clamped = raw.clamp(min=0)
    return clamped / clamped.sum(-1, keepdim=True)


def quality(losses: Tensor) -> Tensor:
    """[..., K] how much better than its group each sentence works; detached, sums to 0 (equation 5)."""
    losses = losses.detach()
    return losses.mean(-1, keepdim=True) - losses


def consistency(logits: Tensor, *, pairs: bool = False, reduction: Reduction = "mean") -> Tensor:
    """[...] squared distance of K sentences' logits [..., K, H, W] from the first one's, which gets no gradient.

    pairs: the ablation that compares all pairs with gradients on both sides. reduction: over pixels.
    """
    count = logits.shape[-3]
    if count == 1:
        return logits.new_zeros(logits.shape[:-3])
    reduce = torch.mean if reduction == "mean" else torch.sum
    if pairs:
        total = sum(
            reduce((logits[..., i, :, :] - logits[..., j, :, :]) ** 2, (-2, -1))
            for i in range(count)
            for j in range(i + 1, count)
        )
        return torch.as_tensor(total) * 2 / (count * (count - 1))
    reference = logits[..., :1, :, :].detach()
    return reduce((logits[..., 1:, :, :] - reference) ** 2, (-2, -1)).sum(-1) / (count - 1)


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """[...] mean focal loss over the pixels of [..., H, W]; truth in 0..1."""
    cross = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    share = logits.sigmoid()
    missed = share * (1 - truth) + (1 - share) * truth
    side = FOCAL_ALPHA * truth + (1 - FOCAL_ALPHA) * (1 - truth)
    return (side * missed**FOCAL_GAMMA * cross).mean((-2, -1))


def segment_losses(
    logits: Tensor, presence: Tensor | None, truth: Tensor, weights: tuple[float, float, float]
) -> Tensor:
    """[K] Lseg of every sentence: focal, Dice and presence with their weights.

    logits: [K, h, w]. presence: [K] logits, where the network gives them. truth: [h, w] in 0..1; where it shows nothing, only
    presence is learned.
    """
    mask_weight, dice_weight, presence_weight = weights
    shown = (truth.sum() > 0).float()
    wanted = truth.expand_as(logits)
    loss = mask_weight * focal(logits, wanted) + dice_weight * soft_dice(logits.sigmoid(), wanted)
    loss = shown * loss
    if presence is not None:
        said = functional.binary_cross_entropy_with_logits(
            presence, shown.expand_as(presence), reduction="none"
        )
        loss = loss + presence_weight * said
    return loss


def group_loss(losses: Tensor, temperature: float = 1.0) -> Tensor:
    """Lgroup of [..., K] losses as the paper writes it (equation 7); its gradient is what ``group_weights`` applies."""
    return -(quality(losses) * torch.log_softmax(-losses / temperature, dim=-1)).sum(-1)
