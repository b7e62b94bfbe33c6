"""Layers that several networks share. Their parameter names are those of published checkpoints: do not rename them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

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
        last = x.permute(0, 2, 3, 1)
        normed = functional.layer_norm(last, self.weight.shape, self.weight, self.bias, eps=1e-6)
        return normed.permute(0, 3, 1, 2)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, activation: at inference one convolution."""

    def __init__(
        self,
        inside: int,
        outside: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        eps: float = 1e-5,
        act: type[nn.Module] = nn.ReLU,
    ) -> None:
        """act: nn.Identity for none."""
        super().__init__(
            nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outside, eps=eps),
            act(inplace=True),
        )


def soft_dice(probability: Tensor, truth: Tensor) -> Tensor:
    """[...] one minus the Dice of every map of [..., H, W], both in 0..1; 1 in both terms keeps empty maps finite."""
    overlap = 2 * (probability * truth).sum((-2, -1)) + 1
    return 1 - overlap / (probability.sum((-2, -1)) + truth.sum((-2, -1)) + 1)


def neck(inside: int, outside: int) -> nn.Sequential:
    """What SAM's image encoders end with: [B, inside, H, W] to [B, outside, H, W]."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 1, bias=False),
        ChannelNorm(outside),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        ChannelNorm(outside),
    )


class Perceptron(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class SelfAttention(nn.Module):
    """Query, key and value come from one linear layer, as timm lays them out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] to the same."""
        count, length, width = x.shape
        qkv = self.qkv(x).reshape(count, length, 3, self.heads, width // self.heads)
        answer = functional.scaled_dot_product_attention(
            *qkv.permute(2, 0, 3, 1, 4)
        )  # 3 x [B, heads, N, C / heads]
        out: Tensor = self.proj(answer.transpose(1, 2).reshape(count, length, width))
        return out


class VitBlock(nn.Module):
    """Pre-norm block of a vision transformer, with timm's names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Perceptron(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] to the same."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ClipTextBlock(nn.Module):
    """Pre-norm block of CLIP's text tower: a token sees itself and those before it, so padding behind changes nothing."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, C] to the same."""
        length = tokens.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        normed = self.ln_1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, attn_mask=later, need_weights=False)[0]
        hidden = self.mlp[0](self.ln_2(tokens))
        # CLIP's quick GELU: x * sigmoid(1.702 x) stands in for the exact one.
        out: Tensor = tokens + self.mlp[1](hidden * torch.sigmoid(1.702 * hidden))
        return out


def bert(*, vocabulary: int, width: int, layers: int, heads: int) -> Any:
    """An untrained BERT of transformers without its pooler, at the usual ratio of four."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    return BertModel(config, add_pooling_layer=False)
