"""How far a mean over samples may be trusted, and whether a method is better than the next best one or only looks so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ROUNDING: Final = 1e-12
"""Differences between scores of 0..1 that are no larger come from arithmetic only."""
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
        values: [N], one number per sample, at least one.
        groups: patient or slide of every sample. Given, whole groups are drawn with replacement, because the images
            of one patient are not independent; the mean stays the mean over samples.
        resamples: how many draws; seed: makes the interval the same every time.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError("a mean needs at least one value")
    unit = (
        np.arange(numbers.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    )
    # a draw then costs one sum over units, however many samples each has
    sums, counts = np.bincount(unit, weights=numbers), np.bincount(unit)
    mean, n = float(numbers.mean()), len(counts)
    if n < 2:
        return Interval(mean, None, None, n)
    random = np.random.default_rng(seed)
    drawn = (random.integers(n, size=n) for _ in range(resamples))  # one draw at a time: n may be large
    low, high = np.percentile([sums[units].sum() / counts[units].sum() for units in drawn], [2.5, 97.5])
    return Interval(mean, float(low), float(high), n)


@dataclass(frozen=True)
class Comparison:
    """One method against the best of the others.

    p_value: one-sided paired t-test, or None when the method is not the best on average (nothing to test).
    mark: ``**`` for p <= 0.01, ``*`` for p <= 0.05, else empty.
    """

    method: str
    rival: str
    mean_gain: float
    p_value: float | None
    mark: str


def paired_t_test(ours: ArrayLike, theirs: ArrayLike) -> float:
    """p-value that ``ours`` [N] is larger than ``theirs`` [N] sample by sample (Student's t, one-sided).

    Identical constant differences have no spread: p is 0 for a constant gain and 1 for none.
    """
    gain = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    if gain.ndim != 1 or gain.size < 2:
        raise ValueError("a paired test needs at least two samples")
    # no spread: the test would divide by zero
    if np.ptp(gain) < ROUNDING:
        return 0.0 if gain.mean() > ROUNDING else 1.0
    return float(stats.ttest_1samp(gain, 0.0, alternative="greater").pvalue)


def against_second_best(method: str, scores: Mapping[str, ArrayLike]) -> Comparison:
    """Compare ``method`` with the best other method; scores are [N] each, of the same samples in the same order."""
    means = {name: float(np.asarray(values, dtype=np.float64).mean()) for name, values in scores.items()}
    rival = max((name for name in means if name != method), key=means.__getitem__)
    gain = means[method] - means[rival]
    if gain <= 0:
        return Comparison(method, rival, gain, None, "")
    p_value = paired_t_test(scores[method], scores[rival])
    mark = "**" if p_value <= 0.01 else "*" if p_value <= 0.05 else ""
    return Comparison(method, rival, gain, p_value, mark)
