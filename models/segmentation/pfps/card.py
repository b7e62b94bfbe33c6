"""What a PFPs network may be used for, and whether one is here. Imports no deep-learning library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tissuetalk.models.segmenter import ModelCard

NAME: Final = "pfps"
VARIABLE: Final = "TISSUETALK_PFPS"
CARD: Final = ModelCard(
    name=NAME,
    summary="Kidney units and nuclei from a sentence or an ID (PFPs: EfficientSAM, TinyLlama with LoRA, dynamic head).",
    licence="of the weights you train",
    research_only=True,
    targets=("proximal tubule", "distal tubule", "glomerular tuft", "glomerular capsule", "nuclei"),
    mpp=(0.25,),
    prompts="text",
    source="arXiv 2407.09979; weights from `tissuetalk train` with preset: pfps",
    metrics={"published, free text, Dice dt / capsule / pt / tuft": "0.669 / 0.725 / 0.652 / 0.723"},
    limits=(
        "No weights ship: the data of the paper is not public. Kidney at 40x only. The request enters the image encoder, so "
        "every target costs a full pass. Points choose objects after the mask is made."
    ),
)


def why_not() -> str | None:
    """What is missing before the model can be loaded, or None."""
    named = os.environ.get(VARIABLE)
    if not named:
        return f"no trained network is named: run `tissuetalk train` on a recipe with preset: pfps, then set {VARIABLE} to its folder"
    if not (Path(named).expanduser() / "pfps.safetensors").is_file():
        return f"{named} holds no pfps.safetensors; set {VARIABLE} to a folder that `tissuetalk train` wrote"
    return None
