"""Whether a method is better than the next best one, or only looks so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ROUNDING: Final = 1e-12
"""Differences between scores of 0..1 that are no larger come from arithmetic only."""


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
    """p-value that ``ours`` is larger than ``theirs`` sample by sample (Student's t, one-sided).

    Identical constant differences have no spread: p is 0 for a constant gain and 1 for none.
    """
    gain = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    if gain.ndim != 1 or gain.size < 2:
        raise ValueError("a paired test needs at least two samples")
    if np.ptp(gain) < ROUNDING:
        return 0.0 if gain.mean() > ROUNDING else 1.0
    return float(stats.ttest_1samp(gain, 0.0, alternative="greater").pvalue)


def against_second_best(method: str, scores: Mapping[str, ArrayLike]) -> Comparison:
    """Compare ``method`` with the best other method on the same samples in the same order."""
    means = {name: float(np.asarray(values, dtype=np.float64).mean()) for name, values in scores.items()}
    rival = max((name for name in means if name != method), key=means.__getitem__)
    gain = means[method] - means[rival]
    if gain <= 0:
        return Comparison(method, rival, gain, None, "")
    p_value = paired_t_test(scores[method], scores[rival])
    mark = "**" if p_value <= 0.01 else "*" if p_value <= 0.05 else ""
    return Comparison(method, rival, gain, p_value, mark)
