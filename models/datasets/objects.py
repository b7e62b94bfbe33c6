"""Label maps and core-distance maps from annotated masks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import find_boundaries, watershed

from tissuetalk.models.datasets.example import BACKGROUND, FOREGROUND, Labelled, Pixels

Instances = NDArray[np.int32]


def split_touching(mask: NDArray[np.bool_], *, smallest_px: int) -> Instances:
    """Objects of a merged mask: connected parts, cut where their outline has a waist.

    smallest_px: smallest distance between two object centres.
    """
    distance = cv2.GaussianBlur(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), (0, 0), 2)
    parts, _ = ndimage.label(mask)
    peaks = peak_local_max(distance, min_distance=smallest_px, labels=parts, exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-distance, markers, mask=mask), np.int32)


def core_distance(instances: Instances) -> Pixels:
    """[H, W] 0..255: distance to the object's own outline, relative to the deepest point of that object."""
    inside = (instances > 0) & ~find_boundaries(instances, mode="inner")
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
    count = int(instances.max())
    if count == 0:
        return np.zeros(instances.shape, np.uint8)
    deepest = np.concatenate(
        [[1.0], np.maximum(ndimage.maximum(distance, instances, np.arange(1, count + 1)), 1.0)]
    )
    return np.asarray(np.clip(distance / deepest[instances], 0, 1) * 255, np.uint8)


def from_instances(instances: Instances, *, parted: bool = False) -> Labelled:
    """Every object outlined: all else is background. parted: the annotation itself parts touching objects."""
    label = np.where(instances > 0, FOREGROUND, BACKGROUND).astype(np.uint8)
    return Labelled(label, core_distance(instances), objects=instances.astype(np.uint16) if parted else None)
