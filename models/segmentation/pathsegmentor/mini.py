"""The ``mini`` preset: PathSegmentor's diagram at a size that trains and answers on two CPU cores.

Differences from the paper that measurements asked for: masks at stride 2, a text tower that stays frozen (MiniLM) with a
learned projection, and queries that are written by the text itself instead of 101 learned ones to choose from; so the
joint module is a single step and no prompt can see another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.segmentation.layers import ConvNormAct
from tissuetalk.models.segmentation.pathsegmentor.lite_encoder import LitePyramid
from tissuetalk.models.segmentation.pathsegmentor.presence import Calibrations
from tissuetalk.models.segmentation.pretrained import IMAGENET_MEAN, IMAGENET_STD

WINDOW_PX = 256
"""Presence and scale are judged in windows of about this side, the size of a training crop."""


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of the mini preset; stored in the weight file's header.

    encoder: ``conv``, with the given widths and depths, or a size of ``lite_encoder.py``, which has its own.
    """

    encoder_widths: tuple[int, ...] = (32, 64, 128, 224, 320)
    encoder_depths: tuple[int, ...] = (0, 1, 2, 3, 2)
    decoder_widths: tuple[int, ...] = (48, 64, 96, 128, 192)
    text_width: int = 384
    hidden: int = 256
    queries: int = 16
    """Linear read-outs of the pixel features that one text vector writes."""
    encoder: str = "conv"


@dataclass(frozen=True)
class Features:
    """What is known about tiles before anybody asks. pixels: [B, C, H/2, W/2]; pooled: [B, W, D], a summary of each window."""

    pixels: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class MiniAnswers:
    """Answers at stride 2. mask, distance: [B, P, H/2, W/2] logits; presence: [B, P] logits, of the window that says it loudest."""

    mask: Tensor
    distance: Tensor
    presence: Tensor


