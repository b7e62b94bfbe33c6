"""What the two PathSegmentors may be used for and can be asked for: the shipped ``mini`` and the paper's ``base``.

Imports no deep-learning library. The network would paint something for any sentence, so a prompt is only let through when
the readers of words found that it names one concept and nothing else (``Prompt.concept``), and that concept is one of the
trained targets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from rapidfuzz import fuzz, process

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.looks import MIRRORS
from tissuetalk.models.reading import MOST_JSON_BYTES, content_of, json_in
from tissuetalk.models.segmentation.pretrained import Entry, PackageWeights, Weights
from tissuetalk.models.segmenter import Blends, Capability, ModelCard, Prompt

TARGET_MPP: Final[Mapping[str, float]] = {
    "nuclei": 0.25,
    "gland": 1.2,
    "tumour": 1.0,
    "glomerulus": 2.0,
    "tumour nuclei": 0.25,
    "non-tumour nuclei": 0.25,
    "mitosis": 0.25,
    "lymphocytes": 0.25,
    "adipose tissue": 1.0,
    "stroma": 1.0,
}
"""µm per pixel at which each target is looked for."""

MIRRORED_FROM_MPP: Final = 1.0
"""Targets at this scale and coarser, learned from few cases, are answered from all mirror images: at a sixteenth of the pixels
of nuclei it costs little, and held-out Dice rises by up to 0.05 (the weights' card)."""

SPECK_PX: Final[Mapping[str, int]] = {"gland": 400, "glomerulus": 600}
"""Area at that scale below which an object is a speck: a disc of 27 and of 55 µm, a fraction of the smallest trained on."""

OFFERED_TARGETS: Final = ("nuclei", "gland", "tumour", "glomerulus")
"""Targets whose held-out scores allow them to be offered; the others are trained, measured and refused."""

OBJECT_TARGETS: Final = frozenset(TARGET_MPP) - {"tumour", "adipose tissue", "stroma"}
"""Targets that come back as separate objects."""

CONCEPTS: Final[Mapping[str, str]] = {
    "nuclei": "nuclei",
    "gland": "gland",
    "tumor": "tumour",
    "glomerulus": "glomerulus",
    "tumor_nuclei": "tumour nuclei",
    "normal_nuclei": "non-tumour nuclei",
    "mitosis": "mitosis",
    "lymphocyte": "lymphocytes",
    "fat": "adipose tissue",
    "stroma": "stroma",
}
"""The trained target of each concept."""

LABELS: Final[Mapping[str, str]] = {
    "breast-nuclei-nuclei": "nuclei",
    "colon-tissue-gland": "gland",
    "colon-tissue-malignant lesion": "tumour",
    "breast-tissue-tumor": "tumour",
    "breast-nuclei-tumor": "tumour nuclei",
    "breast-cell-cancerous": "tumour nuclei",
    "breast-nuclei-mitotic figure": "mitosis",
    "breast-cell-mitosis": "mitosis",
}
"""Canonical labels that a target was trained for."""
ASKED_AS: Final[Mapping[str, str]] = {"gland": "glands", "glomerulus": "glomeruli"}
"""How the network is asked for a target, where not by the target's own name: the wording that its cuts and its presence were
fitted with. What means the same moves the outline, by as much as 0.05 Dice for "cells" on sets never trained on."""
ALSO_CALLED: Final[Mapping[str, str]] = {
    "nuclei": "nucleus nuclear cells",
    "gland": "glands crypts epithelium glandular",
    "tumour": "tumor cancer carcinoma malignant metastasis",
    "glomerulus": "glomeruli glomerular tuft",
}
"""What else the offered targets are called, only to say which of them comes nearest to something refused."""


def target_of(prompt: Prompt) -> str | None:
    """The offered target a prompt means, or None. Typed nuclei are understood, and refused: they scored too low."""
    meant = _meant(prompt)
    return meant if meant in OFFERED_TARGETS else None


def _meant(prompt: Prompt) -> str | None:
    label = prompt.label
    if label is not None and prompt.words == label.split("-", 2)[-1]:
        return LABELS.get(label)
    found = CONCEPTS.get(prompt.concept or "")
    # A label more specific than the words narrows them: 'cells' with a lymphocyte label is not 'all nuclei'.
    if found == "nuclei" and label is not None and label.split("-", 2)[1] in ("nuclei", "cell"):
        return LABELS.get(label)
    return found


def sentence(prompt: Prompt, target: str) -> str:
    """What the network reads: one wording for each target, so that a synonym changes nothing, unless the prompt insists on its own."""
    return prompt.text if prompt.verbatim and prompt.text else ASKED_AS.get(target, target)


def looks_at(target: str) -> int:
    """From how many sides a tile is seen for a trained target, offered or not."""
    return len(MIRRORS) if TARGET_MPP[target] >= MIRRORED_FROM_MPP else 1


def nearest_targets(prompt: Prompt, limit: int = 3) -> list[str]:
    """The offered targets whose names look most like a prompt, best first."""
    asked = f"{prompt.words} {(prompt.label or '').replace('-', ' ')}".casefold()
    likeness = {
        target: max(fuzz.token_set_ratio(asked, name) for name in (target, *ALSO_CALLED[target].split()))
        for target in OFFERED_TARGETS
    }
    return sorted(likeness, key=lambda target: -likeness[target])[:limit]


MINI_NAME = "tissuetalk-mini"
MINI_WEIGHTS = Path(__file__).parents[2] / "weights" / f"{MINI_NAME}.safetensors"


def _metrics() -> dict[str, str]:
    """Held-out scores, one line a target, from the file that the evaluation wrote beside the weights."""
    measured = MINI_WEIGHTS.with_suffix(".json")
    if not measured.is_file():
        return {}
    scores: dict[str, str] = json.loads(measured.read_text(encoding="utf-8"))["summary"]
    return scores


MINI_CARD = ModelCard(
    name=MINI_NAME,
    summary="Text-prompted segmentation of nuclei, colon glands, tumour and glomeruli.",
    licence="Apache-2.0 (trained on CC0-1.0, CC-BY and other open images; the card names them)",
    research_only=True,
    targets=OFFERED_TARGETS,
    mpp=tuple(TARGET_MPP[target] for target in OFFERED_TARGETS),
    prompts="text",
    source="trained by this project: models/recipes/mini.yaml, then mini2.yaml",
    metrics=_metrics(),
    limits=(
        "Tumour was learned from a handful of cases of breast, lymph node, mouth and colon; glomeruli from PAS-stained "
        "biopsies of one set. Types of nuclei and mitoses were trained but scored too low, and are refused. Research use only."
    ),
)


class MiniTargets:
    """The offered targets, by what the prompt means."""

    card = MINI_CARD

    def capability(self, prompt: Prompt) -> Capability | None:
        target = target_of(prompt)
        if target is None:
            return None
        mpp = TARGET_MPP[target]
        return Capability(
            target, mpp, target in OBJECT_TARGETS, SPECK_PX.get(target, 0), looks=looks_at(target)
        )

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return nearest_targets(prompt, limit)


MINI_FILE = PackageWeights(
    MINI_NAME,
    package="tissuetalk.models",
    file=f"weights/{MINI_WEIGHTS.name}",
    bring=f"reinstall the package, which carries {MINI_WEIGHTS.name}",
    sha256="bf681273a4713057e2c114e1881039c157a9bae0e0ff39a4adeacdb6c66ed668",
)
MINI = Entry(
    MINI_CARD,
    "tissuetalk.models.segmentation.pathsegmentor.segmenter:MiniSegmenter",
    MINI_FILE,
    MiniTargets,
)

WEIGHT_SUFFIXES: Final = (".safetensors", ".pt", ".pth")
READ_AT_MPP: Final = 0.25
"""40x, the magnification all training images were brought to."""
WHOLE_UP_TO_PX: Final = 1500
"""A picture of at most this many pixels a side at 40x was one training patch, brought to ``SHOWN_AT_PX``."""
SHOWN_AT_PX: Final = 1024
SEPARATE: Final = ("gland", "glands")
"""Object types of tissue that come as separate objects; cells and nuclei always do."""

BASE_CARD = ModelCard(
    name="pathsegmentor",
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
        told: dict[str, Any] = json_in(content_of(path, MOST_JSON_BYTES))
        return {**told, "model": dict(told.get("model", {}))}
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelUnavailableError(
            f"{path} is no configuration ({error}); write it as `tissuetalk train` does."
        ) from error


@dataclass(frozen=True)
class BaseLabels:
    """What a checkpoint's folder says it was trained for; any words where nobody says.

    labels: canonical, or None. mpp: µm per pixel it reads at. shown_at_px: longest side of the patches it was trained on.
    mean_presence: its evidence that something is there is the mean probability of what it paints, not the strongest pixel.
    blends: what of overlapping tiles is averaged.
    """

    labels: frozenset[str] | None
    mpp: float
    shown_at_px: int = SHOWN_AT_PX
    mean_presence: bool = False
    blends: Blends = "logits"
    card = BASE_CARD

    @classmethod
    def of(cls, file: Path) -> BaseLabels:
        """As config.json beside a weight file says. Raises ModelUnavailableError."""
        config = read_config(file.parent)
        labels, mpp = config.get("labels"), float(config.get("mpp", READ_AT_MPP))
        shown, presence = (
            int(config.get("shown_at_px", SHOWN_AT_PX)),
            config.get("presence", "strongest pixel"),
        )
        if presence not in ("strongest pixel", "mean probability"):
            raise ModelUnavailableError(
                f"{file.parent / 'config.json'}: presence is “strongest pixel” or “mean probability”, not {presence!r}."
            )
        blends = config.get("blends", "logits")
        if blends not in ("logits", "probabilities"):
            raise ModelUnavailableError(
                f"{file.parent / 'config.json'}: blends is “logits” or “probabilities”, not {blends!r}."
            )
        known = frozenset(labels) if labels else None
        return cls(known, mpp, shown, presence == "mean probability", blends)

    def mpp_of_picture(self, mpp: float, width_um: float, height_um: float) -> float:
        """µm per pixel at which a picture is shown for a target of ``mpp``: a small one as large as a training patch."""
        longest = max(width_um, height_um) / mpp
        return mpp if longest > WHOLE_UP_TO_PX else mpp * longest / self.shown_at_px

    def capability(self, prompt: Prompt) -> Capability | None:
        """An object type is known in every region where it was trained in one, as the paper tests external sets."""
        name = prompt.label or prompt.words.strip().casefold()
        trained = self.labels is None or name in self.labels or name.split("-", 2)[-1] in self._types
        if not (name and trained):
            return None
        return Capability(name, self.mpp, has_objects(prompt), blends=self.blends)

    @cached_property
    def _types(self) -> frozenset[str]:
        return frozenset(label.split("-", 2)[-1] for label in self.labels or ())

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


BASE_WEIGHTS: Final = OwnCheckpoint("pathsegmentor", "TISSUETALK_PATHSEGMENTOR")
BASE: Final = Entry(
    BASE_CARD,
    "tissuetalk.models.segmentation.pathsegmentor.base_segmenter:load",
    BASE_WEIGHTS,
    lambda: BaseLabels.of(BASE_WEIGHTS.find()),
)
