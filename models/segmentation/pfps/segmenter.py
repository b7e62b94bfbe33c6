"""A trained PFPs network: as a folder, and at the seam of all models.

The folder holds ``pfps.json`` (sizes, language model) and ``pfps.safetensors`` (what was trained). The segmenter answers
all nine tasks: the sentence, or the numbers of unit and task, and the point or box go into the network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.reading import MOST_JSON_BYTES, content_of, json_in, require_tensors_at
from tissuetalk.models.segmentation.open_vocabulary import OpenVocabulary
from tissuetalk.models.segmentation.pfps.card import CARD, MPP, WEIGHTS, KidneyUnits, asked_of, sentence_for
from tissuetalk.models.segmentation.pfps.efficient_sam import SamSizes, load_published
from tissuetalk.models.segmentation.pfps.network import (
    LORA,
    UNITS,
    OneSetIds,
    Pfps,
    PfpsSizes,
    SentenceVector,
    TwoSetIds,
    from_own_lora,
    load_tinyllama,
)
from tissuetalk.models.segmentation.pfps.training import pixels_of, placed
from tissuetalk.models.segmentation.pretrained import device, fill, read_tensors, to_size, weights_hash
from tissuetalk.models.segmenter import RGB, BoxXYXY, Context, Decoded, PointXY, Prompt
from tissuetalk.models.writing import write_tensors, write_whole

SETTINGS, TRAINED = "pfps.json", "pfps.safetensors"
_FROZEN = "request.language_model."


def build_pfps(
    sizes: PfpsSizes,
    *,
    language_model: str | None = None,
    lora: bool = True,
    efficient_sam: Path | None = None,
) -> Pfps:
    """A network ready to train.

    language_model: hub id or folder of TinyLlama (or another causal model), for the strategy ``text``.
    efficient_sam: published backbone weights; without them the frozen image encoder is random and of no use.
    Raises ModelUnavailableError.
    """
    request: nn.Module
    if sizes.strategy == "text":
        request = SentenceVector(*load_tinyllama(language_model), width=sizes.sam.width, lora=lora)
    else:
        request = (OneSetIds if sizes.strategy == "one-set" else TwoSetIds)(sizes.sam.width)
    model = Pfps(sizes, request)
    if efficient_sam is not None:
        load_published(model, read_tensors(efficient_sam))
    return model.to(device())


def save_pfps(model: Pfps, folder: Path, *, language_model: str | None, lora: bool = True) -> None:
    """Everything but the published language model, which is named instead."""
    kept = {key: value for key, value in model.state_dict().items() if is_stored(key)}
    write_tensors(folder / TRAINED, kept)
    settings = {"sizes": asdict(model.sizes), "language_model": language_model, "lora": lora}
    write_whole(folder / SETTINGS, json.dumps(settings, indent=1))


def load_folder(folder: Path) -> Pfps:
    """A network as it was saved. Raises ModelUnavailableError naming what is missing."""
    if not (folder / SETTINGS).is_file() or not (folder / TRAINED).is_file():
        raise ModelUnavailableError(
            f"pfps: {folder} lacks {SETTINGS} or {TRAINED}; give a folder `train` wrote"
        )
    try:
        settings = json_in(content_of(folder / SETTINGS, MOST_JSON_BYTES))
        sizes = settings["sizes"]
        sam = SamSizes(**{**sizes["sam"], "upscaling": tuple(sizes["sam"]["upscaling"])})
        said = {"language_model": settings["language_model"], "lora": settings["lora"]}
        model = build_pfps(PfpsSizes(**{**sizes, "sam": sam}), **said)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            f"pfps: {folder} is damaged ({error}); give a folder `train` wrote"
        ) from error
    fill_trained(model, folder)
    return model.eval()


def fill_trained(model: Pfps, folder: Path) -> None:
    """The weights of a folder into a network of their sizes. Raises ModelUnavailableError."""
    try:
        require_tensors_at(folder / TRAINED)
        weights = {from_own_lora(key): value for key, value in load_file(folder / TRAINED).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelUnavailableError(
            f"pfps: {folder} is damaged ({error}); give a folder `train` wrote"
        ) from error
    fill(model, weights, f"pfps: {folder}", "train again", needed=is_stored)


def is_stored(key: str) -> bool:
    """Everything but the published language model, of which only what LoRA added is trained."""
    return not key.startswith(_FROZEN) or LORA in key


class PfpsSegmenter(OpenVocabulary):
    """A ``SituatedSegmenter``: by the caller's sentence where it was trained with sentences, by unit and task elsewhere."""

    card, repertoire = CARD, KidneyUnits()
    margin_px = 64
    objects = True

    def __init__(self, model: Pfps, *, weights_sha256: str) -> None:
        self.model = model.eval()
        self.tile_px = model.sizes.sam.image_px
        self.weights_sha256 = weights_sha256

    def sent(self, prompt: Prompt) -> str:
        """Empty where tasks are asked by number."""
        if not self.reads_sentences:
            return ""
        return prompt.text if prompt.verbatim else sentence_for(*(asked_of(prompt) or (None, 2)))

    @property
    def reads_sentences(self) -> bool:
        return self.model.sizes.strategy == "text"

    @property
    def takes_boxes(self) -> bool:
        return self.model.sizes.boxes

    def answers(self, prompt: Prompt) -> bool:
        return asked_of(prompt) is not None or (self.reads_sentences and prompt.verbatim)

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return MPP

    def encode(self, tile: RGB, context: Context) -> tuple[Tensor, tuple[int, int]]:
        """Only the pixels: the request enters the image encoder, so there is nothing to share."""
        return pixels_of(tile, self.tile_px), (tile.shape[0], tile.shape[1])

    @torch.inference_mode()
    def decode(self, features: tuple[Tensor, tuple[int, int]], prompts: Sequence[Prompt]) -> list[Decoded]:
        """features: pixels [1, 3, S, S], and the tile's height and width. A full pass per prompt."""
        pixels, size = features
        nowhere = placed(np.empty((*size, 3), np.uint8), self.tile_px)
        return [self._decoded(pixels, prompt, nowhere, size) for prompt in prompts]

    @torch.inference_mode()
    def answer_at(
        self, tile: RGB, prompt: Prompt, *, point: PointXY | None = None, box: BoxXYXY | None = None
    ) -> Decoded:
        pixels, size = self.encode(tile, Context({}))
        return self._decoded(pixels, prompt, placed(tile, self.tile_px, point, box), size)

    def _decoded(
        self, pixels: Tensor, prompt: Prompt, place: tuple[Tensor, Tensor], size: tuple[int, int]
    ) -> Decoded:
        places_xy, kinds = (each.to(pixels.device) for each in place)
        logits = self.model(pixels, self._request(prompt), places_xy, kinds)
        return Decoded(to_size(logits[:, 1] - logits[:, 0], *size)[0])

    def _request(self, prompt: Prompt) -> Tensor:
        """[1, T, C]. Tasks 2 and 6 belong to no unit: by number, the four units' requests are averaged."""
        if self.reads_sentences:
            vector: Tensor = self.model.request([self.sent(prompt)])
            return vector
        unit, task = asked_of(prompt) or (None, 2)
        units = list(range(len(UNITS))) if unit is None else [UNITS.index(unit)]
        tasks = torch.full((len(units),), task, device=device())
        rows: Tensor = self.model.request(torch.tensor(units, device=device()), tasks)
        return rows.mean(dim=0, keepdim=True)


def load(source: str | Path | None = None) -> PfpsSegmenter:
    """The network in a folder, by default the one TISSUETALK_PFPS names. Raises ModelUnavailableError."""
    folder = WEIGHTS.find(source)
    return PfpsSegmenter(load_folder(folder), weights_sha256=weights_hash(folder))