def normalise(tiles: Tensor) -> Tensor:
    """[B, 3, H, W] pixels 0..255 to zero mean and unit variance over natural images (PathSegmentor, section 4)."""
    mean = torch.tensor(IMAGENET_MEAN, device=tiles.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=tiles.device).view(1, 3, 1, 1)
    return (tiles.float() / 255 - mean) / std


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNormAct(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return torch.relu(x + self.norm(self.second(self.first(x))))


class ConvPyramid(nn.Module):
    """The ``mini`` encoder: plain residual convolutions, because they are what a CPU runs fastest.

    widths, depths: channels and residual blocks at strides 2, 4, 8, 16, 32.
    """

    def __init__(self, *, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        stages: list[nn.Module] = []
        inside = 3
        for width, depth in zip(widths, depths, strict=True):
            stages.append(
                nn.Sequential(
                    ConvNormAct(inside, width, stride=2), *(ResidualBlock(width) for _ in range(depth))
                )
            )
            inside = width
        self.stages = nn.ModuleList(stages)

    def forward(self, tiles: Tensor) -> list[Tensor]:
        """Return feature maps, finest (stride 2) first.

        Args:
            tiles: [B, 3, H, W], normalised, H and W multiples of 32.
        """
        maps: list[Tensor] = []
        x = tiles
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class ConvPixelDecoder(nn.Module):
    """Top-down pyramid of the ``mini`` preset: from stride 32 back to stride 2.

    inside: encoder widths, finest first. widths: decoder widths at the same strides, finest first.
    """

    def __init__(self, *, inside: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.deepest = ConvNormAct(inside[-1], widths[-1], 1)
        self.laterals = nn.ModuleList(
            ConvNormAct(i, w, 1) for i, w in zip(inside[:-1], widths[:-1], strict=True)
        )
        self.narrows = nn.ModuleList(
            ConvNormAct(above, w, 1) for above, w in zip(widths[1:], widths[:-1], strict=True)
        )
        self.blocks = nn.ModuleList(
            ConvNormAct(w, w) if index == 0 else ResidualBlock(w) for index, w in enumerate(widths[:-1])
        )
        self.mask_features = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.width = widths[0]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[B, width, H/2, W/2] per-pixel features, from the encoder's maps (finest first)."""
        x: Tensor = self.deepest(maps[-1])
        for index in reversed(range(len(self.laterals))):
            narrow = self.narrows[index](x)
            up = functional.interpolate(narrow, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.blocks[index](self.laterals[index](maps[index]) + up)
        features: Tensor = self.mask_features(x)
        return features


class TextQueries(nn.Module):
    """A sentence vector writes a two-layer read-out of the pixel features (dynamic 1x1 filters).

    The first layer holds ``queries`` mask embeddings whose dot product with the pixel features is PathSegmentor's mask
    equation; the second mixes them into a mask map and a distance map.
    """

    def __init__(self, *, text_width: int, hidden: int, pixels: int, queries: int, pooled: int) -> None:
        super().__init__()
        self.pixels, self.queries = pixels, queries
        self.project = nn.Sequential(nn.Linear(text_width, hidden), nn.GELU(), nn.LayerNorm(hidden))
        self.first = nn.Linear(hidden, queries * (pixels + 1))
        self.second = nn.Linear(hidden, 2 * (queries + 1))
        self.image = nn.Linear(pooled, hidden)
        self.presence = nn.Sequential(nn.Linear(2 * hidden, 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, features: Features, text: Tensor) -> MiniAnswers:
        """Answer each sentence on its own.

        Args:
            text: [B, P, text_width], or [P, text_width] for the same sentences on every tile.
        """
        batch, _, height, width = features.pixels.shape
        # Nothing below mixes prompts: every row of ``words`` writes its own filters.
        words = self.project(text.expand(batch, -1, -1) if text.ndim == 2 else text)
        prompts = words.shape[1]
        flat = features.pixels.flatten(2)
        first = self.first(words).view(batch, prompts * self.queries, self.pixels + 1)
        # Scaled as attention is, so that a wider map does not make louder logits.
        read = torch.baddbmm(first[..., -1:], first[..., :-1] * self.pixels**-0.5, flat.to(first.dtype))
        read = functional.leaky_relu(read, 0.1).view(batch * prompts, self.queries, height * width)
        second = self.second(words).view(batch * prompts, 2, self.queries + 1)
        maps = torch.baddbmm(second[..., -1:], second[..., :-1], read.to(second.dtype))
        maps = maps.view(batch, prompts, 2, height, width)
        image = self.image(features.pooled)[:, :, None]
        asked = words[:, None].expand(-1, image.shape[1], -1, -1)
        presence = self.presence(torch.cat([asked * image, asked], dim=-1))[..., 0].amax(
            1
        )  # the loudest window
        return MiniAnswers(maps[:, :, 0], maps[:, :, 1], presence)


class MiniPathSegmentor(nn.Module):
    """Encode a tile once, then answer any number of sentences about it.

    presence_calibration: turns what was seen into the probability that the target is there.
    cuts: target to the mask logit at which its outline runs, where that is not 0.
    """

    def __init__(self, config: MiniConfig | None = None) -> None:
        super().__init__()
        self.config = config or MiniConfig()
        self.image_encoder = (
            ConvPyramid(widths=self.config.encoder_widths, depths=self.config.encoder_depths)
            if self.config.encoder == "conv"
            else LitePyramid(self.config.encoder)
        )
        self.pixel_decoder = ConvPixelDecoder(
            inside=self.image_encoder.widths, widths=self.config.decoder_widths
        )
        deep: Sequence[int] = self.image_encoder.widths[-3:]
        pooled = 2 * sum(deep)
        self.prompt_head = TextQueries(
            text_width=self.config.text_width,
            hidden=self.config.hidden,
            pixels=self.pixel_decoder.width,
            queries=self.config.queries,
            pooled=pooled,
        )
        self.presence_calibration: Calibrations = {}
        self.cuts: dict[str, float] = {}
        self.image_head = nn.Sequential(
            nn.LayerNorm(pooled), nn.Linear(pooled, 64), nn.GELU(), nn.Linear(64, 2)
        )

    def in_channels_last(self) -> MiniPathSegmentor:
        """Lay the weights out as a CPU's convolutions like them."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, missing in torch's stubs
        return self

    def encode_image(self, tiles: Tensor) -> Features:
        """[B, 3, H, W] pixels 0..255, H and W multiples of 32."""
        return self.encode_with_maps(tiles)[0]

    def encode_with_maps(self, tiles: Tensor) -> tuple[Features, list[Tensor]]:
        """What ``encode_image`` gives, and the image encoder's own maps [B, C, H/s, W/s] at strides s 2, 4, 8, 16, 32."""
        maps: list[Tensor] = self.image_encoder(
            normalise(tiles).contiguous(memory_format=torch.channels_last)
        )
        # As many windows as fit, so that a large tile is judged at the size the head was trained on.
        down, across = (max(1, round(side / WINDOW_PX)) for side in tiles.shape[-2:])
        pooled = [
            pool(deep, (down, across)).flatten(2).transpose(1, 2)
            for deep in (level.float() for level in maps[-3:])
            for pool in (functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d)
        ]
        return Features(self.pixel_decoder(maps), torch.cat(pooled, dim=2)), maps

    def decode(self, features: Features, text: Tensor) -> MiniAnswers:
        """text: [P, text_width], or [B, P, text_width]."""
        answers: MiniAnswers = self.prompt_head(features, text)
        return answers

    def describe_image(self, features: Features) -> tuple[Tensor, Tensor]:
        """[B] log2 of the µm per pixel the tile seems to have, and [B] logit that it is stained tissue at all."""
        scale, tissue = self.image_head(features.pooled).mean(1).unbind(-1)
        return scale, tissue

    def forward(self, tiles: Tensor, text: Tensor) -> MiniAnswers:
        """tiles: [B, 3, H, W] pixels 0..255. text: as for ``decode``."""
        return self.decode(self.encode_image(tiles), text)
