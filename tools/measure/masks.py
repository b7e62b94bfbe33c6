"""Metrics of every mask for itself; the last four are defined in spec pathsegmentor.md section 10."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.object_table import RULES
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.measure.values import GAP_RULE, Value, areas, gaps, mean, statistics

INSTANCES = "8-connected parts of at least 36 px"


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
