"""The standard slide classifier: gated attention over patch vectors and one linear layer (explain.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


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

    def __init__(self, width: int, *, hidden: int = 256, gated: bool = True, dropout: float = 0.25) -> None:
        super().__init__()
        self.tanh = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden) if gated else None
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(hidden, 1)

    def forward(self, patches: Tensor) -> Tensor:
        """[N] weights for [N, d] patches."""
        seen = torch.tanh(self.tanh(patches))
        if self.gate is not None:
            seen = seen * torch.sigmoid(self.gate(patches))
        return torch.softmax(self.score(self.dropout(seen))[:, 0], dim=0)


class AttentionMIL(nn.Module):
    """Patch vectors in, logits out; vectors are first brought to zero mean and unit spread over the training patches."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: MilConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("spread", torch.ones(config.width))
        width = config.pre_fc or config.width
        self.pre_fc = (
            nn.Sequential(nn.Linear(config.width, width), nn.ReLU()) if config.pre_fc else nn.Identity()
        )
        self.pool = AttentionPool(width, hidden=config.hidden, gated=config.gated, dropout=config.dropout)
        self.classify = nn.Linear(width, config.classes)

    def standardise_like(self, patches: Tensor) -> None:
        """Remember mean and spread of training patches [N, d]; a component that never varies is left as it is."""
        spread = patches.std(0)
        self.mean.copy_(patches.mean(0))
        self.spread.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def project(self, patches: Tensor) -> Tensor:
        """[N, d] patches as attention and classifier see them (the P_i of the activation map)."""
        projected: Tensor = self.pre_fc((patches - self.mean) / self.spread)
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
