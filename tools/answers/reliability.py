"""How far a mask can be trusted: the Dice to expect, as measured on masks like it, and the warning where that is little."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from tissuetalk.tools.answers.results import Warned

Signal = Literal["explain", "segment"]
"""``explain``: agreement over wordings and changed pictures. ``segment``: the overlap the model's own probabilities expect."""
HIGH, MEDIUM = 0.85, 0.7
"""Reliability from which a mask is called so; below MEDIUM it is low."""


def log_odds(value: float) -> float:
    """Of a share of 0..1, held within what a few hundred masks can tell apart."""
    held = min(max(value, 0.02), 0.995)
    return math.log(held / (1 - held))


@dataclass(frozen=True)
class ReliabilityFormula:
    """Dice to expect of a mask: logistic in the log odds of its signal and of its presence, never falling in either.

    offsets: of every target that was checked. other: of any other.
    """

    signal: float
    presence: float
    offsets: Mapping[str, float]
    other: float

    def value(self, signal: float, presence: float, target: str | None) -> float:
        """0..1."""
        offset = self.offsets.get(target or "", self.other)
        logit = self.signal * log_odds(signal) + self.presence * log_odds(presence) + offset
        return 1 / (1 + math.exp(-logit))

    def told(self) -> dict[str, Any]:
        return asdict(self)


@lru_cache(maxsize=1)
def calibration() -> dict[str, Any]:
    """``reliability.json``: formulas by weights, the data they rest on, and how well they held.

    A formula leads from agreement to the Dice with an expert's outline that masks like this one had. They were fitted by
    ``python -m benchmarks calibrate`` on held-out annotated images and hold for the weights they name and for no others.
    """
    text = resources.files("tissuetalk.tools.answers").joinpath("reliability.json").read_text("utf-8")
    stored: dict[str, Any] = json.loads(text)
    return stored


def reliability_of(
    weights_sha256: str, signal: Signal, value: float, *, presence: float, target: str | None
) -> float | None:
    """0..1, or None for weights nobody calibrated."""
    model = calibration()["models"].get(weights_sha256)
    if model is None:
        return None
    return round(ReliabilityFormula(**model[signal]["formula"]).value(value, presence, target), 3)


def level_of(reliability: float) -> Literal["high", "medium", "low"]:
    return "high" if reliability >= HIGH else "medium" if reliability >= MEDIUM else "low"


def warned_below(weights_sha256: str) -> float:
    """Reliability below which ``segment`` warns: few masks that hold fall under it, and most that are wrong for a bad picture do."""
    model = calibration()["models"].get(weights_sha256)
    return MEDIUM if model is None else float(model["segment"]["warned_below"])


def low_agreement(
    name: str, reliability: float | None, below: float = MEDIUM, *, taught: bool = False
) -> list[Warned]:
    """A warning for a found mask that is likely to differ much from an expert's. taught: by examples."""
    if reliability is None or reliability >= below:
        return []
    message = (
        f"{name}: too many of its pixels hang in the balance to expect more than a Dice of {reliability:.2f}; show more "
        "examples, of it and of what is most like it."
        if taught
        else f"{name}: masks like this one had a Dice of about {reliability:.2f} with an expert's outline; "
        "ask explain how reliable it is."
    )
    return [Warned(code="low_agreement", message=message)]
