"""Last layers whose weights are generated for each image and request (facts: HATs, Omni-Seg; spec pfps.md, section 4)."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

HeadKind = Literal["hats", "replace_upscale"]
CHANNELS: Final = (8, 8, 8, 2)
"""Three 1x1 convolutions: 8 to 8, 8 to 8, 8 to 2 (background, foreground)."""
WEIGHTS: Final = tuple(a * b for a, b in pairwise(CHANNELS))
GENERATED: Final = sum(WEIGHTS) + sum(CHANNELS[1:])
"""162 values an image: all weights, then all biases."""
GROUPS: Final = 16


class Residual(nn.Module):
    """(GroupNorm, ReLU, 3x3 convolution) twice, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(GROUPS, channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class DynamicHead(nn.Module):
    """Image embedding and request vector decide the layers that turn features into two channels."""

    def __init__(
        self, *, image_width: int, request_width: int, feature_width: int, kind: HeadKind, scale: int
    ) -> None:
        """scale: how much larger the answer is than the image embedding (16); only ``replace_upscale`` needs it."""
        super().__init__()
        self.kind: HeadKind = kind
        self.scale = scale
        self.condition = nn.Sequential(
            nn.GroupNorm(GROUPS, image_width),
            nn.ReLU(),
            nn.Conv2d(image_width, image_width, 1),
            nn.GroupNorm(GROUPS, image_width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.controller = nn.Conv2d(image_width + request_width, GENERATED, 1)
        if kind == "hats":
            self.features: nn.Module = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"),
                Residual(feature_width),
                nn.Upsample(scale_factor=2, mode="nearest"),
                Residual(feature_width),
                nn.GroupNorm(GROUPS, feature_width),
                nn.ReLU(),
                nn.Conv2d(feature_width, CHANNELS[0], 1),
            )
        else:
            self.features = nn.Conv2d(image_width, CHANNELS[0], 1)

    def forward(self, embedding: Tensor, request: Tensor, features: Tensor) -> Tensor:
        """[B, D, h, w], [B, R] and features to [B, 2, H, W] logits.

        features: the upscaled decoder output [B, 32, 4h, 4w] for ``hats``, the decoder's image [B, D, h, w] otherwise.
        """
        seen = torch.cat([self.condition(embedding), request[:, :, None, None]], dim=1)
        values = self.controller(seen).flatten(1)
        maps = self.features(features)
        if self.kind == "replace_upscale":  # a 1x1 convolution and a linear enlargement may change places
            maps = functional.interpolate(maps, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return generated_layers(maps, values)


def split(values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """[B, 162] into weights [B, out, in] and biases [B, out] of the three layers."""
    parts = torch.split(values, [*WEIGHTS, *CHANNELS[1:]], dim=1)
    weights = [
        part.reshape(-1, after, before)
        for part, before, after in zip(parts[:3], CHANNELS[:-1], CHANNELS[1:], strict=True)
    ]
    return weights, list(parts[3:])


def generated_layers(maps: Tensor, values: Tensor) -> Tensor:
    """[B, 8, H, W] through each image's own three layers, as one grouped convolution each; ReLU between them."""
    count, _, height, width = maps.shape
    x = maps.reshape(1, -1, height, width)
    for number, (weight, bias) in enumerate(zip(*split(values), strict=True)):
        kernel = weight.reshape(-1, weight.shape[-1], 1, 1)
        x = functional.conv2d(x, kernel, bias.reshape(-1), groups=count)
        if number < 2:
            x = functional.relu(x)
    return x.reshape(count, CHANNELS[-1], height, width)
