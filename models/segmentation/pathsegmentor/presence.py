"""Is the target there at all? The presence logit and the mask itself, weighed by curves fitted on held-out pairs (A20)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmenter import Decoded

STRONGEST_PX = 200
"""How many pixels speak for the mask: about one small object."""
ANY = "any"
"""Name of the curve of every target that has none of its own."""
RESTRAINT = 1e-3
"""Penalty on steep curves."""

Evidence = tuple[float, float]
"""Presence logit, and mean mask logit of the strongest pixels."""


@dataclass(frozen=True)
class Calibration:
    """A logistic curve over the evidence."""

    said: float = 1.0
    strongest: float = 0.0
    offset: float = 0.0

    def probability(self, evidence: Evidence) -> float:
        said, strongest = evidence
        return float(1 / (1 + np.exp(-(self.said * said + self.strongest * strongest + self.offset))))


Calibrations = Mapping[str, Calibration]
"""Target, or ANY, to its curve."""


def probability(curves: Calibrations, target: str, evidence: Evidence) -> float:
    """What the target's curve, else the common one, makes of the evidence."""
    return curves.get(target, curves.get(ANY, Calibration())).probability(evidence)


def evidence_of(decoded: Decoded) -> Evidence:
    """Without a presence logit, the strongest pixel has to do."""
    logits = decoded.logits.ravel()
    count = min(STRONGEST_PX, logits.size)  # a tile of one pixel has fewer
    strongest = float(np.partition(logits, logits.size - count)[-count:].mean())
    said = float(logits.max()) if decoded.presence is None else decoded.presence
    return said, strongest


def calibrate(evidence: Sequence[Evidence], there: Sequence[bool]) -> Calibration:
    """The curve through the pairs, present and absent weighing the same; more evidence never speaks against."""
    seen: NDArray[np.float64] = np.array(evidence, np.float64)
    present = np.array(there)
    share = np.where(present, 0.5 / max(1, present.sum()), 0.5 / max(1, (~present).sum()))

    def cost(curve: NDArray[np.float64]) -> float:
        margin = (seen @ curve[:2] + curve[2]) * np.where(present, 1, -1)
        return float((share * np.logaddexp(0, -margin)).sum() + RESTRAINT * (curve[:2] ** 2).sum())

    from scipy.optimize import minimize  # only calibrating needs it; a first answer does not wait for it

    # Bounds keep the curve honest: more evidence never speaks against the target.
    fitted = minimize(cost, np.zeros(3), bounds=[(0, None), (0, None), (None, None)])
    return Calibration(*(round(float(value), 4) for value in fitted.x))
