"""A trained PFPs network as a folder: ``pfps.json`` (sizes, language model) and ``pfps.safetensors`` (what was trained)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pfps.efficient_sam import SamSizes, load_published
from tissuetalk.models.segmentation.pfps.language import OneSetIds, SentenceVector, TwoSetIds, load_tinyllama
from tissuetalk.models.segmentation.pfps.network import Pfps, PfpsSizes
from tissuetalk.models.segmentation.pretrained import device, fill, read_tensors

SETTINGS, WEIGHTS = "pfps.json", "pfps.safetensors"
_FROZEN = "request.language_model."


def build(
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


def save(model: Pfps, folder: Path, *, language_model: str | None, lora: bool = True) -> None:
    """Everything but the published language model, which is named instead."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value.contiguous() for key, value in model.state_dict().items() if _stored(key)}
    save_file(kept, folder / WEIGHTS)
    settings = {"sizes": asdict(model.sizes), "language_model": language_model, "lora": lora}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1), "utf-8")


def load(folder: Path) -> Pfps:
    """A network as it was saved. Raises ModelUnavailableError naming what is missing."""
    if not (folder / SETTINGS).is_file() or not (folder / WEIGHTS).is_file():
        raise ModelUnavailableError(
            f"pfps: {folder} lacks {SETTINGS} or {WEIGHTS}; give a folder `train` wrote"
        )
    try:
        settings = json.loads((folder / SETTINGS).read_text("utf-8"))
        model = build(
            _sizes(settings["sizes"]), language_model=settings["language_model"], lora=settings["lora"]
        )
        weights = load_file(folder / WEIGHTS)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelUnavailableError(
            f"pfps: {folder} is damaged ({error}); give a folder `train` wrote"
        ) from error
    fill(model, weights, f"pfps: {folder}", "train again", needed=_stored)
    return model.eval()


def _stored(key: str) -> bool:
    """Everything but the published language model, of which only what LoRA added is trained."""
    return not key.startswith(_FROZEN) or key.endswith((".down", ".up"))


def _sizes(stored: dict[str, Any]) -> PfpsSizes:
    sam = {**stored["sam"], "upscaling": tuple(stored["sam"]["upscaling"])}
    return PfpsSizes(**{**stored, "sam": SamSizes(**sam)})
