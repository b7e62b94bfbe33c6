"""Whether the answer depends on the wording of the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.statistics import Interval, bootstrap

Quality = Literal["low", "medium", "high"]
QUALITIES: Final[tuple[Quality, ...]] = ("low", "medium", "high")


@dataclass(frozen=True)
class SentenceScore:
    """Dice that one sentence reached on one image and target."""

    item: str
    sentence: str
    quality: Quality
    dice: float


@dataclass(frozen=True)
class Robustness:
    """by_quality: mean Dice per level. spread: mean over items of the standard deviation over all their sentences.
    worst_spread: the largest one. low_minus_high: 0 is ideal, below -0.01 short wording costs quality."""

    by_quality: dict[Quality, Interval]
    spread: float
    worst_spread: float
    low_minus_high: float | None


def robustness(wordings: Sequence[SentenceScore]) -> Robustness:
    """Summarise the same images asked in several ways; every item needs at least two sentences."""
    if not wordings:
        raise ValueError("no wordings to compare")
    items: dict[str, list[float]] = {}
    for wording in wordings:
        items.setdefault(wording.item, []).append(wording.dice)
    lonely = [item for item, scores in items.items() if len(scores) < 2]
    if lonely:
        raise ValueError(f"asked in one way only: {', '.join(sorted(lonely)[:5])}")
    spreads = [float(np.std(scores)) for scores in items.values()]
    levels = {
        quality: bootstrap([w.dice for w in wordings if w.quality == quality])
        for quality in QUALITIES
        if any(w.quality == quality for w in wordings)
    }
    gap = levels["low"].mean - levels["high"].mean if {"low", "high"} <= levels.keys() else None
    return Robustness(levels, float(np.mean(spreads)), max(spreads), gap)


@dataclass(frozen=True)
class Agreement:
    """How alike the masks of several wordings are.

    pairwise_dice: [K, K], 1 on the diagonal. mean: over the pairs. uncertainty: [H, W] float32, 0 where all wordings
    agree, 1 where they split in half.
    """

    pairwise_dice: NDArray[np.float64]
    mean: float
    lowest: float
    uncertainty: NDArray[np.float32]


def agreement(masks: Sequence[Mask]) -> Agreement:
    """Compare the [H, W] masks that re-phrasings of one target gave on one image (at least two)."""
    k = len(masks)
    if k < 2:
        raise ValueError("agreement needs at least two masks")
    table = np.eye(k)
    for i, j in combinations(range(k), 2):
        table[i, j] = table[j, i] = dice(masks[i], masks[j])
    # above the diagonal: every pair once
    pairs = table[np.triu_indices(k, 1)]
    share = np.asarray(np.stack(masks).mean(axis=0), dtype=np.float32)
    # p (1 - p), scaled so that an even split is 1
    uncertainty = np.asarray(4.0 * share * (1.0 - share), dtype=np.float32)
    return Agreement(table, float(pairs.mean()), float(pairs.min()), uncertainty)
