"""What a fine-tuned CLIPSeg, CRIS or BiomedCLIPSeg may be used for. Imports no deep-learning library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.reading import MOST_JSON_BYTES, content_of, json_in
from tissuetalk.models.segmentation.open_vocabulary import MPP
from tissuetalk.models.segmentation.pretrained import AnyWords, Entry, TrainedFolder
from tissuetalk.models.segmenter import Capability, ModelCard, Prompt, Repertoire

NAME: Final = "vlsm"
VARIABLE: Final = "TISSUETALK_VLSM"
SETTINGS, TRAINED = "vlsm.json", "vlsm.safetensors"
CnnName = Literal["unet", "unet++", "deeplabv3+"]
CNNS: Final[tuple[CnnName, ...]] = get_args(CnnName)
"""Baselines that read no words."""
CARD: Final = ModelCard(
    name=NAME,
    summary="Region for any phrase from a CLIPSeg, CRIS or BiomedCLIPSeg that you fine-tuned, or its one class from a U-Net.",
    licence="of the weights you train",
    research_only=True,
    targets=("anything in words",),
    mpp=(MPP,),
    prompts="text",
    source="`tissuetalk train` with preset: vlsm",
    metrics={"published, fine-tuned CLIPSeg, Dice Kvasir / ISIC / BUSI": "0.888 / 0.922 / 0.827"},
    limits=(
        "Answers any words, also those of classes it was not trained on. One region, no objects, no statement whether the "
        "target is there."
    ),
)


def settings_in(folder: Path) -> dict[str, Any]:
    """``vlsm.json`` of a folder. Raises ModelUnavailableError."""
    try:
        told = json_in(content_of(folder / SETTINGS, MOST_JSON_BYTES))
        return {"classes": (), **told, "network": str(told["network"]), "mpp": float(told["mpp"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            f"{NAME}: {folder / SETTINGS} is missing or damaged; give a folder `tissuetalk train` wrote"
        ) from error


@dataclass(frozen=True)
class TrainedClasses:
    """What a network that reads no words may be asked for: the classes it learned, by name. Its answer is all of them."""

    classes: frozenset[str]
    mpp: float
    card = CARD

    def capability(self, prompt: Prompt) -> Capability | None:
        asked = {prompt.words.strip().casefold(), (prompt.label or "").split("-", 2)[-1].casefold()}
        found = sorted(asked & self.classes)
        return Capability(found[0], self.mpp, objects=False) if found and len(self.classes) == 1 else None

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return sorted(self.classes)[:limit]


def repertoire_of(told: Mapping[str, Any]) -> Repertoire:
    """told: ``vlsm.json``."""
    if told["network"] in CNNS:
        return TrainedClasses(frozenset(str(name).casefold() for name in told["classes"]), told["mpp"])
    return AnyWords(CARD, told["mpp"], objects=False)


WEIGHTS: Final = TrainedFolder(NAME, VARIABLE, file=TRAINED, preset=NAME)
ENTRY: Final = Entry(
    CARD,
    "tissuetalk.models.segmentation.vlsm.segmenter:load",
    WEIGHTS,
    lambda: repertoire_of(settings_in(WEIGHTS.find())),
)
