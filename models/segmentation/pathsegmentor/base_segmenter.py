"""The full-size PathSegmentor behind the seam that every model offers (models/segmenter.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as unpacked
from safetensors.torch import save as packed
from torch import Tensor

from tissuetalk.models.segmentation.open_vocabulary import OpenVocabulary
from tissuetalk.models.segmentation.pathsegmentor.base import BaseFeatures
from tissuetalk.models.segmentation.pathsegmentor.base_card import CARD, WEIGHTS, BaseLabels, has_objects
from tissuetalk.models.segmentation.pathsegmentor.base_weights import open_base
from tissuetalk.models.segmentation.pretrained import device, weights_hash
from tissuetalk.models.segmenter import RGB, Context, Decoded, Prompt

STRIDE = 32


class BaseTile:
    """Features of one tile and the tile's own size, before padding."""

    def __init__(self, features: BaseFeatures, height: int, width: int) -> None:
        self.features, self.height, self.width = features, height, width


class BaseSegmenter(OpenVocabulary):
    """PathSegmentor ``base``: encodes a tile once; every prompt is decoded in a pass of its own."""

    card = CARD
    tile_px = 1024
    margin_px = 128

    def __init__(self, file: Path) -> None:
        found = open_base(file)
        self.model, self.tokens, self.report = found.model.to(device()), found.tokens, found.report
        self.repertoire: BaseLabels = BaseLabels.of(file)
        self.weights_sha256 = weights_hash(file)

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return self.repertoire.mpp

    def has_objects(self, prompt: Prompt) -> bool:
        return has_objects(prompt)

    @torch.inference_mode()
    def encode(self, tile: RGB, context: Context) -> BaseTile:
        return BaseTile(self.model.encode_image(_padded(tile).to(device())), tile.shape[0], tile.shape[1])

    def pack(self, features: BaseTile) -> bytes:
        """Half precision, for the feature cache."""
        kept = features.features
        tensors = {f"level{number}": level for number, level in enumerate(kept.levels)} | {
            "pixels": kept.pixels
        }
        stored = {name: value.half().cpu().contiguous() for name, value in tensors.items()}
        return packed(stored | {"size": torch.tensor([features.height, features.width])})

    def unpack(self, stored: bytes) -> BaseTile:
        kept = unpacked(stored)
        height, width = (int(side) for side in kept["size"])
        levels = tuple(kept[f"level{number}"].float().to(device()) for number in range(3))
        return BaseTile(BaseFeatures(levels, kept["pixels"].float().to(device())), height, width)

    @torch.inference_mode()
    def decode(self, features: BaseTile, prompts: Sequence[Prompt]) -> list[Decoded]:
        return [self._decode_one(features, prompt) for prompt in prompts]

    def _decode_one(self, features: BaseTile, prompt: Prompt) -> Decoded:
        ids, padding = self.tokens([prompt.text or prompt.words])
        chosen = self.model.decode(features.features, ids.to(device()), padding.to(device()))
        return Decoded(_enlarged(chosen.masks[0], features))


def _padded(tile: RGB) -> Tensor:
    """[1, 3, H, W] with H and W multiples of 32, mirrored beyond the border."""
    bottom, right = -tile.shape[0] % STRIDE, -tile.shape[1] % STRIDE
    padded = cv2.copyMakeBorder(np.ascontiguousarray(tile), 0, bottom, 0, right, cv2.BORDER_REFLECT)
    return torch.from_numpy(np.asarray(padded).transpose(2, 0, 1).copy())[None]


def _enlarged(logits: Tensor, tile: BaseTile) -> NDArray[np.float32]:
    """[H, W] at the tile's own size, from the padded map at stride 4."""
    small = logits.float().cpu().numpy()
    full = cv2.resize(small, (small.shape[1] * 4, small.shape[0] * 4), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full[: tile.height, : tile.width], np.float32)


def load(source: str | Path | None = None) -> BaseSegmenter:
    """The full-size model from a checkpoint or folder. Raises ModelUnavailableError."""
    return BaseSegmenter(WEIGHTS.find(source))
