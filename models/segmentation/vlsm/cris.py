"""CRIS: CLIP's ResNet-50, a sentence-guided neck, a pixel-to-word decoder, and a kernel made from the sentence.

Facts: the published code; names are those of the published weights.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.segmentation.layers import ClipTextBlock, ConvNormAct

THRESHOLD = 0.35
"""Probability from which CRIS counts a pixel as foreground."""


@dataclass(frozen=True)
class ClipResnetSizes:
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
            # Keys -1, 0, 1: the pool came before the numbering in CLIP's own code.
            shortcut = [("-1", nn.AvgPool2d(stride)), ("0", nn.Conv2d(inputs, 4 * planes, 1, bias=False))]
            self.downsample = nn.Sequential(OrderedDict([*shortcut, ("1", nn.BatchNorm2d(4 * planes))]))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H/stride, W/stride]."""
        kept = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(self.avgpool(x)))
        return functional.relu(x + kept)


class AttentionMap(nn.Module):
    """CLIP's attention pool kept as a map: every place attends to all places, plus a linear shortcut."""

    def __init__(self, sizes: ClipResnetSizes) -> None:
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
        # The first position was that of the pooled mean, which a map does not have.
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

    def __init__(self, sizes: ClipResnetSizes) -> None:
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


class ClipResnet(nn.Module):
    def __init__(self, sizes: ClipResnetSizes) -> None:
        super().__init__()
        width = sizes.text_width
        self.visual = ModifiedResnet(sizes)
        blocks = [ClipTextBlock(width, sizes.text_heads) for _ in range(sizes.text_layers)]
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*blocks)})
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(sizes.context, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, sizes.joint) * width**-0.5)

    def encode_text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L] ids, zeros as padding, to words [B, L, 512] and the sentence [B, joint] at the end token (largest id)."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        words = self.ln_final(self.transformer["resblocks"](x))
        ends = words[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)]
        return words, ends @ self.text_projection


@dataclass(frozen=True)
class CrisSizes:
    clip: ClipResnetSizes = field(default_factory=ClipResnetSizes)
    neck: tuple[int, int, int] = (256, 512, 1024)
    layers: int = 3
    heads: int = 8
    hidden: int = 2048
    dropout: float = 0.2
    side_px: int = 416


def doubled(x: Tensor) -> Tensor:
    """[B, C, H, W] to [B, C, 2H, 2W]."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class CoordConv(nn.Module):
    """A convolution that also sees x and y in -1..1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(inputs + 2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H, W]."""
        rows, columns = x.shape[-2:]
        y = torch.linspace(-1, 1, rows, device=x.device, dtype=x.dtype)
        across = torch.linspace(-1, 1, columns, device=x.device, dtype=x.dtype)
        grid = torch.stack(torch.meshgrid(y, across, indexing="ij")[::-1]).expand(len(x), -1, -1, -1)
        out: Tensor = self.conv1(torch.cat([x, grid], dim=1))
        return out


class CrisNeck(nn.Module):
    """The sentence gates the coarsest map; finer ones join; all end at the middle scale."""

    def __init__(self, inputs: tuple[int, int, int], outputs: tuple[int, int, int]) -> None:
        super().__init__()
        fine, middle, coarse = outputs
        self.txt_proj = nn.Sequential(
            nn.Linear(inputs[2], coarse, bias=False), nn.BatchNorm1d(coarse), nn.ReLU()
        )
        self.f1_v_proj = ConvNormAct(inputs[2], coarse, 1)
        self.norm_layer = nn.Sequential(nn.BatchNorm2d(coarse), nn.ReLU())
        self.f2_v_proj = ConvNormAct(inputs[1], middle)
        self.f2_cat = ConvNormAct(coarse + middle, middle, 1)
        self.f3_v_proj = ConvNormAct(inputs[0], fine)
        self.f3_cat = ConvNormAct(fine + middle, middle, 1)
        self.f4_proj5 = ConvNormAct(coarse, middle)
        self.f4_proj4 = ConvNormAct(middle, middle)
        self.f4_proj3 = ConvNormAct(middle, middle)
        self.aggr = ConvNormAct(3 * middle, middle, 1)
        self.coordconv = nn.Sequential(CoordConv(middle, middle), ConvNormAct(middle, middle))

    def forward(self, maps: tuple[Tensor, Tensor, Tensor], sentence: Tensor) -> Tensor:
        """Maps at a stride of 8, 16, 32 and [B, joint] to [B, middle, S/16, S/16]."""
        v3, v4, v5 = maps
        f5 = self.norm_layer(self.f1_v_proj(v5) * self.txt_proj(sentence)[:, :, None, None])
        f4 = self.f2_cat(torch.cat([self.f2_v_proj(v4), doubled(f5)], dim=1))
        f3 = self.f3_cat(torch.cat([functional.avg_pool2d(self.f3_v_proj(v3), 2), f4], dim=1))
        joined = torch.cat([self.f4_proj3(f3), self.f4_proj4(f4), doubled(self.f4_proj5(f5))], dim=1)
        out: Tensor = self.coordconv(self.aggr(joined))
        return out


class CrisDecoderLayer(nn.Module):
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
        """pixels [B, h*w, C] at places ``at``, words [B, L, W] in ``order``; padding: [B, L], True where nobody looks."""
        normed = self.norm1(pixels)
        seen = self.self_attn(normed + at, normed + at, normed, need_weights=False)[0]
        pixels = pixels + self.dropout1(self.self_attn_norm(seen))
        read = self.multihead_attn(
            self.norm2(pixels) + at, words + order, words, key_padding_mask=padding, need_weights=False
        )[0]
        pixels = pixels + self.dropout2(self.cross_attn_norm(read))
        out: Tensor = pixels + self.dropout3(self.ffn(self.norm3(pixels)))
        return out


class CrisDecoder(nn.Module):
    def __init__(self, sizes: CrisSizes, width: int, words: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrisDecoderLayer(sizes, width, words) for _ in range(sizes.layers))
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


class CrisProjector(nn.Module):
    """The sentence becomes one 3x3 kernel and a bias for the enlarged map."""

    def __init__(self, sentence: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.vis = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            ConvNormAct(2 * width, 2 * width),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            ConvNormAct(2 * width, width),
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
        self.neck = CrisNeck((8 * clip.width, 16 * clip.width, clip.joint), sizes.neck)
        self.decoder = CrisDecoder(sizes, sizes.neck[1], clip.text_width)
        self.proj = CrisProjector(clip.joint, sizes.neck[1] // 2)

    def forward(self, images: Tensor, tokens: Tensor, known: Tensor) -> Tensor:
        return self.answer(self.see(images), tokens, known)

    def see(self, images: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], torch.Size]:
        """What is read of pictures, whatever is asked about them, and their height and width."""
        return self.backbone.visual(images), images.shape[-2:]

    def answer(
        self, seen: tuple[tuple[Tensor, Tensor, Tensor], torch.Size], tokens: Tensor, known: Tensor
    ) -> Tensor:
        """known: [B, L] bool; padding is False."""
        pictures, size = seen
        tokens = tokens.where(known, 0)  # the end token is found as the largest id: padding must not be
        words, sentence = self.backbone.encode_text(tokens)
        logits = self.proj(self.decoder(self.neck(pictures, sentence), words, tokens == 0), sentence)
        # As published: bicubic, corners aligned.
        return functional.interpolate(logits, size, mode="bicubic", align_corners=True)

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.backbone]
