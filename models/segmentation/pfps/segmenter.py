"""A trained PFPs network: as a folder, and at the seam of all models.

The folder holds ``pfps.json`` (sizes, language model) and ``pfps.safetensors`` (what was trained). The segmenter answers
whole units and all nuclei by words; the tool adds points and relations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.reading import MOST_JSON_BYTES, content_of, json_in, require_tensors_at
from tissuetalk.models.segmentation.open_vocabulary import OpenVocabulary
from tissuetalk.models.segmentation.pfps.card import CARD, MPP, UNIT_WORDS, WEIGHTS, KidneyUnits, target_of
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
from tissuetalk.models.segmentation.pfps.training import pixels_of
from tissuetalk.models.segmentation.pretrained import device, fill, read_tensors, to_size, weights_hash
from tissuetalk.models.segmenter import RGB, Context, Decoded, Prompt
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
    """Answers tasks 1 (a kind of unit) and 2 (nuclei); all other tasks are algebra on these two."""

    card, repertoire = CARD, KidneyUnits()
    margin_px = 64
    objects = True

    def __init__(self, model: Pfps, *, weights_sha256: str) -> None:
        self.model = model.eval()
        self.tile_px = model.sizes.sam.image_px
        self.weights_sha256 = weights_sha256

    def sent(self, prompt: Prompt) -> str:
        """Empty where tasks are asked by number."""
        if self.model.sizes.strategy != "text":
            return ""
        return (
            prompt.text
            if prompt.verbatim
            else f"Segment every {UNIT_WORDS.get(target_of(prompt) or '', 'nucleus')}."
        )

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return MPP

    def encode(self, tile: RGB, context: Context) -> tuple[Tensor, tuple[int, int]]:
        """Only the pixels: the request enters the image encoder, so there is nothing to share."""
        return pixels_of(tile, self.tile_px), (tile.shape[0], tile.shape[1])

    @torch.inference_mode()
    def decode(self, features: tuple[Tensor, tuple[int, int]], prompts: Sequence[Prompt]) -> list[Decoded]:
        """features: pixels [1, 3, S, S], and the tile's height and width. A full pass per prompt."""
        pixels, (height, width) = features
        nowhere = torch.zeros(1, 2, device=device())
        unpointed = torch.zeros(1, dtype=torch.bool, device=device())
        decoded = []
        for prompt in prompts:
            logits = self.model(pixels, self._request(prompt), nowhere, unpointed)
            decoded.append(Decoded(to_size(logits[:, 1] - logits[:, 0], height, width)[0]))
        return decoded

    def _request(self, prompt: Prompt) -> Tensor:
        """[1, T, C]. Nuclei belong to no unit: by ID, the four units' requests are averaged."""
        target = target_of(prompt)
        if self.model.sizes.strategy == "text":
            vector: Tensor = self.model.request([self.sent(prompt)])
            return vector
        units = [UNITS.index(target)] if target in UNITS else list(range(len(UNITS)))
        tasks = torch.full((len(units),), 1 if target in UNITS else 2, device=device())
        rows: Tensor = self.model.request(torch.tensor(units, device=device()), tasks)
        return rows.mean(dim=0, keepdim=True)


def load(source: str | Path | None = None) -> PfpsSegmenter:
    """The network in a folder, by default the one TISSUETALK_PFPS names. Raises ModelUnavailableError."""
    folder = WEIGHTS.find(source)
    return PfpsSegmenter(load_folder(folder), weights_sha256=weights_hash(folder))
