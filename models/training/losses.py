"""Segmentation loss with unknown pixels, and the prompt-group losses (prompt_groups.md, section 4).

``L = (1/K) sum_i Lseg_i + lambda Lgroup + beta Lcons``, where K sentences of one group share an image and a mask.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.segmentation.layers import soft_dice

GroupGradient = Literal["weights", "weights_raw", "none", "softmax"]


def masked_bce(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """[...] mean cross-entropy over the known pixels of [..., H, W]; 0 where nothing is known."""
    loss = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (loss * known).sum((-2, -1)) / known.sum((-2, -1)).clamp(min=1)


def masked_dice(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """[...] one minus soft Dice over the known pixels of [..., H, W]; 0 where nothing is known."""
    return soft_dice(logits.sigmoid() * known, truth * known)


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


def consistency(logits: Tensor, *, pairs: bool = False, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
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
