"""Is the target there at all? The presence logit and the mask itself, weighed by a curve fitted on held-out pairs (A20)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from tissuetalk.models.interface import Decoded

WINDOW_PX = 256
"""The mask is judged where it is densest, in windows of the side on which the presence logit was learned."""
NOTHING = 1e-3
"""Share of a window below which a mask counts as none."""


@dataclass(frozen=True)
class Calibration:
    """A logistic curve over what the presence head said and how full the fullest window of the mask is."""

    said: float = 1.0
    filled: float = 0.0
    offset: float = 0.0

    def probability(self, evidence: tuple[float, float]) -> float:
        said, filled = evidence
        return float(1 / (1 + np.exp(-(self.said * said + self.filled * filled + self.offset))))


def evidence_of(decoded: Decoded) -> tuple[float, float]:
    """(presence logit, log-odds of the mean mask probability in the fullest window)."""
    probability = 1 / (1 + np.exp(-np.clip(decoded.logits, -30, 30)))
    height, width = probability.shape
    size = max(1, round(width / WINDOW_PX)), max(1, round(height / WINDOW_PX))
    fullest = float(cv2.resize(probability, size, interpolation=cv2.INTER_AREA).max())
    fullest = min(max(fullest, NOTHING), 1 - NOTHING)
    said = float(decoded.logits.max()) if decoded.presence is None else decoded.presence
    return said, float(np.log(fullest / (1 - fullest)))


def calibrate(evidence: Sequence[tuple[float, float]], there: Sequence[bool]) -> Calibration:
    """The curve through the pairs, present and absent weighing the same; neither slope may be negative."""
    seen: NDArray[np.float64] = np.array(evidence, np.float64)
    present = np.array(there)
    share = np.where(present, 0.5 / max(1, present.sum()), 0.5 / max(1, (~present).sum()))

    def cost(curve: NDArray[np.float64]) -> float:
        margin = (seen @ curve[:2] + curve[2]) * np.where(present, 1, -1)
        return float((share * np.logaddexp(0, -margin)).sum() + 1e-4 * ((curve[:2] - (1, 0)) ** 2).sum())

    fitted = minimize(cost, np.array([1.0, 0.0, 0.0]), bounds=[(0, None), (0, None), (None, None)])
    return Calibration(*(round(float(value), 4) for value in fitted.x))
