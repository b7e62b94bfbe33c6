"""Augmentation learned from how far the sources themselves differ, and things that lie on slides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.datasets.augment import DENSITY, STAINS
from tissuetalk.models.datasets.example import Example, Pixels

UNMIX: Final = np.linalg.inv(STAINS).astype(np.float32)
TISSUE_DENSITY: Final = 0.35
"""Summed optical density from which a pixel is tissue; below it glass shows through."""
LEAST_PX: Final = 400


class StainPlace(NamedTuple):
    """Mean and standard deviation of the three stain densities over the tissue of an image."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]


def stain_place(image: Pixels) -> StainPlace | None:
    """Where [H, W, 3] lies; None where there is hardly any tissue."""
    some = image[:: max(1, image.shape[0] // 200), :: max(1, image.shape[1] // 200)].reshape(-1, 3)
    density = DENSITY[some]
    tissue = density.sum(1) > TISSUE_DENSITY
    if tissue.sum() < LEAST_PX:
        return None
    stains = density[tissue] @ UNMIX
    return StainPlace(stains.mean(0), np.maximum(stains.std(0), 0.02))


class StainSpread:
    """Where the stains of every source lie; a crop is moved some of the way to the place of an image of another source."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self.places: dict[str, list[StainPlace]] = defaultdict(list)
        self._own: dict[int, StainPlace | None] = {}
        for example in examples:
            if example.tissue:
                found = self._own[id(example)] = stain_place(example.image)
                if found is not None:
                    self.places[example.dataset].append(found)
        self.sources = sorted(self.places)

    def move(self, image: Pixels, example: Example, rng: np.random.Generator) -> Pixels:
        """A crop [H, W, 3] of an example in the staining of another source; sources weigh the same, however large."""
        own = self._own.get(id(example))
        if own is None:
            return image
        elsewhere = self.places[self.sources[rng.integers(len(self.sources))]]
        mean, deviation = elsewhere[rng.integers(len(elsewhere))]
        share = rng.uniform(0.3, 1.1, 3) if rng.random() < 0.5 else rng.uniform(0.3, 1.1)
        return moved_to(image, own, StainPlace(mean, deviation), share)


def moved_to(image: Pixels, own: StainPlace, other: StainPlace, share: float | NDArray[np.float64]) -> Pixels:
    """[H, W, 3] some of the way, 0..1 or one share for each stain, from where its stains lie to another place."""
    factor = np.clip((other.deviation / own.deviation) ** share, 0.45, 2.2)
    before = DENSITY[image]
    stains = (before @ UNMIX - own.mean) * factor + own.mean + share * (other.mean - own.mean)
    # Glass stays glass: where there was no density, none is added.
    bare = np.clip(2 - 2 * before.sum(2, keepdims=True) / TISSUE_DENSITY, 0, 1)
    return _seen(stains.astype(np.float32) @ STAINS * (1 - bare) + before * bare)


def _seen(density: NDArray[np.float32]) -> Pixels:
    return np.asarray(np.clip(np.exp(-density) * 255, 0, 255), np.uint8)


PEN_COLOURS: Final = np.array([(20, 90, 40), (150, 20, 30), (20, 30, 120), (15, 15, 15)])
FLAKE_COLOURS: Final = np.array([(90, 50, 25), (200, 110, 130), (120, 90, 60), (40, 35, 40)])
"""Pigment, keratin, dirt, dust: RGB."""
OPAQUE: Final = 0.85


def pen(image: Pixels, rng: np.random.Generator) -> tuple[Pixels, NDArray[np.bool_] | None]:
    """A thick coloured line, opaque or not, and what it hides."""
    points = rng.uniform(-0.2, 1.2, (4, 2)) * image.shape[0]
    at = np.linspace(0, 1, 40)[:, None]
    weights = (1, 3, 3, 1)
    curve = sum(
        weight * (1 - at) ** (3 - k) * at**k * point
        for k, (weight, point) in enumerate(zip(weights, points, strict=True))
    )
    line = np.zeros(image.shape[:2], np.uint8)
    cv2.polylines(line, [np.asarray(curve, np.int32)], False, (255,), int(rng.integers(8, 60)), cv2.LINE_AA)
    colour = np.clip(PEN_COLOURS[rng.integers(len(PEN_COLOURS))] + rng.uniform(-15, 40, 3), 0, 255)
    opacity = rng.uniform(0.4, 1.0)
    return _painted(image, line, 2, colour, opacity), line > 127 if opacity > OPAQUE else None


def fold(image: Pixels, rng: np.random.Generator) -> tuple[Pixels, None]:
    """Twice the density along a band."""
    side = image.shape[0]
    angle, place = rng.uniform(0, np.pi), rng.uniform(0.2, 0.8) * side
    rows, columns = np.mgrid[:side, : image.shape[1]]
    across = np.abs(np.cos(angle) * (rows - place) + np.sin(angle) * (columns - place))
    band = np.exp(-((across / rng.uniform(6, 22)) ** 4)) * rng.uniform(0.5, 1.2)
    return _seen(DENSITY[image] * (1 + band[..., None].astype(np.float32))), None


def flakes(image: Pixels, rng: np.random.Generator) -> tuple[Pixels, NDArray[np.bool_]]:
    """Brown or pink bodies that are no nuclei, and where they lie."""
    plane = np.zeros(image.shape[:2], np.uint8)
    for _ in range(int(rng.integers(1, 12))):
        centre = tuple(int(value) for value in rng.integers(0, image.shape[0], 2))
        axes = (int(rng.integers(3, 30)), int(rng.integers(2, 8)))
        cv2.ellipse(plane, centre, axes, float(rng.uniform(0, 180)), 0, 360, (255,), -1)
    base = FLAKE_COLOURS[rng.integers(len(FLAKE_COLOURS))]
    grain = cv2.GaussianBlur(rng.normal(0, 60, image.shape).astype(np.float32), (0, 0), 2)
    return _painted(image, plane, 1, np.clip(base + grain, 0, 255), 1.0), plane > 127


def _painted(
    image: Pixels, plane: Pixels, soft_px: float, colour: NDArray[np.float64], opacity: float
) -> Pixels:
    cover = (cv2.GaussianBlur(plane, (0, 0), soft_px).astype(np.float32) / 255 * opacity)[..., None]
    return np.asarray(np.clip(image * (1 - cover) + colour * cover, 0, 255), np.uint8)


Artefact = Callable[[Pixels, np.random.Generator], tuple[Pixels, NDArray[np.bool_] | None]]
ARTEFACTS: Final[tuple[tuple[Artefact, int], ...]] = ((pen, 5), (fold, 4), (flakes, 4))
"""With how often each comes among thirteen."""


def artefacts(
    image: Pixels, rng: np.random.Generator, share: float
) -> tuple[Pixels, NDArray[np.bool_] | None]:
    """In a share of crops a pen, a fold or dirt; returns what can no longer be seen, if anything."""
    if rng.random() >= share:
        return image, None
    often = np.array([weight for _, weight in ARTEFACTS], np.float64)
    draw, _ = ARTEFACTS[int(rng.choice(len(ARTEFACTS), p=often / often.sum()))]
    return draw(image, rng)
