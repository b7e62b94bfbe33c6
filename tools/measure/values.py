"""Numbers before they are put into an answer, and the metrics of every mask for itself.

The last four are defined in spec pathsegmentor.md section 10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.object_table import RULES
from tissuetalk.tools.answers.results import Measured
from tissuetalk.tools.masks.layer import MaskLayer

GAP_RULE = RULES["nearest_neighbour_px"]
INSTANCES = "8-connected parts of at least 36 px"


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


def area(layer: MaskLayer) -> Iterator[Value]:
    area_px, mpp = layer.record.area_px, layer.mpp
    if mpp is None:
        yield Value("area", area_px, "px", "number of mask pixels, full resolution")
    else:
        yield Value("area", area_px * mpp**2, "µm²", "mask pixels times (µm per pixel)²")


def count(layer: MaskLayer) -> Iterator[Value]:
    yield Value("count", layer.count(), "objects", "objects as separated by the model")


def size(layer: MaskLayer) -> Iterator[Value]:
    yield from statistics("size", *areas(layer), "area of each object")
    diameter = layer.numbers("equivalent_diameter_px") * (layer.mpp or 1)
    unit = "px" if layer.mpp is None else "µm"
    yield Value("size.mean_diameter", mean(diameter), unit, RULES["equivalent_diameter_px"])


def shape(layer: MaskLayer) -> Iterator[Value]:
    units = {f"shape.mean_{column}": (column, "") for column in ("circularity", "solidity", "eccentricity")}
    yield from _means(layer, units)


def distance(layer: MaskLayer) -> Iterator[Value]:
    yield from statistics("distance", *gaps(layer), GAP_RULE)


def intensity(layer: MaskLayer) -> Iterator[Value]:
    units = {"mean_intensity": "0..255", "mean_hematoxylin_od": "OD", "mean_eosin_od": "OD"}
    yield from _means(layer, {f"intensity.{column}": (column, unit) for column, unit in units.items()})


def texture(layer: MaskLayer) -> Iterator[Value]:
    units = {"entropy_bits": "bit", "contrast": "", "homogeneity": ""}
    yield from _means(layer, {f"texture.{of}": (f"texture_{of}", unit) for of, unit in units.items()})


def irregularity(layer: MaskLayer) -> Iterator[Value]:
    clipped, raw = layer.survey.irregularity
    rule = "1 - 4π·area/perimeter² of the whole mask, perimeter = mask pixels with a 4-neighbour outside"
    yield Value("irregularity", clipped, "", f"{rule}, clipped to 0..1")
    yield Value("irregularity.unclipped", raw, "", rule)


def instance_count(layer: MaskLayer) -> Iterator[Value]:
    yield Value("instance_count", len(layer.survey.part_areas), "parts", f"number of {INSTANCES}")


def instance_ratio(layer: MaskLayer) -> Iterator[Value]:
    pixel_px = layer.labels.finest.step_x * layer.labels.finest.step_y
    ratio = layer.survey.mean_part_area * pixel_px / layer.region_px
    yield Value("instance_ratio", ratio, "of the region", f"mean area / region area over {INSTANCES}")


def instance_dispersion(layer: MaskLayer) -> Iterator[Value]:
    length = layer.survey.dispersion * layer.labels.finest.step_x * (layer.mpp or 1)
    rule = f"largest distance between the centroids of {INSTANCES}"
    yield Value("instance_dispersion", length, "px" if layer.mpp is None else "µm", rule)


def _means(layer: MaskLayer, wanted: dict[str, tuple[str, str]]) -> Iterator[Value]:
    """Metric: (column, unit). Means over the objects; over the parts of a region, weighted by their area.

    Nothing for a region that is too large to be measured in one piece. Raises InvalidArgumentError where a slide was
    segmented by a version that did not write the column down.
    """
    for metric, (column, unit) in wanted.items():
        if column not in layer.columns:
            if not layer.has_objects:
                continue
            raise InvalidArgumentError(
                f"this slide result keeps no {column} of its objects; segment a region of the slide to measure it."
            )
        numbers = layer.numbers(column)
        if layer.has_objects or not len(numbers):
            yield Value(metric, mean(numbers), unit, f"mean over the objects of: {RULES[column]}")
        else:
            # the mean over all pixels of a region is that of its parts weighted by their pixels
            weighted = float(np.average(numbers, weights=layer.numbers("area_px")))
            yield Value(metric, weighted, unit, f"of all its pixels, part by part: {RULES[column]}")
