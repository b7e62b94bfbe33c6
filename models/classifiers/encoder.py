"""Frozen patch encoders: a patch becomes a grid of tokens and one vector. Nothing in them is ever trained here.

The paper uses CONCH (ViT-B/16), whose weights are gated; any ViT in the ``transformers`` format can stand in, and without a
download our own segmenter's image encoder does. Results of different encoders are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.classifiers.bags import PatchBag
from tissuetalk.models.classifiers.card import OWN_ENCODER
from tissuetalk.models.control import Control
from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.reading import MOST_JSON_BYTES, content_of, json_in
from tissuetalk.models.segmentation.pretrained import device, from_folder, resized, weights_hash
from tissuetalk.models.segmenter import RGB

Feature = Literal["tokens", "pooled"]
INPUT_PX = 224
GRID = 14
CONCH_FILE = "pytorch_model.bin"
CONCH_MEAN, CONCH_STD = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)
BATCH = 8


@dataclass(frozen=True)
class PatchFeatures:
    """tokens: [N, h, w, d] spatial map. pooled: [N, e], one vector a patch; d and e may differ."""

    tokens: Tensor
    pooled: Tensor

    def vectors(self, feature: Feature) -> Tensor:
        """[N, d] tokens averaged over the patch (the paper's choice), or [N, e] pooled."""
        return self.tokens.mean((1, 2)) if feature == "tokens" else self.pooled


class PatchEncoder(Protocol):
    """name: ``tissuetalk-mini`` or the hub id or folder of a ViT. weights_sha256: classifiers refuse any other."""

    name: str
    weights_sha256: str

    def encode(self, patches: Tensor) -> PatchFeatures:
        """patches: [B, 3, 224, 224] uint8 RGB."""
        ...


class OwnEncoder:
    """The shipped segmenter's image encoder: its summary vector, and what it and its decoder see as 14 x 14 tokens."""

    def __init__(self) -> None:
        from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter

        segmenter = MiniSegmenter(use="torch")  # what classifiers were trained on
        self.name = OWN_ENCODER
        self.weights_sha256 = segmenter.weights_sha256
        self._inference = segmenter.inference

    def encode(self, patches: Tensor) -> PatchFeatures:
        with torch.inference_mode():
            features, maps = self._inference.encode_with_maps(patches)
            tokens = torch.cat([_on_grid(level) for level in (features.pixels, *maps[2:4])], dim=-1)
            return PatchFeatures(tokens, features.pooled.float().mean(1).clone())


def _on_grid(level: Tensor) -> Tensor:
    """[B, 14, 14, C] of one level [B, C, h, w], each token at zero mean and unit spread, so that no level outweighs another."""
    cells = functional.adaptive_avg_pool2d(level.float().cpu(), GRID).permute(0, 2, 3, 1)
    return functional.layer_norm(cells, cells.shape[-1:])


class TransformersEncoder:
    """A ViT or DINOv2 saved in the ``transformers`` format; final-norm patch tokens, class and register tokens removed."""

    def __init__(self, folder: Path, *, name: str | None = None) -> None:
        from transformers import AutoModel

        self.name = name or str(folder)
        # a ViT of transformers otherwise gets a pooling layer of random weights, and says so in a warning
        family = _json(folder / "config.json").get("model_type")
        unpooled = {"add_pooling_layer": False} if family in ("vit", "deit") else {}
        self._model: Any = from_folder(AutoModel, folder, self.name, **unpooled)
        config = self._model.config
        if not {"patch_size", "hidden_size", "num_channels"} <= set(config.to_dict()):
            raise ModelUnavailableError(
                f"{self.name} is a {config.model_type}, not a ViT; name a folder with one."
            )
        # 224 px may not be what the model was trained at; other families interpolate by themselves
        self._positions = {"interpolate_pos_encoding": True} if config.model_type == "vit" else {}
        self._grid = INPUT_PX // int(config.patch_size)
        # what it was trained with, as its preprocessor file says; CONCH's where there is none
        told = _json(folder / "preprocessor_config.json")
        mean, std = told.get("image_mean", CONCH_MEAN), told.get("image_std", CONCH_STD)
        self._mean, self._std = (torch.tensor(each).view(1, 3, 1, 1) for each in (mean, std))
        self.weights_sha256 = weights_hash(folder)

    def encode(self, patches: Tensor) -> PatchFeatures:
        with torch.inference_mode():
            shade = (patches.float() / 255 - self._mean) / self._std
            hidden: Tensor = self._model(pixel_values=shade, **self._positions).last_hidden_state
            count = self._grid**2
            # class and register tokens come first
            grid = hidden[:, -count:].reshape(len(hidden), self._grid, self._grid, -1)
            # clones, because views would keep all hidden states in memory
            return PatchFeatures(grid.clone(), hidden[:, 0].clone())


class ConchEncoder:
    """CONCH's image tower: final-norm patch tokens, and the vector that is compared with words."""

    def __init__(self, file: Path, *, name: str) -> None:
        from tissuetalk.models.classifiers.conch import read_conch

        self.name, self.weights_sha256 = name, weights_hash(file)
        self._tower = read_conch(file, INPUT_PX).to(device()).eval()

    def encode(self, patches: Tensor) -> PatchFeatures:
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (CONCH_MEAN, CONCH_STD))
        with torch.inference_mode():
            tokens, pooled = self._tower(((patches.float() / 255 - mean) / std).to(device()))
            grid = tokens[:, 1:].reshape(len(tokens), GRID, GRID, -1)
            return PatchFeatures(grid.cpu().clone(), pooled.cpu().clone())


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json_in(content_of(path, MOST_JSON_BYTES)) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(
            f"{path} is no configuration ({error}); fetch the model again."
        ) from error
    return told if isinstance(told, dict) else {}


