"""One number before it is put into an answer, and how a row of the answer is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import ImageSource
from tissuetalk.tools.answers.results import Mask, Measured

OpenImage = Callable[[], ImageSource]
"""Opens the image a result was made from, checked to be unchanged; called only by what needs pixels."""


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


def name_of(mask: Mask) -> str:
    """What a reader calls it; a canonical label can be looser than what was looked for."""
    return mask.free_form or mask.target


def measured(mask: Mask, value: Value) -> Measured:
    number = None if value.value is None or math.isnan(value.value) else float(value.value)
    return Measured(
        mask_id=mask.mask_id,
        name=value.name or name_of(mask),
        metric=value.metric,
        value=number,
        unit=value.unit,
        rule=value.rule,
    )


def mean(values: NDArray[np.float64]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def statistics(
    metric: str, values: NDArray[np.float64], unit: str, rule: str, name: str | None = None
) -> Iterator[Value]:
    """Mean, median and standard deviation; None of them where there is nothing to measure."""
    for of, function in (("mean", np.mean), ("median", np.median), ("sd", np.std)):
        value = float(function(values)) if len(values) else None
        yield Value(f"{metric}.{of}", value, unit, f"{of} of: {rule}", name)
