"""What a PFPs network may be used for and can be asked for. Imports no deep-learning library."""

from __future__ import annotations

import re
from typing import Final

from tissuetalk.models.segmentation.pretrained import Entry, TrainedFolder
from tissuetalk.models.segmenter import Capability, ModelCard, Prompt

NAME: Final = "pfps"
VARIABLE: Final = "TISSUETALK_PFPS"
MPP: Final = 0.25
UNIT_WORDS: Final = {
    "pt": "proximal tubule",
    "dt": "distal tubule",
    "tuft": "glomerular tuft",
    "capsule": "glomerular capsule",
}
_NAMES: Final = {
    "pt": re.compile(r"\bproximal (convoluted )?tubul"),
    "dt": re.compile(r"\bdistal (convoluted )?tubul"),
    "capsule": re.compile(r"\bcapsul|\bbowman"),
    "tuft": re.compile(r"\btufts?\b|\bglomerul"),
    "nuclei": re.compile(r"\bnucle(us|i|ar)\b"),
}
CARD: Final = ModelCard(
    name=NAME,
    summary="Kidney units and nuclei from a sentence or an ID (PFPs: EfficientSAM, TinyLlama with LoRA, dynamic head).",
    licence="of the weights you train",
    research_only=True,
    targets=(*UNIT_WORDS.values(), "nuclei"),
    mpp=(MPP,),
    prompts="text",
    source="arXiv 2407.09979; weights from `tissuetalk train` with preset: pfps",
    metrics={"published, free text, Dice dt / capsule / pt / tuft": "0.669 / 0.725 / 0.652 / 0.723"},
    limits=(
        "No weights ship: the data of the paper is not public. Kidney at 40x only. The request enters the image encoder, so "
        "every target costs a full pass. Points choose objects after the mask is made."
    ),
)


class KidneyUnits:
    """The four units of the kidney, and nuclei."""

    card = CARD

    def capability(self, prompt: Prompt) -> Capability | None:
        target = target_of(prompt)
        return None if target is None else Capability(UNIT_WORDS.get(target, target), MPP, objects=True)

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return list(CARD.targets[:limit])


def target_of(prompt: Prompt) -> str | None:
    """The key of UNIT_WORDS, or ``nuclei``, that the words name first; None for anything else."""
    said = f"{prompt.words} {prompt.label or ''}".lower().replace("-", " ")
    found = {name: hit.start() for name, pattern in _NAMES.items() if (hit := pattern.search(said))}
    return min(found, key=lambda name: found[name]) if found else None


WEIGHTS: Final = TrainedFolder(NAME, VARIABLE, file="pfps.safetensors", preset=NAME)
ENTRY: Final = Entry(CARD, "tissuetalk.models.segmentation.pfps.segmenter:load", WEIGHTS, KidneyUnits)
