"""What training and evaluation see: an image, what is known about it, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import find_boundaries, watershed

Pixels = NDArray[np.uint8]
Instances = NDArray[np.int32]

BACKGROUND, UNKNOWN, FOREGROUND = 0, 128, 255
"""Codes of a label map. An unlabelled class is UNKNOWN, never BACKGROUND."""
REGION_STORE_MPP = 0.8
"""Regions are kept a little finer than they are read, so that enlarging them stays sharp."""


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


def from_instances(instances: Instances, *, parted: bool = False) -> Labelled:
    """[H, W] object numbers, every object outlined: all else is background. parted: the annotation itself parts touching ones."""
    label = np.where(instances > 0, FOREGROUND, BACKGROUND).astype(np.uint8)
    return Labelled(label, core_distance(instances), objects=instances.astype(np.uint16) if parted else None)


def region(mask: Pixels | Instances) -> Labelled:
    """Everything above 0 in [H, W] as one region, all else as background."""
    return Labelled(np.where(mask > 0, FOREGROUND, BACKGROUND).astype(np.uint8))


def split_touching(mask: NDArray[np.bool_], *, smallest_px: int) -> Instances:
    """Objects of a merged mask [H, W]: connected parts, cut where their outline has a waist.

    smallest_px: smallest distance between two object centres.
    """
    # Smoothed, or every bump of the outline would be a peak of its own.
    distance = cv2.GaussianBlur(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), (0, 0), 2)
    parts, _ = ndimage.label(mask)
    peaks = peak_local_max(distance, min_distance=smallest_px, labels=parts, exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-distance, markers, mask=mask), np.int32)


def core_distance(instances: Instances) -> Pixels:
    """[H, W] 0..255: distance to the object's own outline, relative to the deepest point of that object."""
    # Inner boundaries are taken out first, or touching objects would share one distance hill.
    inside = (instances > 0) & ~find_boundaries(instances, mode="inner")
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
    count = int(instances.max())
    if count == 0:
        return np.zeros(instances.shape, np.uint8)
    peaks = ndimage.maximum(distance, instances, np.arange(1, count + 1))
    deepest = np.concatenate([[1.0], np.maximum(peaks, 1.0)])
    return np.asarray(np.clip(distance / deepest[instances], 0, 1) * 255, np.uint8)
