"""What the shipped default may be used for. Imports no deep-learning library."""

from __future__ import annotations

import json
from pathlib import Path

from tissuetalk.models.datasets.example import OFFERED_TARGETS, TARGET_MPP
from tissuetalk.models.segmenter import ModelCard

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


def why_not() -> str | None:
    """What is missing before the default can be loaded, or None."""
    return None if WEIGHTS.is_file() else f"the weight file {WEIGHTS.name} is missing; reinstall the package."
