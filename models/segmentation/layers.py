"""Layers that several networks share. Their parameter names are those of published checkpoints: do not rename them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        last = functional.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, eps=1e-6
        )
        return last.permute(0, 3, 1, 2)


def neck(inside: int, outside: int) -> nn.Sequential:
    """What SAM's image encoders end with: [B, inside, H, W] to [B, outside, H, W]."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 1, bias=False),
        ChannelNorm(outside),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        ChannelNorm(outside),
    )
