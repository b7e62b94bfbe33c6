"""PathSeg's four rules for every image and mask: magnification, patches, size, split (A5 to A8)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.datasets.example import Pixels

COMMON_MAGNIFICATION: Final = 40.0
COMMON_MPP: Final = 0.25
"""µm per pixel at 40x."""
KEPT_WHOLE_PX: Final = 1500
SIDE_PX: Final = 1024
TEST_SHARE: Final = 0.2
SPLIT_SEED: Final = 2025

Objects = NDArray[np.int32]
"""[H, W] object numbers, 0 elsewhere; a region is the one object 1."""
Plane = TypeVar("Plane", Pixels, Objects)


@dataclass(frozen=True)
class Patch:
    """A square of 1024 px cut from an image at 40x.

    x, y: where it begins, and width, height: how large it was, in pixels at 40x. labels: only those with a pixel here.
    """

    x: int
    y: int
    width: int
    height: int
    image: Pixels
    labels: Mapping[str, Objects]

    @property
    def mpp_xy(self) -> tuple[float, float]:
        """µm per pixel across and down, after the resize."""
        return COMMON_MPP * self.width / SIDE_PX, COMMON_MPP * self.height / SIDE_PX


def windows(length: int) -> list[tuple[int, int]]:
    """Start and length of the patches along one side: whole up to 1500 px, else 1024 px with equal overlaps."""
    if length <= KEPT_WHOLE_PX:
        return [(0, length)]
    count = math.ceil(length / SIDE_PX)
    return [(round(k * (length - SIDE_PX) / (count - 1)), SIDE_PX) for k in range(count)]


def overlap(length: int) -> float:
    """Pixels that neighbouring windows share; 0 for a side that is kept whole."""
    count = len(windows(length))
    return (SIDE_PX * count - length) / (count - 1) if count > 1 else 0.0


def patches(image: Pixels, labels: Mapping[str, Objects], magnification: float) -> Iterator[Patch]:
    """Every patch of an image as scanned at ``magnification``: to 40x, cut, and to 1024 x 1024 px."""
    factor = COMMON_MAGNIFICATION / magnification
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    image = _resized(image, size)
    labels = {label: _resized(plane, size) for label, plane in labels.items()}
    for y, height in windows(image.shape[0]):
        for x, width in windows(image.shape[1]):
            part = np.s_[y : y + height, x : x + width]
            inside = {label: plane[part] for label, plane in labels.items() if plane[part].any()}
            kept = {label: _resized(plane, (SIDE_PX, SIDE_PX)) for label, plane in inside.items()}
            yield Patch(x, y, width, height, _resized(image[part], (SIDE_PX, SIDE_PX)), kept)


def _resized(plane: Plane, size: tuple[int, int]) -> Plane:
    """Images bilinear, object numbers nearest. size: width, height."""
    if plane.shape[:2] == size[::-1]:
        return plane
    if plane.ndim == 3:
        return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), plane.dtype)
    # OpenCV has no nearest-neighbour resize for int32; float32 holds object numbers exactly
    moved: Any = cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(moved, plane.dtype)


def random_split(names: Sequence[str], *, seed: int = SPLIT_SEED) -> dict[str, Literal["train", "test"]]:
    """Four fifths train, one fifth test, whole source images; the same for the same names in any order."""
    ordered = sorted(set(names))
    chosen = set(random.Random(seed).sample(ordered, round(TEST_SHARE * len(ordered))))
    return {name: "test" if name in chosen else "train" for name in ordered}
