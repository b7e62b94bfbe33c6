"""One number before it is put into an answer, and what several metrics share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tissuetalk.models.masks.object_table import RULES
from tissuetalk.tools.answers.results import Measured
from tissuetalk.tools.masks.layer import MaskLayer


@dataclass(frozen=True)
class Value:
    """One number of one mask before it is given an id. ``value`` is None where there is nothing to measure.

    name: what it is about when that is more than the mask, such as ``lymphocytes in tumour``.
    """

    metric: str
    value: float | None
    unit: str
    rule: str
    name: str | None = None


Finding = tuple[MaskLayer, Value | Image.Image]
"""A number or a picture, and the mask it is filed under."""


def measured(layer: MaskLayer, value: Value) -> Measured:
    """The row of an answer."""
    number = None if value.value is None or math.isnan(value.value) else float(value.value)
    return Measured(
        mask_id=layer.record.mask_id,
        name=value.name or layer.name,
        metric=value.metric,
        value=number,
        unit=value.unit,
        rule=value.rule,
    )


def mean(values: NDArray[np.float64]) -> float | None:
    """None where there is nothing to measure."""
    return float(np.mean(values)) if len(values) else None


def statistics(
    metric: str, values: NDArray[np.float64], unit: str, rule: str, name: str | None = None
) -> Iterator[Value]:
    """Mean, median and standard deviation; None of them where there is nothing to measure."""
    for of, function in (("mean", np.mean), ("median", np.median), ("sd", np.std)):
        value = float(function(values)) if len(values) else None
        yield Value(f"{metric}.{of}", value, unit, f"{of} of: {rule}", name)


def areas(layer: MaskLayer) -> tuple[NDArray[np.float64], str]:
    """Area of each object, and the unit."""
    return layer.numbers("area_px") * (layer.mpp or 1) ** 2, "px" if layer.mpp is None else "µm²"


def gaps(layer: MaskLayer) -> tuple[NDArray[np.float64], str]:
    """From each object to the nearest other one, and the unit; none for a single object."""
    found = layer.numbers("nearest_neighbour_px") * (layer.mpp or 1)
    return found[~np.isnan(found)], "px" if layer.mpp is None else "µm"


GAP_RULE = RULES["nearest_neighbour_px"]
