"""A fine-tuned CLIPSeg, CRIS or BiomedCLIPSeg as it is saved, loaded, and offered behind the seam of every model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.reading import require_tensors_at
from tissuetalk.models.segmentation.open_vocabulary import MPP, OpenVocabulary
from tissuetalk.models.segmentation.pretrained import (
    device,
    fill,
    to_size,
    tokenizer_from,
    weights_hash,
)
from tissuetalk.models.segmentation.vlsm.card import (
    CARD,
    CNNS,
    SETTINGS,
    TRAINED,
    WEIGHTS,
    repertoire_of,
    settings_in,
)
from tissuetalk.models.segmentation.vlsm.clipseg import BiomedClipSeg, BiomedSizes, ClipSeg
from tissuetalk.models.segmentation.vlsm.cnn import CnnSegmenter, CnnSizes
from tissuetalk.models.segmentation.vlsm.cris import ClipResnetSizes, Cris, CrisSizes
from tissuetalk.models.segmentation.vlsm.networks import CLIPSEG, NAMES, Vlsm
from tissuetalk.models.segmenter import RGB, Context, Decoded, Prompt
from tissuetalk.models.writing import write_tensors, write_whole

TOKENIZER: Final = "tokenizer"
CERTAIN: Final = 1e-6
"""Probabilities are held this far from 0 and 1 before they become logits."""


def save_vlsm(model: Vlsm, folder: Path, *, mpp: float | None = None, classes: Sequence[str] = ()) -> None:
    """All of a network, its sizes and its tokenizer: the published files are not needed again.

    mpp: µm per pixel of what it is shown, None where its training images do not say. classes: all that one which reads no
    words may be asked for.
    """
    network = model.network
    sizes = network.config.to_dict() if isinstance(network, ClipSeg) else asdict(network.sizes)
    told: dict[str, Any] = {
        "network": model.name,
        "side_px": model.side_px,
        "context": model.context,
        "mpp": mpp or MPP,
    }
    folder.mkdir(parents=True, exist_ok=True)
    if model.tokenizer is None:
        told["classes"] = list(classes)
    else:
        model.tokenizer.save_pretrained(folder / TOKENIZER)
    write_whole(folder / SETTINGS, json.dumps({**told, "sizes": sizes}, indent=1, default=str) + "\n")
    write_tensors(folder / TRAINED, network.state_dict())


def load_folder(folder: Path) -> Vlsm:
    """A network as it was saved. Raises ModelUnavailableError naming what is wrong."""
    told = settings_in(folder)
    try:
        if (name := told["network"]) not in (*NAMES, *CNNS):
            raise ValueError(f"no network is called {name!r}")
        network = _built(name, told["sizes"])
        require_tensors_at(folder / TRAINED)
        weights = load_file(folder / TRAINED)
        side, context = int(told["side_px"]), int(told["context"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelUnavailableError(
            f"vlsm: {folder} is damaged ({error}); give a folder `tissuetalk train` wrote"
        ) from error
    fill(network, weights, f"vlsm: {folder}", "train again")
    words = None if name in CNNS else tokenizer_from(folder / TOKENIZER, "vlsm")
    return Vlsm(name, network.to(device()), words, side_px=side, context=context).eval()


def _built(name: str, sizes: dict[str, Any]) -> Any:
    """A network of saved sizes, its weights still to come. JSON has lists where the sizes want tuples."""
    if name == "clipseg":
        import transformers

        config = transformers.CLIPSegConfig.from_dict(sizes)
        return ClipSeg(getattr(transformers, CLIPSEG)(config))
    given = _with_tuples(sizes)
    if name in CNNS:
        return CnnSegmenter(CnnSizes(**given))
    if name != "cris":
        return BiomedClipSeg(BiomedSizes(**given))
    return Cris(CrisSizes(**{**given, "clip": ClipResnetSizes(**_with_tuples(sizes["clip"]))}))


def _with_tuples(sizes: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}


class VlsmSegmenter(OpenVocabulary):
    """The picture is encoded once; text tower and decoder run per prompt."""

    card = CARD
    margin_px = 64
    objects = False

    def __init__(self, model: Vlsm, *, mpp: float, weights_sha256: str, classes: Sequence[str] = ()) -> None:
        self.model = model.eval()
        self.mpp = mpp
        self.repertoire = repertoire_of({"network": model.name, "mpp": mpp, "classes": classes})
        self.tile_px = model.side_px
        self.weights_sha256 = weights_sha256

    def sent(self, prompt: Prompt) -> str:
        return "" if self.model.tokenizer is None else super().sent(prompt)

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return self.mpp

    @torch.inference_mode()
    def encode(self, tile: RGB, context: Context) -> tuple[Any, tuple[int, int]]:
        """The tile [H, W, 3] is stretched to the model's square, and the answer back."""
        return self.model.see([tile]), (tile.shape[0], tile.shape[1])

    @torch.inference_mode()
    def decode(self, features: tuple[Any, tuple[int, int]], prompts: Sequence[Prompt]) -> list[Decoded]:
        """Logits above 0 are probabilities above the network's own threshold, enlarged as probabilities."""
        seen, (height, width) = features
        threshold = self.model.threshold
        decoded = []
        for prompt in prompts:
            probability = self.model.answer(seen, [self.sent(prompt)]).sigmoid()
            (grown,) = to_size(probability, height, width).clip(CERTAIN, 1 - CERTAIN).astype(np.float64)
            logits = np.log(grown / (1 - grown)) - np.log(threshold / (1 - threshold))
            decoded.append(Decoded(logits.astype(np.float32)))
        return decoded


def load(source: str | Path | None = None) -> VlsmSegmenter:
    """The network in a folder, by default the one TISSUETALK_VLSM names. Raises ModelUnavailableError."""
    folder = WEIGHTS.find(source)
    told = settings_in(folder)
    model, sha256 = load_folder(folder), weights_hash(folder)
    return VlsmSegmenter(model, mpp=told["mpp"], weights_sha256=sha256, classes=told.get("classes", ()))
