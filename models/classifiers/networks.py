"""The networks of slide classifiers: gated attention over patches, and object by object (explain.md, sections 3 and 5).

Both end in one linear layer over averages, so that a logit falls apart into shares. Names of parameters are those of
published files; they never change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tissuetalk.models.classifiers.objects import ObjectBag
from tissuetalk.models.errors import InvalidArgumentError


class Standardised(nn.Module):
    """Brings vectors to zero mean and unit spread over the training slides.

    Ours: without it the frozen encoder's large common offset dominates every share.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def remember(self, seen: Tensor) -> None:
        """Mean and spread of training vectors [N, d]; a component that never varies is left as it is."""
        spread = seen.std(0)
        self.mean.copy_(seen.mean(0))
        self.spread.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def standardise(self, vectors: Tensor) -> Tensor:
        """[..., d]"""
        return (vectors - self.mean) / self.spread


@dataclass(frozen=True)
class MilConfig:
    """Sizes, kept in the classifier's file. width: of a patch vector. gated: with the sigmoid gate of Ilse et al. 2018.

    pre_fc: units of CLAM's layer in front of the attention; 0 leaves it out, as the activation map wants it.
    """

    width: int
    classes: int
    hidden: int = 256
    gated: bool = True
    dropout: float = 0.25
    pre_fc: int = 0


class AttentionPool(nn.Module):
    """phi: weights that sum to 1 over the patches of a slide."""

    def __init__(self, width: int, config: MilConfig) -> None:
        super().__init__()
        self.tanh = nn.Linear(width, config.hidden)
        self.gate = nn.Linear(width, config.hidden) if config.gated else None
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(config.hidden, 1)

    def forward(self, patches: Tensor) -> Tensor:
        """[N] weights for [N, d] patches."""
        seen = torch.tanh(self.tanh(patches))
        if self.gate is not None:
            seen = seen * torch.sigmoid(self.gate(patches))
        return torch.softmax(self.score(self.dropout(seen))[:, 0], dim=0)


class AttentionMIL(Standardised):
    """The standard classifier: patch vectors in, logits out."""

    def __init__(self, config: MilConfig) -> None:
        super().__init__(config.width)
        self.config = config
        width = config.pre_fc or config.width
        self.pre_fc = (
            nn.Sequential(nn.Linear(config.width, width), nn.ReLU()) if config.pre_fc else nn.Identity()
        )
        self.pool = AttentionPool(width, config)
        self.classify = nn.Linear(width, config.classes)

    def project(self, patches: Tensor) -> Tensor:
        """[N, d] patches as attention and classifier see them (the P_i of the activation map)."""
        projected: Tensor = self.pre_fc(self.standardise(patches))
        return projected

    def attend(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """([C] logits, [N] attention) for [N, d] patches."""
        seen = self.project(patches)
        attention = self.pool(seen)
        return self.classify(attention @ seen), attention

    def forward(self, patches: Tensor) -> Tensor:
        return self.attend(patches)[0]

    def contributions(self, patches: Tensor) -> Tensor:
        """[N, C]: what each patch adds to each logit (A_i^c); their sum plus the bias is the logit."""
        seen = self.project(patches)
        added: Tensor = self.pool(seen)[:, None] * (seen @ self.classify.weight.T)
        return added


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
        # a row of -inf alone would make softmax NaN: an object that is nowhere scores 0 and is masked afterwards
        anywhere = present.any(dim=1, keepdim=True)
        return torch.where(anywhere, scores, 0.0).softmax(dim=1) * present


def _uniform(*shape: int, fan_in: int | None = None) -> nn.Parameter:
    """As ``nn.Linear`` starts."""
    bound = (fan_in or shape[1]) ** -0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


@dataclass(frozen=True)
class ObjectAwareOutput:
    """logits: [C]. attention: [L, N], each row sums to 1, or to 0 for an absent object. slide: [L, d], the S_j."""

    logits: Tensor
    attention: Tensor
    slide: Tensor


class ObjectAwareModel(Standardised):
    """Logits of one slide from its object features (PathSegmentor paper, arXiv 2506.20988, object-aware model).

    With S_j the attention-pooled feature of object j and W, b the classifier: ``logit_c = (1/L) sum_j W_c . S_j + b_c``.
    An absent object keeps S_j = 0 and its place in the average.
    """

    def __init__(self, config: ObjectAwareConfig) -> None:
        super().__init__(config.width)
        self.config = config
        self.poolers = ObjectPoolers(config)
        self.classify = nn.Linear(config.width, config.classes)

    def project(self, bag: ObjectBag) -> tuple[Tensor, Tensor]:
        """([L, N, d] O_ij as poolers and classifier see them, zero where absent; [L, N] presence)."""
        if bag.objects != self.config.objects:
            raise InvalidArgumentError(
                f"this classifier reads {', '.join(self.config.objects)}, in that order; the slide was pooled for "
                f"{', '.join(bag.objects)}. Pool it again with the classifier's own objects."
            )
        shown = torch.from_numpy(bag.present.T.copy())
        own = self.standardise(torch.from_numpy(bag.features))
        return own.transpose(0, 1) * shown[:, :, None], shown

    def attend(self, bag: ObjectBag) -> ObjectAwareOutput:
        own, shown = self.project(bag)
        attention = self.poolers(own, shown)
        slide = torch.bmm(attention[:, None], own).squeeze(1)
        return ObjectAwareOutput(self.classify(slide.mean(dim=0)), attention, slide)

    def forward(self, bag: ObjectBag) -> Tensor:
        """[C] logits of one slide."""
        return self.attend(bag).logits

    def remember_objects(self, bags: Sequence[ObjectBag]) -> None:
        """Mean and spread over every object of every training patch."""
        self.remember(torch.cat([torch.from_numpy(bag.features[bag.present]) for bag in bags]))

    @torch.no_grad()
    def centre_classes(self) -> None:
        """Take from every class what all classes share: probabilities stay, and a share now speaks for one class only."""
        self.classify.weight.sub_(self.classify.weight.mean(dim=0))
        self.classify.bias.sub_(self.classify.bias.mean())
