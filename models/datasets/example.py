"""What training and evaluation see: an image, what is known about it, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

BACKGROUND, UNKNOWN, FOREGROUND = 0, 128, 255
"""Codes of a label map. An unlabelled class is UNKNOWN, never BACKGROUND."""


@dataclass(frozen=True)
class Labelled:
    """One target on one image.

    label: [H, W] codes. distance: [H, W] 0..255, how deep inside its object a pixel lies (255 at the core), or None for a
    region. present: whether the target is in the image, or None to read it off the label map. objects: [H, W] object
    numbers where the annotation parts touching objects, else None.
    """

    label: Pixels
    distance: Pixels | None = None
    present: bool | None = None
    objects: NDArray[np.uint16] | None = None


@dataclass(frozen=True)
class Example:
    """One image and everything known about it.

    image: [H, W, 3] RGB. mpp: µm per pixel, the scale it is to be read at. scale_known: False when mpp is only such a choice.
    targets: what is annotated. absent: targets that are certainly not there. tissue: False for counter-examples.
    """

    dataset: str
    name: str
    group: str
    held_out: bool
    image: Pixels
    mpp: float
    scale_known: bool = True
    targets: Mapping[str, Labelled] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    tissue: bool = True
