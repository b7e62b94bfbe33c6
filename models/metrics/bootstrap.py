"""How far a mean over samples may be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES: Final = 1000
SEED: Final = 20250620


@dataclass(frozen=True)
class Interval:
    """Mean and 95 % percentile interval; the limits are None where one unit cannot show any spread."""

    mean: float
    low: float | None
    high: float | None
    n: int


def bootstrap(
    values: ArrayLike, groups: Sequence[str] | None = None, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Percentile bootstrap of the mean over samples.

    Args:
        values: one number per sample, at least one.
        groups: patient or slide of every sample. Given, whole groups are drawn with replacement, because the images
            of one patient are not independent; the mean stays the mean over samples.
        resamples: how many draws; seed: makes the interval the same every time.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError("a mean needs at least one value")
    if groups is None:
        rank = np.arange(numbers.size)
    else:
        _, rank = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.asarray(np.bincount(rank, weights=numbers), dtype=np.float64)
    counts = np.bincount(rank).astype(np.float64)
    mean = float(numbers.mean())
    if sums.size < 2:
        return Interval(mean, None, None, int(sums.size))
    low, high = np.percentile(_resampled_means(sums, counts, resamples, seed), [2.5, 97.5])
    return Interval(mean, float(low), float(high), int(sums.size))


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for draw in range(resamples):
        chosen = random.integers(sums.size, size=sums.size)
        means[draw] = sums[chosen].sum() / counts[chosen].sum()
    return means
