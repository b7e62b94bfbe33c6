"""A regularised linear head: fitted in a moment, the same on every run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LinearHead:
    """weights: [D] of raw features. bias: added to their sum."""

    weights: Floats
    bias: float

    def logits(self, features: Floats) -> Floats:
        """[n] of [n, D]."""
        return np.asarray(features @ self.weights + self.bias, np.float32)


def fit(
    features: Floats, positive: NDArray[np.bool_], importance: NDArray[np.float64], penalty: float
) -> LinearHead:
    """Logistic regression on standardised features. importance: [n], summing to 1 over each of the two classes."""
    from scipy.optimize import minimize

    middle, spread = features.mean(0), features.std(0) + 1e-3
    scaled = ((features - middle) / spread).astype(np.float64)
    sign = np.where(positive, 1.0, -1.0)

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = at[:-1], at[-1]
        margin = sign * (scaled @ weights + bias)
        value = float(importance @ np.logaddexp(0, -margin)) + penalty / 2 * float(weights @ weights)
        slope = -importance * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        return value, np.append(scaled.T @ slope + penalty * weights, slope.sum())

    found = minimize(
        loss, np.zeros(scaled.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 60}
    )
    weights = found.x[:-1] / spread
    return LinearHead(weights.astype(np.float32), float(found.x[-1] - middle @ weights))
