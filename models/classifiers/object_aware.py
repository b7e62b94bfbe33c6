"""A slide classifier that reads the slide object by object, so that its logit falls apart into shares of objects.

PathSegmentor paper (arXiv 2506.20988), object-aware model; spec explain.md, section 5. With S_j the attention-pooled
feature of object j and W, b the classifier: ``logit_c = (1/L) sum_j W_c . S_j + b_c``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tissuetalk.models.classifiers.object_pooling import ObjectBag
from tissuetalk.models.errors import InvalidArgumentError


@dataclass(frozen=True)
class ObjectAwareOutput:
    """logits: [C]. attention: [L, N], each row sums to 1, or to 0 for an absent object. slide: [L, d], the S_j."""

    logits: Tensor
    attention: Tensor
    slide: Tensor


@dataclass(frozen=True)
class ObjectAwareConfig:
    """Sizes and names, kept in the classifier's file. objects: L names in order, ``other`` last. width: of a token."""

    objects: tuple[str, ...]
    width: int
    classes: int
    hidden: int = 256
    gated: bool = True
    dropout: float = 0.25


class ObjectPoolers(nn.Module):
    """L attention poolers with weights of their own, evaluated together.

    Gated: ``a_i = w . (tanh(V x_i) * sigmoid(U x_i))``; plain leaves the second factor out (Ilse et al. 2018).
    """

    def __init__(self, config: ObjectAwareConfig) -> None:
        super().__init__()
        count, width, hidden = len(config.objects), config.width, config.hidden
        self.v, self.v_bias = _uniform(count, width, hidden), _uniform(count, 1, hidden, fan_in=width)
        self.u = _uniform(count, width, hidden) if config.gated else None
        self.u_bias = _uniform(count, 1, hidden, fan_in=width) if config.gated else None
        self.w = _uniform(count, hidden, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """[L, N] attention from features [L, N, d]; patches without the object (present [L, N]) get exactly 0."""
        seen = torch.tanh(torch.baddbmm(self.v_bias, features, self.v))
        if self.u is not None and self.u_bias is not None:
            seen = seen * torch.sigmoid(torch.baddbmm(self.u_bias, features, self.u))
        scores = torch.bmm(self.dropout(seen), self.w).squeeze(-1).masked_fill(~present, -torch.inf)
        anywhere = present.any(dim=1, keepdim=True)
        return torch.where(anywhere, scores, 0.0).softmax(dim=1) * present


def _uniform(*shape: int, fan_in: int | None = None) -> nn.Parameter:
    """As ``nn.Linear`` starts."""
    bound = (fan_in or shape[1]) ** -0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class ObjectAwareModel(nn.Module):
    """Logits of one slide from its object features.

    Features are first centred and scaled with the training slides' own statistics (ours): the frozen encoder's large
    common offset would otherwise dominate every share. An absent object keeps S_j = 0 and its place in the average.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, config: ObjectAwareConfig) -> None:
        super().__init__()
        self.config = config
        self.poolers = ObjectPoolers(config)
        self.classify = nn.Linear(config.width, config.classes)
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("spread", torch.ones(config.width))

    def standardise_like(self, bags: Sequence[ObjectBag]) -> None:
        """Remember mean and spread over every object of every training patch."""
        seen = torch.cat([torch.from_numpy(bag.features[bag.present]) for bag in bags])
        spread = seen.std(0)
        self.mean.copy_(seen.mean(0))
        self.spread.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def project(self, bag: ObjectBag) -> tuple[Tensor, Tensor]:
        """([L, N, d] O_ij as poolers and classifier see them, zero where absent; [L, N] presence)."""
        if bag.objects != self.config.objects:
            raise InvalidArgumentError(
                f"this classifier reads {', '.join(self.config.objects)}, in that order; the slide was pooled for "
                f"{', '.join(bag.objects)}. Pool it again with the classifier's own objects."
            )
        shown = torch.from_numpy(bag.present.T.copy())
        own = (torch.from_numpy(bag.features) - self.mean) / self.spread
        return own.transpose(0, 1) * shown[:, :, None], shown

    def attend(self, bag: ObjectBag) -> ObjectAwareOutput:
        own, shown = self.project(bag)
        attention = self.poolers(own, shown)
        slide = torch.bmm(attention[:, None], own).squeeze(1)
        return ObjectAwareOutput(self.classify(slide.mean(dim=0)), attention, slide)

    def forward(self, bag: ObjectBag) -> Tensor:
        """[C] logits of one slide."""
        return self.attend(bag).logits

    @torch.no_grad()
    def centre_classes(self) -> None:
        """Take from every class what all classes share: probabilities stay, and a share now speaks for one class only."""
        self.classify.weight.sub_(self.classify.weight.mean(dim=0))
        self.classify.bias.sub_(self.classify.bias.mean())
