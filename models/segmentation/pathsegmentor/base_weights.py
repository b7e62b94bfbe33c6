"""Folders of the base preset: weights, sizes and labels in config.json, and the vocabulary of the text tower."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pathsegmentor.base import BaseConfig, PathSegmentor, build_base
from tissuetalk.models.segmentation.pathsegmentor.base_card import READ_AT_MPP, read_config
from tissuetalk.models.segmentation.pathsegmentor.checkpoint import LoadReport, load_published, tower_of
from tissuetalk.models.segmentation.pathsegmentor.tokens import Tokens, byte_pairs, word_pieces
from tissuetalk.models.segmentation.pretrained import read_tensors

OWN_PREFIX: Final = "image_encoder."
UNUSED_WHEN_ANSWERING: Final = frozenset({"logit_scale"})


@dataclass(frozen=True)
class Loaded:
    """A network with its tokenizer. report: what the weight file gave."""

    model: PathSegmentor
    tokens: Tokens
    report: LoadReport


def save_base(
    model: PathSegmentor, config: BaseConfig, folder: Path, *, labels: Sequence[str], vocabulary: Path
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and ``vocab.txt``; returns the weight file."""
    folder.mkdir(parents=True, exist_ok=True)
    partial, path = folder / "model.partial", folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, partial)
    partial.chmod(0o644)
    partial.replace(path)
    told = {"model": asdict(config), "labels": sorted(labels), "mpp": READ_AT_MPP}
    (folder / "config.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if vocabulary.resolve() != (folder / "vocab.txt").resolve():
        shutil.copyfile(vocabulary, folder / "vocab.txt")
    return path


def load_weights(model: PathSegmentor, file: Path) -> LoadReport:
    """Fill a network from our own weights or a published checkpoint, and say exactly what did not fit.

    Raises ModelUnavailableError when the file cannot be read or nothing in it fits.
    """
    tensors = read_tensors(file)
    if not any(name.startswith(OWN_PREFIX) for name in tensors):
        return load_published(model, tensors)
    own = model.state_dict()
    fits = {name: value for name, value in tensors.items() if name in own and own[name].shape == value.shape}
    for name, value in fits.items():
        own[name].copy_(value)
    wrong = tuple(
        f"{name}: {tuple(value.shape)} for {tuple(own[name].shape)}"
        for name, value in tensors.items()
        if name in own and name not in fits
    )
    return LoadReport(
        tuple(fits), tuple(sorted(set(own) - set(fits))), tuple(sorted(set(tensors) - set(own))), wrong, ()
    )


def sizes_of(file: Path) -> BaseConfig:
    """As config.json beside the file says, else the paper's, with the tower the checkpoint was trained with."""
    config = read_config(file.parent)
    if config:
        sizes = config["model"]
        if unknown := set(sizes) - {entry.name for entry in fields(BaseConfig)}:
            raise ModelUnavailableError(
                f"{file.parent / 'config.json'} has unknown sizes {', '.join(sorted(unknown))}; remove them."
            )
        return BaseConfig(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
        )
    return BaseConfig.released_clip() if tower_of(read_tensors(file)) == "clip" else BaseConfig()


def examine(file: Path) -> LoadReport:
    """What a file gives to a network of its sizes, without building one in memory. Raises ModelUnavailableError."""
    with torch.device("meta"):
        model = build_base(sizes_of(file))
    return load_weights(model, file)


def open_base(file: Path) -> Loaded:
    """A network ready to answer, with its tokenizer.

    Raises ModelUnavailableError when a weight that answers need is missing, naming how many and which.
    """
    settings = sizes_of(file)
    model = build_base(settings)
    report = load_weights(model, file)
    lacking = sorted(set(report.missing) - UNUSED_WHEN_ANSWERING)
    if lacking:
        raise ModelUnavailableError(
            f"{file} lacks {len(lacking)} of {len(model.state_dict())} weights, among them {', '.join(lacking[:3])}; "
            f"unexpected: {len(report.unexpected)}, of another shape: {len(report.mismatched)}. "
            f"`tissuetalk weights {file}` lists them all."
        )
    tokens = (
        byte_pairs(file.parent, settings.context)
        if settings.text_tower == "clip"
        else word_pieces(file.parent / "vocab.txt", settings.context)
    )
    return Loaded(model.eval(), tokens, report)
