"""Image encoders: RGB in, a pyramid of feature maps out. They never see a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def normalise(tiles: Tensor) -> Tensor:
    """[B, 3, H, W] pixels 0..255 to zero mean and unit variance over natural images (PathSegmentor, section 4)."""
    mean = torch.tensor(PIXEL_MEAN, device=tiles.device).view(1, 3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=tiles.device).view(1, 3, 1, 1)
    return (tiles.float() / 255 - mean) / std


class ConvNormAct(nn.Sequential):
    """3x3 convolution, batch norm, ReLU: folds into one convolution at inference."""

    def __init__(self, inside: int, outside: int, *, stride: int = 1, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inside, outside, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNormAct(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
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
