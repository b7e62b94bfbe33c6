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
NUCLEI: Final = "nuclei"
SENTENCES: Final = {
    1: "Segment every {} in this patch.",
    2: "Segment all nuclei.",
    3: "Segment the {} together with all nuclei.",
    4: "Segment the nuclei inside the {}.",
    5: "Segment the nuclei outside the {}.",
    6: "Segment the nucleus at the point.",
    7: "Segment the {} at the point.",
    8: "Segment the nuclei inside the {} at the point.",
    9: "Segment the nuclei outside the {} at the point.",
}
CARD: Final = ModelCard(
    name=NAME,
    summary="Kidney units and nuclei from a sentence or an ID (PFPs: EfficientSAM, TinyLlama with LoRA, dynamic head).",
    licence="of the weights you train",
    research_only=True,
    targets=(*UNIT_WORDS.values(), "nuclei"),
    mpp=(MPP,),
    prompts="text with boxes and points",
    source="arXiv 2407.09979; weights from `tissuetalk train` with preset: pfps",
    metrics={"published, free text, Dice dt / capsule / pt / tuft": "0.669 / 0.725 / 0.652 / 0.723"},
    limits=(
        "No weights ship: the data of the paper is not public. Kidney at 40x only. The request enters the image encoder, so "
        "every target costs a full pass, and every point or box one of its own, around it. To a network that was trained "
        "without boxes they are not sent: they choose among what it found."
    ),
)


class KidneyUnits:
    """The four units of the kidney, and nuclei."""

    card = CARD

    def capability(self, prompt: Prompt) -> Capability | None:
        target = target_of(prompt)
        if target is None:
            return None
        together = prompt.relation is not None and prompt.relation[0] == "union"
        return Capability(UNIT_WORDS.get(target, target), MPP, objects=not together)

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return list(CARD.targets[:limit])


def target_of(prompt: Prompt) -> str | None:
    """The key of UNIT_WORDS, or ``nuclei``, that the words name first; None for anything else."""
    return _named(f"{prompt.words} {prompt.label or ''}")


def asked_of(prompt: Prompt) -> tuple[str | None, int] | None:
    """The unit (None where it is about nuclei alone) and the task 1 to 9 that a prompt amounts to; None for anything else."""
    target, at = target_of(prompt), prompt.at_place
    if target is None or prompt.relation is None:
        unit = None if target == NUCLEI else target
        return None if target is None else (unit, (6 if at else 2) if unit is None else (7 if at else 1))
    relation, other = prompt.relation[0], _named(prompt.relation[1])
    if relation == "union" and not at and NUCLEI in (target, other) and other is not None and target != other:
        return (other if target == NUCLEI else target), 3
    if target != NUCLEI or other is None or other == NUCLEI or relation == "union":
        return None
    if relation == "outside":
        return other, 9 if at else 5
    return other, 8 if at else 4


def sentence_for(unit: str | None, task: int) -> str:
    """What is sent to a network that reads sentences where nobody said one: a sentence that it was trained with."""
    return SENTENCES[task].format(UNIT_WORDS.get(unit or "", ""))


def _named(words: str) -> str | None:
    said = words.lower().replace("-", " ")
    found = {name: hit.start() for name, pattern in _NAMES.items() if (hit := pattern.search(said))}
    return min(found, key=lambda name: found[name]) if found else None


WEIGHTS: Final = TrainedFolder(NAME, VARIABLE, file="pfps.safetensors", preset=NAME)
ENTRY: Final = Entry(CARD, "tissuetalk.models.segmentation.pfps.segmenter:load", WEIGHTS, KidneyUnits)
