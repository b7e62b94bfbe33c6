"""What slides do to a picture, done on purpose (stain, exposure, focus, compression, turn, size), and pictures of no slide at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data as photographs

from tissuetalk.models.datasets.example import Example, Pixels
from tissuetalk.models.segmentation.pathsegmentor.card import TARGET_MPP

STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
"""Optical density of haematoxylin, eosin and a residual in R, G, B (Ruifrok and Johnston 2001)."""
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
DENSITY = -np.log(np.maximum(np.arange(256, dtype=np.float32), 1) / 255)


@dataclass(frozen=True)
class Strength:
    """How far each change may go.

    gain: factor on each stain, e to the power of plus or minus this. turn: tilt of the stain vectors. offset: added
    density. channel: factor on each colour channel, likewise. blur_px: largest Gaussian sigma. jpeg: lowest quality.
    """

    gain: float = 0.45
    turn: float = 0.12
    offset: float = 0.10
    channel: float = 0.20
    blur_px: float = 1.6
    jpeg: int = 35
    noise: float = 6.0
    plain: float = 0.15
    """Share of crops that keep their colours."""


def stain(image: Pixels, rng: np.random.Generator, strength: Strength) -> Pixels:
    """Change staining and exposure of [H, W, 3] in optical-density space; one 3x3 matrix and one offset for the whole crop."""
    vectors = STAINS + rng.normal(0, strength.turn, (3, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gain = np.exp(rng.uniform(-strength.gain, strength.gain, 3)).astype(np.float32)
    channel = np.exp(rng.uniform(-strength.channel, strength.channel, 3)).astype(np.float32)
    matrix = np.linalg.inv(STAINS) @ (gain[:, None] * vectors) * channel
    # Now and then much too dark, as thick sections are.
    dark = rng.uniform(0, 0.7) if rng.random() < 0.15 else rng.uniform(-strength.offset, strength.offset)
    density = DENSITY[image] @ matrix + dark + rng.normal(0, strength.offset / 3, 3).astype(np.float32)
    return np.asarray(np.clip(np.exp(-density) * 255, 0, 255), np.uint8)


def optics(image: Pixels, rng: np.random.Generator, strength: Strength) -> Pixels:
    """Focus, resolution, noise and compression of [H, W, 3]."""
    changed: NDArray[np.uint8] = image
    draw = rng.random(4)
    if draw[0] < 0.30:
        changed = np.asarray(cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.3, strength.blur_px)), np.uint8)
    elif draw[0] < 0.40:  # scanners sharpen
        soft = cv2.GaussianBlur(changed, (0, 0), 1.2)
        changed = np.asarray(cv2.addWeighted(changed, 1.7, soft, -0.7, 0), np.uint8)
    if draw[1] < 0.15:  # scanned at half the magnification
        height, width = changed.shape[:2]
        small = cv2.resize(changed, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        changed = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if draw[2] < 0.25:
        noisy = changed + rng.normal(0, rng.uniform(1, strength.noise), changed.shape)
        changed = np.asarray(np.clip(noisy, 0, 255), np.uint8)
    if draw[3] < 0.35:
        quality = [int(cv2.IMWRITE_JPEG_QUALITY), int(rng.integers(strength.jpeg, 95))]
        _, file = cv2.imencode(".jpg", changed, quality)
        changed = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
    return changed


def colours(image: Pixels, rng: np.random.Generator, strength: Strength) -> Pixels:
    """Stain and optics of [H, W, 3], with a share of crops left as they are."""
    if rng.random() < strength.plain:
        return image
    return optics(stain(image, rng, strength), rng, strength)


def affine(
    centre_xy: tuple[float, float], zoom: float, side_px: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """2x3 matrix from source to crop: ``centre_xy`` goes to the middle, turned by any angle, perhaps mirrored.

    zoom: crop pixels per source pixel.
    """
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
    mirror = -1 if rng.random() < 0.5 else 1
    # Cells are not round: a tenth longer one way, shorter the other, keeps their area.
    stretch = np.exp(rng.uniform(-0.12, 0.12))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = zoom * turn @ np.diag([mirror * stretch, 1 / stretch])
    shift = side_px / 2 - linear @ np.array(centre_xy)
    return np.asarray(np.column_stack([linear, shift]), np.float32)


def warp(plane: Pixels, matrix: NDArray[np.float32], side_px: int, *, smooth: bool) -> Pixels:
    """A square crop of [H, W] or [H, W, 3]; beyond the border the picture is mirrored, label maps alike."""
    flags = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    crop = cv2.warpAffine(plane, matrix, (side_px, side_px), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(crop, np.uint8)


PHOTOGRAPHS = (
    "astronaut", "coffee", "rocket", "camera", "coins", "page", "text", "moon", "brick", "grass", "gravel",
)  # fmt: skip
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
    """Glass, flat colour and noise, [512, 512, 3]: the only pictures that surely hold no nucleus and might pass for a slide."""
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
    no_target = tuple(TARGET_MPP)
    for name, image in images:
        yield Example("counter-examples", name, name, False, image, 0.5, False, {}, no_target, tissue=False)
