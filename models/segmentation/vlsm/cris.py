"""CRIS: sentence-guided neck, pixel-to-word decoder, and a kernel made from the sentence (facts: the published code)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.segmentation.vlsm.clip_resnet import ClipResnet, ClipSizes

THRESHOLD = 0.35
"""Probability from which CRIS counts a pixel as foreground."""


@dataclass(frozen=True)
class CrisSizes:
    clip: ClipSizes = field(default_factory=ClipSizes)
    neck: tuple[int, int, int] = (256, 512, 1024)
    layers: int = 3
    heads: int = 8
    hidden: int = 2048
    dropout: float = 0.2
    side_px: int = 416


def conv(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class CoordConv(nn.Module):
    """A convolution that also sees x and y in -1..1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs + 2, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        y = torch.linspace(-1, 1, rows, device=x.device, dtype=x.dtype)
        across = torch.linspace(-1, 1, columns, device=x.device, dtype=x.dtype)
        grid = torch.stack(torch.meshgrid(y, across, indexing="ij")[::-1]).expand(len(x), -1, -1, -1)
        out: Tensor = self.conv1(torch.cat([x, grid], dim=1))
        return out


class Neck(nn.Module):
    """The sentence gates the coarsest map; finer ones join; all end at the middle scale."""

    def __init__(self, inputs: tuple[int, int, int], outputs: tuple[int, int, int]) -> None:
        super().__init__()
        fine, middle, coarse = outputs
        self.txt_proj = nn.Sequential(
            nn.Linear(inputs[2], coarse, bias=False), nn.BatchNorm1d(coarse), nn.ReLU()
        )
        self.f1_v_proj = conv(inputs[2], coarse)
        self.norm_layer = nn.Sequential(nn.BatchNorm2d(coarse), nn.ReLU())
        self.f2_v_proj = conv(inputs[1], middle, 3)
        self.f2_cat = conv(coarse + middle, middle)
        self.f3_v_proj = conv(inputs[0], fine, 3)
        self.f3_cat = conv(fine + middle, middle)
        self.f4_proj5 = conv(coarse, middle, 3)
        self.f4_proj4 = conv(middle, middle, 3)
        self.f4_proj3 = conv(middle, middle, 3)
        self.aggr = conv(3 * middle, middle)
        self.coordconv = nn.Sequential(CoordConv(middle, middle), conv(middle, middle, 3))

    def forward(self, maps: tuple[Tensor, Tensor, Tensor], sentence: Tensor) -> Tensor:
        """Maps at a stride of 8, 16, 32 and [B, joint] to [B, middle, S/16, S/16]."""
        v3, v4, v5 = maps
        f5 = self.norm_layer(self.f1_v_proj(v5) * self.txt_proj(sentence)[:, :, None, None])
        f4 = self.f2_cat(torch.cat([self.f2_v_proj(v4), doubled(f5)], dim=1))
        f3 = self.f3_cat(torch.cat([functional.avg_pool2d(self.f3_v_proj(v3), 2), f4], dim=1))
        joined = torch.cat([self.f4_proj3(f3), self.f4_proj4(f4), doubled(self.f4_proj5(f5))], dim=1)
        out: Tensor = self.coordconv(self.aggr(joined))
        return out


