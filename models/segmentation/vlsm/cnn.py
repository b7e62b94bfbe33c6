"""The paper's baselines that read no words: U-Net, U-Net++ and DeepLabV3+ on a ResNet-50 of transformers.

U-Net: Ronneberger et al. 2015; U-Net++: Zhou et al. 2018; DeepLabV3+: Chen et al. 2018. Images [B, 3, S, S] to logits [B, 1, S, S].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pretrained import HubWeights, from_hub
from tissuetalk.models.segmentation.vlsm.card import CnnName

RESNET: Final = HubWeights("resnet", "TISSUETALK_RESNET50", "microsoft/resnet-50", "Apache-2.0")
Levels = tuple[Tensor, ...]
"""Maps of a picture at strides 2, 4, 8, 16 and 32 (of DeepLabV3+ 16 twice)."""


@dataclass(frozen=True)
class CnnSizes:
    """stem, stages, depths: of the encoder. decoder: widths of a U-Net's steps, coarse to fine. atrous: DeepLabV3+'s width."""

    decoder_kind: CnnName
    side_px: int = 256
    stem: int = 64
    stages: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    decoder: tuple[int, ...] = (256, 128, 64, 32, 16)
    atrous: int = 256
    low: int = 48
    rates: tuple[int, ...] = (12, 24, 36)


class CnnSegmenter(nn.Module):
    """Encoder and decoder. Answers every question about a picture the same: it has no words."""

    def __init__(self, sizes: CnnSizes) -> None:
        super().__init__()
        import transformers

        self.sizes = sizes
        kind: Any = transformers.ResNetConfig  # its type lacks out_features
        config = kind(
            embedding_size=sizes.stem,
            hidden_sizes=list(sizes.stages),
            depths=list(sizes.depths),
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        self.encoder: Any = transformers.ResNetBackbone(config)
        widths = (sizes.stem, *sizes.stages)
        if sizes.decoder_kind == "deeplabv3+":
            _without_last_stride(self.encoder.encoder.stages[-1])
            self.decoder: nn.Module = AtrousDecoder(widths, sizes)
        else:
            kind = NestedDecoder if sizes.decoder_kind == "unet++" else SkipDecoder
            self.decoder = kind(widths, sizes.decoder)

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.encoder]

    def see(self, images: Tensor) -> Levels:
        stem = self.encoder.embedder.embedder(images)
        x, levels = self.encoder.embedder.pooler(stem), [stem]
        for stage in self.encoder.encoder.stages:
            x = stage(x)
            levels.append(x)
        return tuple(levels)

    def answer(self, seen: Levels, tokens: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        logits: Tensor = self.decoder(seen)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(self.see(images))


def _without_last_stride(stage: nn.Module) -> None:
    """A stage that keeps the size of its maps and looks twice as far instead."""
    for part in stage.modules():
        if isinstance(part, nn.Conv2d):
            part.stride = (1, 1)
            if part.kernel_size == (3, 3):
                part.dilation = part.padding = (2, 2)


def _convolved(before: int, after: int, size: int = 3, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    convolution = nn.Conv2d(before, after, size, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


class UpStep(nn.Module):
    """Twice the size, beside what the encoder saw there, through two convolutions."""

    def __init__(self, before: int, beside: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_convolved(before + beside, after), _convolved(after, after))

    def forward(self, x: Tensor, *beside: Tensor) -> Tensor:
        grown = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        found: Tensor = self.layers(torch.cat([grown, *beside], dim=1))
        return found


class SkipDecoder(nn.Module):
    """U-Net's."""

    def __init__(self, widths: Sequence[int], steps: Sequence[int]) -> None:
        super().__init__()
        coarse_first = widths[::-1]
        before, beside = (coarse_first[0], *steps[:-1]), (*coarse_first[1:], 0)
        self.steps = nn.ModuleList(map(UpStep, before, beside, steps))
        self.head = nn.Conv2d(steps[-1], 1, 3, padding=1)

    def forward(self, levels: Levels) -> Tensor:
        x = levels[-1]
        for number, step in enumerate(self.steps):
            x = step(x, *levels[::-1][number + 1 : number + 2])
        logits: Tensor = self.head(x)
        return logits


class NestedDecoder(nn.Module):
    """U-Net++'s: between encoder and answer every level is made again from the coarser ones, beside all its former forms."""

    def __init__(self, widths: Sequence[int], steps: Sequence[int]) -> None:
        super().__init__()
        fine_first, depth = steps[::-1][1:], len(widths) - 1

        def width(level: int, column: int) -> int:
            # the last map of a level is a U-Net's, those between are as wide as the encoder's
            return fine_first[level] if column and level + column == depth else widths[level]

        self.nodes = nn.ModuleDict()
        for column in range(1, depth + 1):
            for level in range(depth + 1 - column):
                below, beside = width(level + 1, column - 1), column * widths[level]
                self.nodes[f"{level}-{column}"] = UpStep(below, beside, width(level, column))
        self.last = UpStep(fine_first[0], 0, steps[-1])
        self.head = nn.Conv2d(steps[-1], 1, 3, padding=1)

    def forward(self, levels: Levels) -> Tensor:
        made = [[level] for level in levels]
        for column in range(1, len(levels)):
            for level in range(len(levels) - column):
                made[level].append(self.nodes[f"{level}-{column}"](made[level + 1][column - 1], *made[level]))
        logits: Tensor = self.head(self.last(made[0][-1]))
        return logits


class AtrousDecoder(nn.Module):
    """DeepLabV3+'s: the coarsest map at several reaches and as a whole, then beside the finest stage."""

    def __init__(self, widths: Sequence[int], sizes: CnnSizes) -> None:
        super().__init__()
        width = sizes.atrous
        self.reaches = nn.ModuleList(
            [
                _convolved(widths[-1], width, 1),
                *(_convolved(widths[-1], width, 3, rate) for rate in sizes.rates),
            ]
        )
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), _convolved(widths[-1], width, 1))
        self.joined = _convolved((len(sizes.rates) + 2) * width, width, 1)
        self.low = _convolved(widths[1], sizes.low, 1)
        self.fused = nn.Sequential(_convolved(width + sizes.low, width), _convolved(width, width))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, levels: Levels) -> Tensor:
        coarse, fine = levels[-1], self.low(levels[1])
        whole = self.whole(coarse).expand(-1, -1, *coarse.shape[-2:])
        x = self.joined(torch.cat([*(reach(coarse) for reach in self.reaches), whole], dim=1))
        x = functional.interpolate(x, fine.shape[-2:], mode="bilinear", align_corners=False)
        logits = self.head(self.fused(torch.cat([x, fine], dim=1)))
        return functional.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)


def pretrained_cnn(name: CnnName, weights: str | None = None, sizes: CnnSizes | None = None) -> CnnSegmenter:
    """With the encoder of ImageNet. weights: hub id or folder of a ResNet-50. Raises ModelUnavailableError."""
    loaded, folder = from_hub("ResNetBackbone", RESNET, weights)
    network = CnnSegmenter(sizes or CnnSizes(name))
    try:
        network.encoder.load_state_dict(loaded.state_dict())
    except RuntimeError as error:
        raise ModelUnavailableError(f"{name}: {folder} is no ResNet-50; give microsoft/resnet-50.") from error
    return network
