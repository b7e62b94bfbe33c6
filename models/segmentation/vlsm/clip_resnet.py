"""CLIP with a ResNet-50, as CRIS uses it: maps of three scales, words and a sentence. Names are those of the published weights."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ClipSizes:
    """The defaults are CLIP RN50. grid: side of the learned positions of the attention pool."""

    width: int = 64
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    heads: int = 32
    grid: int = 7
    joint: int = 1024
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    vocabulary: int = 49408
    context: int = 77


class Bottleneck(nn.Module):
    """ResNet block that shrinks by average pooling instead of a strided convolution."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != 4 * planes:
            shortcut = [("-1", nn.AvgPool2d(stride)), ("0", nn.Conv2d(inputs, 4 * planes, 1, bias=False))]
            self.downsample = nn.Sequential(OrderedDict([*shortcut, ("1", nn.BatchNorm2d(4 * planes))]))

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(self.avgpool(x)))
        return functional.relu(x + kept)


class AttentionMap(nn.Module):
    """CLIP's attention pool kept as a map: every place attends to all places, plus a linear shortcut."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        inputs = 32 * sizes.width
        self.heads = sizes.heads
        self.positional_embedding = nn.Parameter(torch.randn(sizes.grid**2 + 1, inputs) / inputs**0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(inputs, inputs) for _ in range(3))
        self.c_proj = nn.Linear(inputs, sizes.joint)
        self.connect = nn.Sequential(
            nn.Conv2d(inputs, sizes.joint, 1, bias=False), nn.BatchNorm2d(sizes.joint)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, joint, h, w]."""
        rows, columns = x.shape[-2:]
        side = round((len(self.positional_embedding) - 1) ** 0.5)
        grid = self.positional_embedding[1:].T.reshape(1, -1, side, side)
        places = functional.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        tokens = (x + places).flatten(2).transpose(1, 2)
        split = [
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        ]
        seen = functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        mapped = self.c_proj(seen).transpose(1, 2).reshape(len(x), -1, rows, columns)
        return functional.relu(mapped + self.connect(x))


class ModifiedResnet(nn.Module):
    """Three convolutions before the four stages, and the attention map after them."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        width = sizes.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        inputs = width
        for number, depth in enumerate(sizes.layers):
            planes = width * 2**number
            blocks = [Bottleneck(inputs, planes, 1 if number == 0 else 2)]
            inputs = 4 * planes
            blocks += [Bottleneck(inputs, planes, 1) for _ in range(depth - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionMap(sizes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, S, S] to maps at a stride of 8, 16 and 32."""
        for number in (1, 2, 3):
            x = functional.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x)))
        x = self.layer1(functional.avg_pool2d(x, 2))
        coarse = self.layer2(x)
        middle = self.layer3(coarse)
        return coarse, middle, self.attnpool(self.layer4(middle))


class TextBlock(nn.Module):
    """Pre-norm block with CLIP's quick GELU; a token sees itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), c_proj=nn.Linear(4 * width, width))
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        hidden = self.mlp[0](self.ln_2(x))
        out: Tensor = x + self.mlp[1](hidden * torch.sigmoid(1.702 * hidden))
        return out


class TextTower(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class ClipResnet(nn.Module):
    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        width = sizes.text_width
        self.visual = ModifiedResnet(sizes)
        self.transformer = TextTower(width, sizes.text_layers, sizes.text_heads)
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(sizes.context, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, sizes.joint) * width**-0.5)

    def encode_text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L] ids, zeros as padding, to words [B, L, 512] and the sentence [B, joint] at the end token (largest id)."""
        length = tokens.shape[1]
        later = torch.full((length, length), float("-inf"), device=tokens.device).triu(1)
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        words = self.ln_final(self.transformer(x, later))
        ends = words[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)]
        return words, ends @ self.text_projection
