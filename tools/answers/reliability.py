"""From agreement to a calibrated reliability: the Dice with an expert's outline that masks like this one had.

The curves are data (``reliability.json``), fitted by ``python -m benchmarks calibrate`` on held-out
annotated images; they hold for the weights they name and for no others.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import numpy as np

from tissuetalk.tools.answers.results import Warned

Signal = Literal["explain", "segment"]
"""``explain``: agreement over wordings and changed pictures. ``segment``: the overlap the model's own probabilities expect."""
HIGH, MEDIUM = 0.85, 0.7
"""Reliability from which a mask is called so; below MEDIUM it comes with the warning ``low_agreement``."""


@lru_cache(maxsize=1)
def calibration() -> dict[str, Any]:
    """The file as it is: curves by weights, the data they rest on, and how well they held."""
    text = resources.files("tissuetalk.tools.answers").joinpath("reliability.json").read_text("utf-8")
    stored: dict[str, Any] = json.loads(text)
    return stored


def reliability_of(weights_sha256: str, signal: Signal, value: float) -> float | None:
    """0..1, or None for weights nobody calibrated."""
    model = calibration()["models"].get(weights_sha256)
    if model is None:
        return None
    curve = model[signal]["curve"]
    found = np.interp(value, [point[0] for point in curve], [point[1] for point in curve])
    return round(float(found), 3)


def level_of(reliability: float) -> Literal["high", "medium", "low"]:
    return "high" if reliability >= HIGH else "medium" if reliability >= MEDIUM else "low"


def low_agreement(name: str, reliability: float | None) -> list[Warned]:
    """A warning for a found mask that is likely to differ much from an expert's."""
    if reliability is None or level_of(reliability) != "low":
        return []
    message = (
        f"{name}: masks like this one had a Dice of about {reliability:.2f} with an expert's outline; "
        "ask explain how reliable it is."
    )
    return [Warned(code="low_agreement", message=message)]
