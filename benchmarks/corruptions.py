"""What bad pictures do to masks, and how many of the wrong ones are warned about; part of ``python -m benchmarks ship``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import is_judged
from tissuetalk.models.datasets.augment import DENSITY, STAINS
from tissuetalk.models.datasets.example import FOREGROUND, UNKNOWN, Example
from tissuetalk.models.datasets.spread import UNMIX, pen
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmentation.pathsegmentor.card import OFFERED_TARGETS
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.segmenter import RGB
from tissuetalk.models.training.ablation import Viewer, ask
from tissuetalk.tools.answers.reliability import ReliabilityFormula
from tissuetalk.tools.explain.perturbations import blurred, recompressed, restained
from tissuetalk.tools.segment.field import SMALL_PX
from tissuetalk.tools.segment.quality import picture_warnings

WRONG = 0.7
"""Dice below which a mask is wrong."""
DAB = STAINS[2]
"""The residual of H&E is diaminobenzidine in Ruifrok and Johnston's table."""


def smaller(rgb: RGB, factor: int) -> RGB:
    """Scanned at a fraction of the magnification, and enlarged again."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def penned(rgb: RGB, strokes: int) -> RGB:
    random = np.random.default_rng(5)
    for _ in range(strokes):
        rgb, _ = pen(rgb, random)
    return rgb


def immuno(rgb: RGB, share: float) -> RGB:
    """Haematoxylin as it is, ``share`` of the eosin as brown diaminobenzidine, as a slide of immunohistochemistry looks."""
    stains = DENSITY[rgb] @ UNMIX
    vectors = STAINS.copy()
    vectors[1] = (1 - share) * STAINS[1] + share * DAB
    return np.asarray(np.clip(np.exp(-(stains @ vectors)) * 255 + 0.5, 0, 255), np.uint8)


def frozen(rgb: RGB, holes: float) -> RGB:
    """Blurred tissue with round gaps of ice over a share ``holes`` of it, as frozen sections have."""
    random = np.random.default_rng(6)
    noise = cv2.GaussianBlur(random.normal(size=rgb.shape[:2]).astype(np.float32), (0, 0), 4)
    gap = cv2.GaussianBlur((noise > np.quantile(noise, 1 - holes)).astype(np.float32), (0, 0), 1.5)[..., None]
    return np.asarray(blurred(rgb, 1.2) * (1 - gap) + 240 * gap, np.uint8)


CORRUPTIONS: Mapping[str, Sequence[tuple[str, Callable[[RGB], RGB]]]] = {
    "as it is": [("", lambda rgb: rgb)],
    "pen": [("1 stroke", lambda rgb: penned(rgb, 1)), ("3 strokes", lambda rgb: penned(rgb, 3))],
    "immunohistochemistry": [
        ("half", lambda rgb: immuno(rgb, 0.5)),
        ("all eosin", lambda rgb: immuno(rgb, 1.0)),
    ],
    "frozen-like": [
        ("5 % gaps", lambda rgb: frozen(rgb, 0.05)),
        ("15 % gaps", lambda rgb: frozen(rgb, 0.15)),
    ],
    "over-stained": [
        ("1.4", lambda rgb: restained(rgb, 1.4, 1.4)),
        ("1.9", lambda rgb: restained(rgb, 1.9, 1.9)),
    ],
    "under-stained": [
        ("0.6", lambda rgb: restained(rgb, 0.6, 0.6)),
        ("0.35", lambda rgb: restained(rgb, 0.35, 0.35)),
    ],
    "out of focus": [("1.5 px", lambda rgb: blurred(rgb, 1.5)), ("3 px", lambda rgb: blurred(rgb, 3))],
    "down-sampled": [("2x", lambda rgb: smaller(rgb, 2)), ("4x", lambda rgb: smaller(rgb, 4))],
    "JPEG": [("50", lambda rgb: recompressed(rgb, 50)), ("20", lambda rgb: recompressed(rgb, 20))],
}
"""Name to (how strong, change), mild first. Lengths are pixels of the picture as it came."""


class CorruptedMask(NamedTuple):
    """warned: by what the picture looks like, or because little reliability is stated."""

    target: str
    corruption: str
    level: str
    dice: float
    painted: bool
    warned: bool

    @property
    def is_wrong(self) -> bool:
        return self.painted and self.dice < WRONG


def look_at(
    model: MiniSegmenter, formula: ReliabilityFormula, below: float, example: Example, target: str
) -> list[CorruptedMask]:
    """One image and target under every corruption. below: reliability that is warned about."""
    labelled, found = example.targets[target], list[CorruptedMask]()
    known = labelled.label != UNKNOWN
    truth = (labelled.label == FOREGROUND) & known
    for name, levels in CORRUPTIONS.items():
        for level, change in levels:
            changed = change(example.image)
            viewer = Viewer(model, replace(example, image=changed), target)
            decoded = viewer.decoded(ask(target))
            answer = model.finish(decoded, ask(target), viewer.context)
            there = answer.presence >= 0.5
            mask = (viewer.at_image_size(answer.mask) > 0) & known & there
            stated = formula.value(expected_dice(decoded.logits), answer.presence, target)
            warned = stated < below or bool(picture_warnings(viewed(changed)))
            score = float(dice(mask, truth))
            found.append(CorruptedMask(target, name, level, score, bool(mask.any()), warned))
    return found


def viewed(image: RGB) -> RGB:
    """As pictures are judged: all of it, its longest side 1024 px at most."""
    longest = max(image.shape[:2])
    if longest <= SMALL_PX:
        return image
    share = SMALL_PX / longest
    return np.asarray(cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), np.uint8)


def expected_dice(logits: NDArray[np.float32]) -> float:
    """2 sum(p m) / sum(p + m), as the engine states it."""
    share, mask = 1 / (1 + np.exp(-logits)), logits > 0
    return float(2 * share[mask].sum() / max(1e-6, share.sum() + mask.sum()))


def corrupted(
    model: MiniSegmenter, reliability: Mapping[str, Any], examples: Sequence[Example], most: int = 3
) -> dict[str, Any]:
    """Mean Dice by corruption, level and target over ``most`` images of a set, and how many masks, wrong or not, are warned about.

    reliability: of ``segment``, as it was calibrated.
    """
    formula, below = ReliabilityFormula(**reliability["formula"]), reliability["warned_below"]
    seen, counted = list[CorruptedMask](), defaultdict[tuple[str, str], int](int)
    for example in examples:
        for target in example.targets:
            if not is_judged(example, target):
                continue
            counted[example.dataset, target] += 1
            if counted[example.dataset, target] <= most:
                seen += look_at(model, formula, below, example, target)
    rows = []
    for name, levels in CORRUPTIONS.items():
        for level, _ in levels:
            here = [each for each in seen if (each.corruption, each.level) == (name, level)]
            wrong = [each for each in here if each.is_wrong]
            right = [each for each in here if each.painted and not each.is_wrong]
            rows.append(
                {
                    "corruption": name,
                    "level": level,
                    "dice": {
                        target: round(float(np.mean(some)), 3)
                        for target in OFFERED_TARGETS
                        if (some := [each.dice for each in here if each.target == target])
                    },
                    "nothing_painted": sum(not each.painted for each in here),
                    "wrong": len(wrong),
                    "warned": sum(each.warned for each in wrong),
                    "right": len(right),
                    "warned_needlessly": sum(each.warned for each in right),
                }
            )
    return {"images": sum(min(count, most) for count in counted.values()), "rows": rows}
