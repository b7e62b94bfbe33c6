"""Run a trained network as fast as the machine allows without changing what it says, and hand it tiles of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tissuetalk.models.segmentation.pathsegmentor.mini import Features, MiniAnswers, MiniPathSegmentor
from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.segmenter import RGB

M = TypeVar("M", bound=nn.Module)
F = TypeVar("F")

STRIDE = 32
"""Networks take tiles whose sides are multiples of this."""


@dataclass(frozen=True)
class TileFeatures(Generic[F]):
    """Features of one tile, and the tile's own size before padding."""

    features: F
    height: int
    width: int

    def packed(self, tensors: Mapping[str, Tensor]) -> bytes:
        """The features as tensors, with the size, for the feature cache."""
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        return save(contiguous | {"size": torch.tensor([self.height, self.width])})

    def enlarged(self, answer: Tensor) -> NDArray[np.float32]:
        """[H, W] at the tile's own size, from the map [h, w] of the padded tile, whatever its stride."""
        small = answer.float().cpu().numpy()
        padded = (-(-self.width // STRIDE) * STRIDE, -(-self.height // STRIDE) * STRIDE)
        full = cv2.resize(small, padded, interpolation=cv2.INTER_LINEAR)
        return np.asarray(full[: self.height, : self.width], np.float32)


def unpacked(stored: bytes) -> tuple[dict[str, Tensor], int, int]:
    """Tensors, height and width of a tile's packed features."""
    tensors = load(stored)
    height, width = (int(side) for side in tensors.pop("size"))
    return tensors, height, width


def padded(tile: RGB) -> Tensor:
    """[1, 3, H, W] uint8 with H and W multiples of 32, mirrored beyond the border."""
    bottom, right = -tile.shape[0] % STRIDE, -tile.shape[1] % STRIDE
    mirrored = cv2.copyMakeBorder(np.ascontiguousarray(tile), 0, bottom, 0, right, cv2.BORDER_REFLECT)
    return torch.from_numpy(np.asarray(mirrored).transpose(2, 0, 1).copy())[None]


def fold_norms(network: M) -> M:
    """Every convolution takes in the batch norm behind it, in place; the network must be in ``eval`` mode."""
    for part in network.children():
        fold_norms(part)
        if isinstance(part, nn.Sequential) and len(part) > 1:
            conv, norm = part[0], part[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part[0], part[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()  # numbering stays
    return network


def halves_are_fast() -> bool:
    """Whether this machine multiplies bfloat16 in hardware; elsewhere it would be emulated, and slow."""
    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))  # older cards only pretend
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


class Inference:
    """A network with its norms folded, on the best device; features are kept in half precision on the CPU.

    Features are rounded to half precision at once, so those from a cache answer exactly as fresh ones do.
    """

    def __init__(self, network: MiniPathSegmentor) -> None:
        self.network = fold_norms(network.eval()).in_channels_last().to(device())
        self._autocast = halves_are_fast()

    def encode(self, tiles: Tensor) -> Features:
        """[B, 3, H, W] pixels 0..255, H and W multiples of 32."""
        return self.encode_with_maps(tiles)[0]

    def encode_with_maps(self, tiles: Tensor) -> tuple[Features, list[Tensor]]:
        """``encode``, and the image encoder's maps of the same pass: [B, C, H/s, W/s] at strides s 2, 4, 8, 16 and 32."""
        place = device()
        with torch.inference_mode(), torch.autocast(place.type, dtype=torch.bfloat16, enabled=self._autocast):
            features, maps = self.network.encode_with_maps(tiles.to(place))
        return Features(features.pixels.half().contiguous().cpu(), features.pooled.half().cpu()), maps

    def laid_out(self, features: Features) -> Features:
        """Kept features in full precision on the device, for any number of calls of ``decode``."""
        pixels = features.pixels.to(device()).float()
        return Features(pixels, features.pooled.to(device()).float())

    def decode(self, features: Features, text: Tensor) -> MiniAnswers:
        """Answers in full precision, on the CPU, from features that are laid out. text: [P, text_width]."""
        with torch.inference_mode():
            answer = self.network.decode(features, text.to(device()))
            return MiniAnswers(answer.mask.cpu(), answer.distance.cpu(), answer.presence.cpu())

    def describe(self, features: Features) -> tuple[float, float]:
        """(log2 of µm per pixel, probability of being stained tissue) of one tile."""
        with torch.inference_mode():
            here = Features(features.pixels, features.pooled.to(device()).float())
            scale, tissue = self.network.describe_image(here)
            return float(scale[0]), float(tissue[0].sigmoid())
