"""How quality depends on what is asked for: shape, size and density of the objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Trend = Literal["shape", "size", "density"]
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

AXES: Final[Mapping[Trend, str]] = {
    "shape": "circularity (1 - irregularity)",
    "size": "instance ratio",
    "density": "instance count",
}
BIN_WIDTH: Final[Mapping[Trend, float]] = {"shape": 0.05, "size": 0.05, "density": 2.0}

PUBLISHED: Final[Mapping[Trend, Mapping[str, Curve]]] = {
    "shape": {
        "MedSAM": lambda x: -0.8436 * np.exp(-4.4946 * x) + 0.9802,
        "PathSegmentor": lambda x: 0.2085 * x + 0.7998,
    },
    "size": {
        "MedSAM": lambda x: -0.7653 * np.exp(-14.1092 * x) + 0.8978,
        "PathSegmentor": lambda x: -0.4800 * np.exp(-17.2893 * x) + 0.9586,
    },
    "density": {
        # as printed; it falls from a pole at 0, see published_at
        "MedSAM": lambda x: 93.4330 / (173.6386 * x) + 0.1192,
        "PathSegmentor": lambda x: 0.0003 * x + 0.7240,
    },
}
"""Dice as a function of the axis, as fitted in arXiv 2506.20988."""


@dataclass(frozen=True)
class Bin:
    """Samples whose axis value lies in [low, high): their centre of weight and weighted mean Dice."""

    low: float
    high: float
    x: float
    dice: float
    n: int


def binned(axis: ArrayLike, dice: ArrayLike, width: float) -> list[Bin]:
    """Mean Dice per bin of ``width``, skipping empty ones; axis and dice are [N].

    Samples that share an axis value are averaged first; inside a bin each value weighs as much as the kernel density
    of all samples there, so that a lonely outlier does not decide a bin.
    """
    x, y = np.asarray(axis, dtype=np.float64), np.asarray(dice, dtype=np.float64)
    values, rank, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(rank, weights=y) / counts
    spread = values.size > 1 and float(np.ptp(x)) > 0
    # a density needs at least two different values
    weights = stats.gaussian_kde(x)(values) if spread else np.ones(values.size)
    # 1e-9: a value on an edge belongs to the bin above, whatever its last bit
    index = np.floor(values / width + 1e-9).astype(np.int64)
    bins = []
    for k in np.unique(index).tolist():
        here = index == k
        bins.append(
            Bin(
                low=k * width,
                high=(k + 1) * width,
                x=float(np.average(values[here], weights=weights[here])),
                dice=float(np.average(means[here], weights=weights[here])),
                n=int(counts[here].sum()),
            )
        )
    return bins


@dataclass(frozen=True)
class Fit:
    """A curve through bins, and its formula for a reader."""

    at: Curve
    formula: str


def fit_line(bins: list[Bin]) -> Fit:
    """Least squares: the published form for shape and density. Needs at least two bins."""
    if len(bins) < 2:
        raise ValueError("a line needs at least two bins")
    slope, intercept = np.polyfit([b.x for b in bins], [b.dice for b in bins], 1).tolist()
    return Fit(lambda x: slope * x + intercept, f"{slope:.4g} x {intercept:+.4g}")


def fit_saturation(bins: list[Bin]) -> Fit:
    """``ceiling - drop * exp(-rate * x)``, the published form for size. Needs at least four bins."""
    if len(bins) < 4:
        raise ValueError("a saturation curve needs at least four bins")
    x, y = np.array([b.x for b in bins]), np.array([b.dice for b in bins])

    def misfit(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(p[2] - p[0] * np.exp(-p[1] * x) - y)

    start = [0.48, 17.2893, 0.9586]  # published for PathSegmentor
    found = optimize.least_squares(misfit, start, bounds=([-1, 0, 0], [1, 200, 1]))
    drop, rate, ceiling = found.x.tolist()
    return Fit(
        lambda x: np.asarray(ceiling - drop * np.exp(-rate * x)),
        f"{ceiling:.4g} {-drop:+.4g} exp(-{rate:.4g} x)",
    )


def fit(bins: list[Bin], trend: Trend) -> Fit | None:
    """The published form for this trend, fitted; None where there are too few bins for it."""
    if trend == "size":
        return fit_saturation(bins) if len(bins) >= 4 else None
    return fit_line(bins) if len(bins) >= 2 else None


def published_at(trend: Trend, method: str, x: float) -> float:
    """A published fit at one value, kept within 0..1 (the density fit of MedSAM has a pole at 0)."""
    value = PUBLISHED[trend][method](np.array([max(x, 1e-3)]))
    return float(np.clip(value[0], 0.0, 1.0))
