"""A regularised linear head: fitted in a moment, the same on every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.by_example.features import LARGEST, enlarged
from tissuetalk.models.segmenter import FeatureMap

Floats = NDArray[np.float32]

PENALTY: Final = 0.003
REGION_PENALTY: Final = 0.001
"""Of stained regions: against PENALTY, Dice after ten examples each way rises by 0.01, after three it is the same."""
MOST_AXES: Final = 256
"""Principal axes of the examples that are fitted along."""


@dataclass(frozen=True)
class Scaling:
    """How features become comparable. middle, spread: [D] of unlabelled pixels of the images. share: [D], of the map a channel is in."""

    middle: Floats
    spread: Floats
    share: Floats

    @classmethod
    def of(cls, unlabelled: Floats, share: Floats) -> Scaling:
        spread = unlabelled.std(0)
        # a channel that never changes says nothing, and must not be blown up
        return cls(unlabelled.mean(0), np.maximum(spread, 1e-3 * max(float(spread.max()), 1e-6)), share)

    def __call__(self, features: Floats) -> NDArray[np.float64]:
        """[n, D] of raw features."""
        scaled = np.clip((features - self.middle) / self.spread, -LARGEST, LARGEST)
        return np.asarray(scaled * self.share, np.float64)


@dataclass(frozen=True)
class LinearHead:
    """weights: [D] of scaled features, shares included. bias: added to their sum. middle, spread: [D] of raw features."""

    weights: Floats
    bias: float
    middle: Floats
    spread: Floats

    def logits(self, features: Floats) -> Floats:
        """[n] of raw features [n, D]."""
        scaled = np.clip((features - self.middle) / self.spread, -LARGEST, LARGEST)
        return np.asarray(scaled @ self.weights + self.bias, np.float32)

    def read(self, maps: Sequence[FeatureMap], height: int, width: int) -> Floats:
        """[H, W] of a tile: each map is read where it lies, and what they say is enlarged and added up."""
        sums: dict[float, Floats] = {}
        start = 0
        for each in maps:
            part = slice(start, start := start + len(each.values))
            inverse = (1 / self.spread[part])[:, None, None]
            scaled = each.values - self.middle[part, None, None]
            scaled *= inverse
            np.clip(scaled, -LARGEST, LARGEST, out=scaled)
            said = np.tensordot(self.weights[part], scaled, 1).astype(np.float32)
            sums[each.stride] = sums[each.stride] + said if each.stride in sums else said
        total = np.full((height, width), np.float32(self.bias))
        for stride, said in sums.items():
            total += enlarged(said, stride, height, width)
        return total

    def arrays(self, name: str) -> dict[str, Floats]:
        return {
            f"{name}.weights": self.weights,
            f"{name}.bias": np.array([self.bias], np.float32),
            f"{name}.middle": self.middle,
            f"{name}.spread": self.spread,
        }

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, Floats]) -> LinearHead:
        weights, middle, spread = (arrays[f"{name}.{part}"] for part in ("weights", "middle", "spread"))
        return cls(weights, float(arrays[f"{name}.bias"][0]), middle, spread)


def importance_of(positive: NDArray[np.bool_], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """[n]: every place counts the same, and both classes 1/2 each."""
    weights = 1.0 / np.bincount(place)[place]
    for which in (positive, ~positive):
        weights[which] /= 2 * max(float(weights[which].sum()), 1e-12)
    return np.asarray(weights, np.float64)


def logistic(
    features: NDArray[np.float64],
    share: NDArray[np.float64],
    importance: NDArray[np.float64],
    penalty: NDArray[np.float64],
    offset: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """[r + 1]: what to multiply features [n, r] with, and a bias, so that with the offset they say ``share``, 0..1, of each row.

    penalty: [r + 1], on the square of each number.
    """
    from scipy.optimize import minimize  # slow to import

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = features @ at[:-1] + at[-1] + offset
        value = float(importance @ (np.logaddexp(0, logits) - share * logits)) + float(penalty @ at**2) / 2
        slope = importance * (1 / (1 + np.exp(-np.clip(logits, -50, 50))) - share)
        return value, np.append(features.T @ slope, slope.sum()) + penalty * at

    start = np.zeros(features.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100})
    return np.asarray(found.x, np.float64)


@dataclass(frozen=True)
class Axes:
    """Scaled features along the principal axes of all examples, for fits of parts of them. basis: [D, r]. at: [n, r]."""

    basis: NDArray[np.float64]
    at: NDArray[np.float64]

    @classmethod
    def of(cls, scaled: NDArray[np.float64]) -> Axes:
        values, vectors = np.linalg.eigh(scaled @ scaled.T)
        kept = np.flatnonzero(values > 1e-6 * max(float(values.max()), 1e-12))[-MOST_AXES:]
        lengths = np.sqrt(values[kept])
        return cls(scaled.T @ vectors[:, kept] / lengths, vectors[:, kept] * lengths)

    def fit(
        self,
        positive: NDArray[np.bool_],
        place: NDArray[np.int64],
        rows: NDArray[np.bool_],
        penalty: float = PENALTY,
    ) -> NDArray[np.float64]:
        """[r + 1]: logistic regression on some of the rows; the last number is the bias."""
        importance = importance_of(positive[rows], place[rows])
        return logistic(
            self.at[rows],
            positive[rows].astype(np.float64),
            importance,
            np.array([*[penalty] * self.at.shape[1], 0.0]),
        )

    def logits(self, fitted: NDArray[np.float64], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.asarray(self.at[rows] @ fitted[:-1] + fitted[-1], np.float64)


def head_of(axes: Axes, fitted: NDArray[np.float64], scaling: Scaling) -> LinearHead:
    weights = (axes.basis @ fitted[:-1]) * scaling.share
    return LinearHead(
        weights.astype(np.float32),
        float(fitted[-1]),
        scaling.middle.astype(np.float32),
        scaling.spread.astype(np.float32),
    )