def load_encoder(name: str | None = None) -> PatchEncoder:
    """Our own encoder (default), CONCH's published file, or a ViT by local folder or by the hub id of one that is already on this machine.

    Raises ModelUnavailableError when it is not there; nothing is downloaded.
    """
    if name is None or name == OWN_ENCODER:
        return OwnEncoder()
    folder = Path(name).expanduser()
    if folder.is_file():
        return ConchEncoder(folder, name=name)
    if folder.is_dir():
        return _from_folder(folder, name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelUnavailableError(
            f"the patch encoder {name!r} is no folder and not in this machine's model cache; fetch it once with "
            f"`hf download {name}`, or leave the encoder out to use {OWN_ENCODER}."
        ) from error
    return _from_folder(folder, name)


def _from_folder(folder: Path, name: str) -> PatchEncoder:
    """What CONCH's folder has and a ViT's has not: weights without a configuration."""
    published = folder / CONCH_FILE
    if published.is_file() and not (folder / "config.json").is_file():
        return ConchEncoder(published, name=name)
    return TransformersEncoder(folder, name=name)


def to_batch(patches: Sequence[RGB]) -> Tensor:
    """[B, 3, 224, 224] uint8 from patches of any square size."""
    stacked = np.stack([resized(patch, INPUT_PX, INPUT_PX) for patch in patches])
    return torch.from_numpy(stacked.transpose(0, 3, 1, 2).copy())


def encode_patches(
    encoder: PatchEncoder, patches: Sequence[RGB], feature: Feature, control: Control = Control()
) -> Tensor:
    """[N, d], one vector a patch. Raises CancelledError between batches."""
    vectors = []
    for start in range(0, len(patches), BATCH):
        control.check()
        vectors.append(encoder.encode(to_batch(patches[start : start + BATCH])).vectors(feature))
    return torch.cat(vectors)


def encode_bag(
    encoder: PatchEncoder, bag: PatchBag, feature: Feature, control: Control = Control()
) -> Tensor:
    """[N, d] for a bag; at most a batch of patches is in memory at a time."""
    starts = range(0, len(bag), BATCH)
    batches = ([bag.pixels(i) for i in range(start, min(start + BATCH, len(bag)))] for start in starts)
    return torch.cat([encode_patches(encoder, batch, feature, control) for batch in batches])
