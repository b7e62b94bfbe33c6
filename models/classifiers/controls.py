"""What object importance is compared with: the same blur in random places, and perturbations that know no objects.

Grey squares: Zeiler and Fergus 2014. Superpixels: the regions of LIME, Ribeiro et al. 2016. Random masks: RISE, Petsiuk et al. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np

from tissuetalk.models.classifiers.patch_bag import Mask, PatchBag
from tissuetalk.models.classifiers.patches import stained

ControlPlace = Literal["any patch", "same patches"]
"""Random pixels anywhere in the slide's tissue, or in the very patches that hold the object (harder to beat)."""
_TRIES = 8


def moved_masks(
    bag: PatchBag, masks: Mapping[int, Mask], place: ControlPlace, random: np.random.Generator
) -> dict[int, Mask]:
    """An object's masks shifted and turned at random: the same pixels in number and clumping, but not on the object.

    Of eight random positions the one that lies most on tissue is taken.
    """
    if place == "same patches":
        homes = sorted(masks)
    else:
        homes = [int(i) for i in random.choice(len(bag), size=len(masks), replace=False)]
    moved = {}
    for home, (_, mask) in zip(homes, sorted(masks.items()), strict=True):
        tissue = stained(bag.pixels(home))
        tries = [_shifted(_fitted(mask, tissue.shape[0]), random) for _ in range(_TRIES)]
        moved[home] = max(tries, key=lambda drawn: int((drawn & tissue).sum()))
    return moved


def _fitted(mask: Mask, side: int) -> Mask:
    if mask.shape[0] == side:
        return mask
    return cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0


def _shifted(mask: Mask, random: np.random.Generator) -> Mask:
    turned = np.rot90(mask, int(random.integers(4)))
    shift = tuple(int(step) for step in random.integers(mask.shape[0], size=2))
    return np.roll(turned, shift, axis=(0, 1))