class DecoderLayer(nn.Module):
    """Pixels among themselves, pixels to words, feed-forward; norms before and after the attentions."""

    def __init__(self, sizes: CrisSizes, width: int, words: int) -> None:
        super().__init__()
        self.self_attn_norm = nn.LayerNorm(width)
        self.cross_attn_norm = nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, sizes.heads, sizes.dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(
            width, sizes.heads, sizes.dropout, kdim=words, vdim=words, batch_first=True
        )
        self.ffn = nn.Sequential(
            nn.Linear(width, sizes.hidden),
            nn.ReLU(),
            nn.Dropout(sizes.dropout),
            nn.LayerNorm(sizes.hidden),
            nn.Linear(sizes.hidden, width),
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(sizes.dropout) for _ in range(3))

    def forward(self, pixels: Tensor, words: Tensor, at: Tensor, order: Tensor, padding: Tensor) -> Tensor:
        normed = self.norm1(pixels)
        seen = self.self_attn(normed + at, normed + at, normed, need_weights=False)[0]
        pixels = pixels + self.dropout1(self.self_attn_norm(seen))
        read = self.multihead_attn(
            self.norm2(pixels) + at, words + order, words, key_padding_mask=padding, need_weights=False
        )[0]
        pixels = pixels + self.dropout2(self.cross_attn_norm(read))
        out: Tensor = pixels + self.dropout3(self.ffn(self.norm3(pixels)))
        return out


class Decoder(nn.Module):
    def __init__(self, sizes: CrisSizes, width: int, words: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(sizes, width, words) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        """[B, C, h, w], [B, L, W] and [B, L] (True is padding) to [B, C, h, w]."""
        _, width, rows, columns = maps.shape
        pixels = maps.flatten(2).transpose(1, 2)
        at = sine_places_2d(width, rows, columns).to(maps)
        order = sine_places(words.shape[2], torch.arange(words.shape[1], dtype=torch.float32)).to(words)
        for layer in self.layers:
            pixels = layer(pixels, words, at, order, padding)
        out: Tensor = self.norm(pixels).transpose(1, 2).reshape(maps.shape)
        return out


def sine_places(width: int, places: Tensor) -> Tensor:
    """[N, width]: sine and cosine in turn."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = places[:, None] * rate
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def sine_places_2d(width: int, rows: int, columns: int) -> Tensor:
    """[rows * columns, width]: half of the channels tell x, half y."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    halves = [sine_places(width // 2, each.flatten().float()) for each in (x, y)]
    return torch.cat(halves, dim=1)


class Projector(nn.Module):
    """The sentence becomes one 3x3 kernel and a bias for the enlarged map."""

    def __init__(self, sentence: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.vis = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            conv(2 * width, 2 * width, 3),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            conv(2 * width, width, 3),
            nn.Conv2d(width, width, 1),
        )
        self.txt = nn.Linear(sentence, 9 * width + 1)

    def forward(self, maps: Tensor, sentence: Tensor) -> Tensor:
        """[B, 2C, h, w] and [B, joint] to logits [B, 1, 4h, 4w]."""
        pixels = self.vis(maps)
        count, width, rows, columns = pixels.shape
        made = self.txt(sentence)
        kernel = made[:, :-1].reshape(count, width, 3, 3)
        logits = functional.conv2d(
            pixels.reshape(1, count * width, rows, columns), kernel, made[:, -1], padding=1, groups=count
        )
        return logits.transpose(0, 1)


class Cris(nn.Module):
    """Images [B, 3, S, S] and token ids [B, L] to logits [B, 1, S, S]."""

    def __init__(self, sizes: CrisSizes | None = None) -> None:
        super().__init__()
        sizes = sizes or CrisSizes()
        clip = sizes.clip
        self.sizes = sizes
        self.backbone = ClipResnet(clip)
        self.neck = Neck((8 * clip.width, 16 * clip.width, clip.joint), sizes.neck)
        self.decoder = Decoder(sizes, sizes.neck[1], clip.text_width)
        self.proj = Projector(clip.joint, sizes.neck[1] // 2)

    def forward(self, images: Tensor, tokens: Tensor, known: Tensor) -> Tensor:
        """known: [B, L] bool; padding is False."""
        tokens = tokens.where(known, 0)
        words, sentence = self.backbone.encode_text(tokens)
        maps = self.neck(self.backbone.visual(images), sentence)
        logits = self.proj(self.decoder(maps, words, tokens == 0), sentence)
        return functional.interpolate(logits, images.shape[-2:], mode="bicubic", align_corners=True)

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.backbone]
