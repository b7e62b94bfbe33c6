"""What the shipped default may be used for and can be asked for. Imports no deep-learning library."""

from __future__ import annotations

import json
from pathlib import Path

from tissuetalk.models.segmentation.entry import Entry, PackageWeights
from tissuetalk.models.segmentation.pathsegmentor.targets import OBJECT_TARGETS, OFFERED_TARGETS, TARGET_MPP
from tissuetalk.models.segmentation.pathsegmentor.vocabulary import nearest_targets, target_of
from tissuetalk.models.segmenter import Capability, ModelCard, Prompt

NAME = "tissuetalk-mini"
WEIGHTS = Path(__file__).parents[2] / "weights" / f"{NAME}.safetensors"
METRICS = WEIGHTS.with_suffix(".json")


def _metrics() -> dict[str, str]:
    """Held-out scores, one line a target, from the file that the evaluation wrote beside the weights."""
    if not METRICS.is_file():
        return {}
    scores: dict[str, str] = json.loads(METRICS.read_text(encoding="utf-8"))["summary"]
    return scores


CARD = ModelCard(
    name=NAME,
    summary="Text-prompted segmentation of nuclei, colon glands, tumour and glomeruli.",
    licence="Apache-2.0 (trained on CC0-1.0 and CC-BY-4.0 images)",
    research_only=True,
    targets=OFFERED_TARGETS,
    mpp=tuple(TARGET_MPP[target] for target in OFFERED_TARGETS),
    prompts="text",
    source="trained by this project: models/recipes/mini.yaml",
    metrics=_metrics(),
    limits=(
        "Tumour was learned from a handful of cases of breast, lymph node, mouth and colon; glomeruli from PAS-stained "
        "biopsies of one set. Types of nuclei and mitoses were trained but scored too low, and are refused. Research use only."
    ),
)


class MiniTargets:
    """The offered targets, by what the prompt means."""

    card = CARD

    def capability(self, prompt: Prompt) -> Capability | None:
        target = target_of(prompt)
        if target is None:
            return None
        return Capability(target, TARGET_MPP[target], target in OBJECT_TARGETS)

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return nearest_targets(prompt, limit)


ENTRY = Entry(
    CARD,
    "tissuetalk.models.segmentation.pathsegmentor.segmenter:load_mini",
    PackageWeights(
        NAME,
        package="tissuetalk.models",
        file=f"weights/{WEIGHTS.name}",
        bring=f"reinstall the package, which carries {WEIGHTS.name}",
    ),
    MiniTargets,
)
