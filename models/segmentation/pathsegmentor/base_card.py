"""What the full-size PathSegmentor may be used for, and whether its weights are here. Imports no deep-learning library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmenter import ModelCard

NAME: Final = "pathsegmentor"
VARIABLE: Final = "TISSUETALK_PATHSEGMENTOR"
WEIGHT_SUFFIXES: Final = (".safetensors", ".pt", ".pth")

CARD = ModelCard(
    name=NAME,
    summary="PathSegmentor at the paper's size: any of the 160 labels in words (FocalNet-L, 101 queries).",
    licence="of the weights you bring",
    research_only=True,
    targets=("what its weights were trained for",),
    mpp=(0.25,),
    prompts="text",
    source=(
        "your own weights: BiomedParse- or PathSegmentor-style checkpoints, or `tissuetalk train` with preset: base "
        "(arXiv 2506.20988)"
    ),
    metrics={"published PathSeg overall, Dice (arXiv 2506.20988)": "0.671"},
    limits=(
        "Nothing ships with the package. Trained without absent targets: it paints something for nearly every question. "
        "Slow on a CPU."
    ),
)


def weight_file(source: str | Path | None = None) -> Path:
    """The weight file that is named, or that the environment variable names, itself or as the only one of a folder.

    Raises ModelUnavailableError saying what to do.
    """
    named = str(source or os.environ.get(VARIABLE) or "")
    if not named:
        raise ModelUnavailableError(
            f"set {VARIABLE} to a checkpoint (.safetensors, .pt) or to a folder with one, its text tower's vocab.txt "
            "and perhaps config.json; `tissuetalk train` writes such a folder."
        )
    place = Path(named).expanduser()
    files = (
        sorted(file for file in place.iterdir() if file.suffix in WEIGHT_SUFFIXES)
        if place.is_dir()
        else [place]
    )
    if len(files) != 1 or not files[0].is_file():
        found = f"{len(files)} weight files in" if place.is_dir() else "no file at"
        raise ModelUnavailableError(
            f"{found} {place}; set {VARIABLE} to one checkpoint or a folder with one."
        )
    return files[0]


def why_not() -> str | None:
    """What is missing before the full-size model can be loaded, or None."""
    try:
        file = weight_file()
    except ModelUnavailableError as error:
        return str(error)
    if not any((file.parent / name).is_file() for name in ("vocab.txt", "vocab.json", "tokenizer.json")):
        return f"{file.parent} has no vocab.txt; put the text tower's vocabulary beside the weights."
    return None
