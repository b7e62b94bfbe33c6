"""Patches, bags and a tiny real vision transformer with known content, for the tests of slide classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.planted_bags import Patch, TissuePair
from tissuetalk.models.classifiers.encoder import PatchFeatures, TransformersEncoder
from tissuetalk.models.segmentation.little import save_little_vit

SIDE = 64
STROMA = (160, 130, 150)
COLOURS = {"blue": (70, 60, 160), "green": (90, 150, 80), "brown": (150, 90, 40)}


def stroma(random: np.random.Generator) -> np.ndarray:
    """[64, 64, 3] noisy pink."""
    return np.clip(random.normal(STROMA, 6, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def patch(random: np.random.Generator, *objects: str, group: str = "") -> Patch:
    """Stroma with thin stripes of each object's colour and its complement: blurred, they are stroma again."""
    pixels, masks = stroma(random), {}
    for number, name in enumerate(objects):
        mask = np.zeros((SIDE, SIDE), bool)
        top = 20 * number + int(random.integers(3))
        mask[top : top + 16, 4:60] = True
        stripes = mask & ((np.arange(SIDE) // 2 % 2 == 0)[None])
        pixels[stripes] = COLOURS[name]
        pixels[mask & ~stripes] = np.clip(2 * np.array(STROMA) - COLOURS[name], 0, 255)
        masks[name] = mask
    return Patch(pixels, masks, group)


def pairs(seed: int, count: int = 10) -> list[TissuePair]:
    """One tissue for each colour."""
    random = np.random.default_rng(seed)
    return [
        TissuePair(
            name,
            tuple(patch(random, name, group=f"{name}{i}") for i in range(count)),
            tuple(patch(random, group=f"{name}{i}") for i in range(count)),
        )
        for name in COLOURS
    ]


class ColourEncoder:
    """Mean and spread of colour on a 14 x 14 grid: an encoder whose features a reader can compute. Counts what it is asked."""

    name = "colours"
    weights_sha256 = "0" * 64

    def __init__(self) -> None:
        self.passes = 0

    def encode(self, patches: torch.Tensor) -> PatchFeatures:
        self.passes += len(patches)
        cells = patches.float().div(255).unfold(2, 16, 16).unfold(3, 16, 16).flatten(4)
        tokens = torch.cat([cells.mean(-1), cells.std(-1)], dim=1).permute(0, 2, 3, 1)
        return PatchFeatures(tokens, tokens.flatten(1, 2).mean(1))


def tiny_vit(folder: Path) -> TransformersEncoder:
    return TransformersEncoder(save_little_vit(folder))
