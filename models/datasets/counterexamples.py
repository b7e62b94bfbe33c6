"""Pictures that are no stained tissue: every target is absent from them."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from skimage import data as photographs

from tissuetalk.models.datasets.example import Example, Pixels
from tissuetalk.models.segmentation.pathsegmentor.targets import TARGET_MPP

PHOTOGRAPHS = (
    "astronaut",
    "coffee",
    "rocket",
    "camera",
    "coins",
    "page",
    "text",
    "moon",
    "brick",
    "grass",
    "gravel",
)
"""Free pictures that scikit-image ships; its cat is kept back for tests."""


def _fluorescence(rng: np.random.Generator, side: int = 512) -> Pixels:
    """Bright blobs on black in one or two colours, as nuclei look under fluorescence."""
    image = np.zeros((side, side, 3), np.float32)
    for _ in range(int(rng.integers(1, 3))):
        plane = np.zeros((side, side), np.float32)
        for _ in range(int(rng.integers(30, 200))):
            centre = tuple(int(v) for v in rng.integers(0, side, 2))
            axes = tuple(int(v) for v in rng.integers(5, 22, 2))
            brightness = float(rng.uniform(60, 255))
            cv2.ellipse(plane, centre, axes, float(rng.uniform(0, 180)), 0, 360, (brightness,), -1)
        soft = cv2.GaussianBlur(plane, (0, 0), float(rng.uniform(1, 4)))
        image += soft[..., None] * rng.dirichlet((0.5, 0.5, 0.5)).astype(np.float32) * 1.6
    return np.asarray(np.clip(image + rng.normal(4, 3, image.shape), 0, 255), np.uint8)


def _flat(rng: np.random.Generator, side: int = 512) -> Pixels:
    """Glass, one colour, a soft gradient or noise."""
    colour = rng.uniform(0, 255, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(200, 255))
    ramp = np.linspace(-1, 1, side)[:, None, None] * rng.uniform(0, 40, 3)
    image = colour + ramp + rng.normal(0, rng.uniform(0, 30), (side, side, 3))
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def blank_pictures(seed: int = 0, count: int = 12) -> list[Pixels]:
    """Glass, flat colour and noise: the only pictures that surely hold no nucleus and might pass for a slide."""
    rng = np.random.default_rng((seed, 1))
    return [_flat(rng) for _ in range(count)]


def counterexamples(seed: int = 0) -> Iterator[Example]:
    """Photographs, drawn fluorescence, and flat colour."""
    rng = np.random.default_rng(seed)
    images: list[tuple[str, Pixels]] = []
    for name in PHOTOGRAPHS:
        image = np.asarray(getattr(photographs, name)())
        rgb = np.stack([image] * 3, axis=-1) if image.ndim == 2 else image[..., :3]
        images.append((name, np.ascontiguousarray(rgb, np.uint8)))
    images += [(f"fluorescence-{k}", _fluorescence(rng)) for k in range(14)]
    images += [(f"flat-{k}", _flat(rng)) for k in range(12)]
    for name, image in images:
        yield Example(
            "counter-examples", name, name, False, image, 0.5, False, {}, tuple(TARGET_MPP), tissue=False
        )
