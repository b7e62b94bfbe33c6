"""TinyViT as LiteMedSAM uses it: 256 px in, 64x64 embeddings of 256 channels out.

Architecture: Wu et al., TinyViT, ECCV 2022, with the first convolutions at stride 1 and the last stage not reduced.
Module names follow the published weights, so that they load without a key map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class TinyVitShape:
    """Sizes of the four stages; the first is convolutional. ``window_px`` is the side of an attention window."""

    channels: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    window_px: tuple[int, int, int, int] = (7, 7, 14, 7)
    reduces: tuple[bool, bool, bool] = (True, True, False)
    out_channels: int = 256


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch norm."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outside)


class InvertedBottleneck(nn.Module):
    """Widen by four, filter each channel, narrow, add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, 4 * channels)
        self.conv2 = ConvNorm(4 * channels, 4 * channels, 3, groups=4 * channels)
        self.conv3 = ConvNorm(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        inner = functional.gelu(self.conv2(functional.gelu(self.conv1(x))))
        return functional.gelu(x + self.conv3(inner))


class Merge(nn.Module):
    """Change the number of channels and, if ``reduces``, halve the resolution."""

    def __init__(self, inside: int, outside: int, *, reduces: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inside, outside)
        self.conv2 = ConvNorm(outside, outside, 3, stride=2 if reduces else 1, groups=outside)
        self.conv3 = ConvNorm(outside, outside)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H', W']."""
        merged: Tensor = self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(x)))))
        return merged


class WindowAttention(nn.Module):
    """Self-attention inside one window, with a learned bias per head and distance (|dy|, |dx|)."""

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        gap = (place[:, :, None] - place[:, None, :]).abs()
        self.register_buffer("bias_index", gap[0] * side + gap[1], persistent=False)
        self.bias_index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[windows, side*side, C] to the same."""
        windows, tokens, channels = x.shape
        # Per head: query, key and value lie next to each other in the published weights.
        qkv = self.qkv(self.norm(x)).view(windows, tokens, self.heads, 3, channels // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=self.attention_biases[:, self.bias_index]
        )
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(windows, tokens, channels))
        return projected


class Mlp(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same."""
        widened: Tensor = self.fc2(functional.gelu(self.fc1(self.norm(x))))
        return widened


class WindowBlock(nn.Module):
    """Attention in windows, a depth-wise convolution across them, an MLP."""

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.attn = WindowAttention(channels, heads, side)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        batch, channels, height, width = x.shape
        side = self.side
        down, across = -height % side, -width % side
        padded = functional.pad(x, (0, across, 0, down)).permute(0, 2, 3, 1)
        rows, columns = (height + down) // side, (width + across) // side
        windows = padded.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        mixed = self.attn(windows.reshape(-1, side * side, channels))
        mixed = mixed.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        mixed = mixed.reshape(batch, height + down, width + across, channels)[:, :height, :width]
        x = self.local_conv(x + mixed.permute(0, 3, 1, 2))
        widened: Tensor = self.mlp(x.permute(0, 2, 3, 1))
        return x + widened.permute(0, 3, 1, 2)


class Stage(nn.Module):
    def __init__(self, blocks: list[nn.Module], merge: Merge | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = merge

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H', W']."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a picture."""

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


class PatchEmbedding(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, channels // 2), nn.GELU(), ConvNorm(channels // 2, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, C, H, W]."""
        embedded: Tensor = self.seq(x)
        return embedded


class TinyVit(nn.Module):
    """Image encoder of LiteMedSAM."""

    def __init__(self, shape: TinyVitShape | None = None) -> None:
        super().__init__()
        shape = shape or TinyVitShape()
        self.patch_embed = PatchEmbedding(shape.channels[0])
        self.layers = nn.ModuleList()
        for number, (channels, depth) in enumerate(zip(shape.channels, shape.depths, strict=True)):
            blocks: list[nn.Module] = [
                WindowBlock(channels, shape.heads[number], shape.window_px[number])
                if number
                else InvertedBottleneck(channels)
                for _ in range(depth)
            ]
            merge = None
            if number < len(shape.reduces):
                merge = Merge(channels, shape.channels[number + 1], reduces=shape.reduces[number])
            self.layers.append(Stage(blocks, merge))
        self.neck = nn.Sequential(
            nn.Conv2d(shape.channels[-1], shape.out_channels, 1, bias=False),
            ChannelNorm(shape.out_channels),
            nn.Conv2d(shape.out_channels, shape.out_channels, 3, padding=1, bias=False),
            ChannelNorm(shape.out_channels),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, 256, 256] in 0..1 to [B, 256, 64, 64]."""
        x = self.patch_embed(images)
        for layer in self.layers:
            x = layer(x)
        embedded: Tensor = self.neck(x)
        return embedded
