"""What the full-size PathSegmentor may be used for and can be asked for. Imports no deep-learning library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rapidfuzz import fuzz, process

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.entry import Entry, Weights
from tissuetalk.models.segmenter import Capability, ModelCard, Prompt

NAME: Final = "pathsegmentor"
VARIABLE: Final = "TISSUETALK_PATHSEGMENTOR"
WEIGHT_SUFFIXES: Final = (".safetensors", ".pt", ".pth")
READ_AT_MPP: Final = 0.25
"""40x, the magnification all training images were brought to."""
SEPARATE: Final = ("gland", "glands")
"""Object types of tissue that come as separate objects; cells and nuclei always do."""

CARD = ModelCard(
    name=NAME,
    summary="PathSegmentor at the paper's size: any of the 160 labels in words (FocalNet-L, 101 queries).",
    licence="of the weights you bring",
    research_only=True,
    targets=("what its weights were trained for",),
    mpp=(READ_AT_MPP,),
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


class OwnCheckpoint(Weights):
    """One weight file, named itself or as the only one of a folder, with its text tower's vocabulary beside it."""

    def usual(self) -> Path:
        raise ModelUnavailableError(
            f"set {self.variable} to a checkpoint (.safetensors, .pt) or to a folder with one, its text tower's vocab.txt "
            "and perhaps config.json; `tissuetalk train` writes such a folder."
        )

    def at(self, place: Path) -> Path:
        files = [place]
        if place.is_dir():
            files = sorted(file for file in place.iterdir() if file.suffix in WEIGHT_SUFFIXES)
        if len(files) != 1 or not files[0].is_file():
            found = f"{len(files)} weight files in" if place.is_dir() else "no file at"
            raise ModelUnavailableError(
                f"{found} {place}; set {self.variable} to one checkpoint or a folder with one."
            )
        folder = files[0].parent
        if not any((folder / name).is_file() for name in ("vocab.txt", "vocab.json", "tokenizer.json")):
            raise ModelUnavailableError(
                f"{folder} has no vocab.txt; put the text tower's vocabulary beside the weights."
            )
        return files[0]


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder, empty when there is none. Raises ModelUnavailableError when it is no table."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**told, "model": dict(told.get("model", {}))}
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelUnavailableError(
            f"{path} is no configuration ({error}); write it as `tissuetalk train` does."
        ) from error


@dataclass(frozen=True)
class BaseLabels:
    """What a checkpoint's folder says it was trained for; any words where nobody says.

    labels: canonical, or None. mpp: µm per pixel it reads at.
    """

    labels: frozenset[str] | None
    mpp: float
    card = CARD

    @classmethod
    def of(cls, file: Path) -> BaseLabels:
        """As config.json beside a weight file says. Raises ModelUnavailableError."""
        config = read_config(file.parent)
        labels = config.get("labels")
        return cls(frozenset(labels) if labels else None, float(config.get("mpp", READ_AT_MPP)))

    def capability(self, prompt: Prompt) -> Capability | None:
        name = prompt.label or prompt.words.strip().casefold()
        if self.labels is not None and name not in self.labels:
            return None
        return Capability(name, self.mpp, has_objects(prompt)) if name else None

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        names = {label: label.replace("-", " ") for label in sorted(self.labels or ())}
        asked = (prompt.label or prompt.words).replace("-", " ")
        return [hit[2] for hit in process.extract(asked, names, scorer=fuzz.token_set_ratio, limit=limit)]


def has_objects(prompt: Prompt) -> bool:
    """Whether what the label names comes as separate objects."""
    if prompt.label is None:
        return False
    _, structure, kind = prompt.label.split("-", 2)
    return structure in ("cell", "nuclei") or kind in SEPARATE


WEIGHTS: Final = OwnCheckpoint(NAME, VARIABLE)
ENTRY: Final = Entry(
    CARD,
    "tissuetalk.models.segmentation.pathsegmentor.base_segmenter:load",
    WEIGHTS,
    lambda: BaseLabels.of(WEIGHTS.find()),
)
