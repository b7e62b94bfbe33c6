"""Measures of a whole slide, asked of its object files and label pyramids, and those that need a place around the masks.

The first kind answers the metrics of an ordinary result without loading the slide. The second kind works on both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.object_table import RULES
from tissuetalk.tools.answers.results import Measured, SegmentResult
from tissuetalk.tools.drawing import measure_pictures as drawings
from tissuetalk.tools.masks.layer import Layer, Place
from tissuetalk.tools.masks.slide import SlideLayer, StoredSlide
from tissuetalk.tools.measure import between, heatmaps, histograms, hotspot
from tissuetalk.tools.measure.neighbours import nearest_px
from tissuetalk.tools.measure.values import Value, measured, statistics


def _area(layer: SlideLayer) -> Iterator[Value]:
    area_px, mpp = layer.record.area_px, layer.slide.mpp
    if mpp is None:
        yield Value("area", area_px, "px", "mask pixels of all windows, in full-resolution pixels")
    else:
        yield Value("area", area_px * mpp**2, "µm²", "mask pixels of all windows times (µm per pixel)²")


def _area_fraction(layer: SlideLayer) -> Iterator[Value]:
    region = layer.slide.region
    share = layer.record.area_px / (region.width * region.height)
    yield Value("area_fraction", share, "of the region", "mask area / region area, glass included")
    yield between.fraction_of_tissue(layer, layer.slide)


def _count(layer: SlideLayer) -> Iterator[Value]:
    if layer.has_objects:
        yield Value(
            "count", layer.count(), "objects", "objects as separated by the model and joined across seams"
        )


def _density(layer: SlideLayer) -> Iterator[Value]:
    if not layer.has_objects:
        return
    slide, region = layer.slide, layer.slide.region
    area_px = region.width * region.height
    if slide.mpp is None:
        rule = "objects / region pixels, glass included, times 10⁶"
        yield Value("density", layer.count() / area_px * 1e6, "per 10⁶ px", rule)
        return
    rule = "objects / area of the segmented region, glass included"
    yield Value("density", layer.count() / (area_px * slide.mpp**2 / 1e6), "per mm²", rule)
    if slide.tissue.area_px:
        yield between.per_tissue(layer, slide)


def _size(layer: SlideLayer) -> Iterator[Value]:
    mpp = layer.slide.mpp
    unit, squared, length_unit = ("px", 1.0, "px") if mpp is None else ("µm²", mpp**2, "µm")
    if not layer.has_objects:
        return
    found = _asked(layer, "avg(area_px), median(area_px), stddev_pop(area_px), avg(equivalent_diameter_px)")
    for name, value in zip(("mean", "median", "sd"), found, strict=False):
        yield Value(f"size.{name}", _times(value, squared), unit, f"{name} of: area of each object")
    rule = RULES["equivalent_diameter_px"]
    yield Value("size.mean_diameter", _times(found[3], mpp or 1.0), length_unit, rule)


def _shape(layer: SlideLayer) -> Iterator[Value]:
    yield from _means(layer, "shape.mean_", dict.fromkeys(("circularity", "solidity", "eccentricity"), ""))


def _intensity(layer: SlideLayer) -> Iterator[Value]:
    units = {"mean_intensity": "0..255", "mean_hematoxylin_od": "OD", "mean_eosin_od": "OD"}
    yield from _means(layer, "intensity.", units)
    if not layer.has_objects and set(units) <= set(layer.columns):
        weighted = ", ".join(f"sum({column} * area_px) / sum(area_px)" for column in units)
        for (column, unit), value in zip(units.items(), _asked(layer, weighted), strict=True):
            rule = f"mean over the parts of the region, weighted by area, of: {RULES[column]}"
            yield Value(f"intensity.{column}", value, unit, rule)


def _texture(layer: SlideLayer) -> Iterator[Value]:
    units = {"texture_entropy_bits": "bit", "texture_contrast": "", "texture_homogeneity": ""}
    for value in _means(layer, "", units):
        yield Value(value.metric.replace("texture_", "texture."), value.value, value.unit, value.rule)


def _distance(layer: SlideLayer) -> Iterator[Value]:
    if layer.has_objects:
        unit, factor = ("px", 1.0) if layer.slide.mpp is None else ("µm", layer.slide.mpp)
        gaps = np.concatenate([*nearest_px(layer, layer.slide), np.zeros(0)]) * factor
        yield from statistics("distance", gaps, unit, RULES["nearest_neighbour_px"])


def _means(layer: SlideLayer, prefix: str, units: dict[str, str]) -> Iterator[Value]:
    """Mean over the objects of columns that were measured when the slide was segmented."""
    if not layer.has_objects:
        return
    missing = [column for column in units if column not in layer.columns]
    if missing:
        raise InvalidArgumentError(
            f"this slide result keeps no {missing[0]} of its objects; segment a region of the slide to measure it."
        )
    found = _asked(layer, ", ".join(f"avg({column})" for column in units))
    for (column, unit), value in zip(units.items(), found, strict=True):
        yield Value(f"{prefix}{column}", value, unit, f"mean over the objects of: {RULES[column]}")


def _asked(layer: SlideLayer, columns: str) -> tuple[float | None, ...]:
    (row,) = layer.query(columns)
    return row


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


SLIDE_METRICS: dict[str, Callable[[SlideLayer], Iterator[Value]]] = {
    "area": _area,
    "area_fraction": _area_fraction,
    "count": _count,
    "density": _density,
    "size": _size,
    "shape": _shape,
    "distance": _distance,
    "intensity": _intensity,
    "texture": _texture,
}
PLACE_METRICS = ("tissue", "hotspot", "density_in", "distance_to", "tumour_stroma", "heatmap", "histogram")
"""Of tissue, of two masks, or drawn: for slides and for ordinary results."""
SLIDE_DEFAULT = ("area", "area_fraction", "count", "density", "size", "shape")
ONLY_ONE_PICTURE = ("irregularity", "instance_count", "instance_ratio", "instance_dispersion")


def slide_rows(slide: StoredSlide, wanted: Sequence[str]) -> list[Measured]:
    """The classical metrics of every mask. Raises InvalidArgumentError for one that describes a single picture."""
    refused = [name for name in wanted if name in ONLY_ONE_PICTURE]
    if refused:
        raise InvalidArgumentError(
            f"{refused[0]} describes the mask of one picture and is not computed on a whole slide; ask for "
            f"{', '.join(SLIDE_METRICS)}, or segment a region of the slide."
        )
    return [
        measured(layer.record, value)
        for layer in slide.layers
        for name in wanted
        if name in SLIDE_METRICS
        for value in SLIDE_METRICS[name](layer)
    ]


def place_rows(
    place: Place, result: SegmentResult, wanted: Sequence[str], path: Path
) -> tuple[list[Measured], dict[str, str]]:
    """Rows, and the pictures that were drawn into the result's folder: relative path by title.

    Raises InvalidArgumentError where the scale, the tissue or a second mask is missing, and the image's errors where
    pixels are needed.
    """
    rows: list[Measured] = []
    pictures: dict[str, str] = {}
    if "tissue" in wanted and place.layers:
        rows += [
            measured((layer or place.layers[0]).record, value)
            for layer, value in between.tissue_values(place)
        ]
    for metric, function in (("density_in", between.density_in), ("distance_to", between.distance_to)):
        if metric in wanted:
            rows += [measured(layer.record, value) for layer, value in function(place)]
    if "tumour_stroma" in wanted:
        rows += [measured(layer.record, value) for layer, value in between.tumour_stroma(place, result)]
    for metric, drawn in (("hotspot", _hotspot), ("heatmap", _heatmap), ("histogram", _histogram)):
        for layer in place.layers if metric in wanted else ():
            values, picture = drawn(layer, place)
            rows += [measured(layer.record, value) for value in values]
            if picture is not None:
                title = f"{metric} {layer.record.mask_id}"
                pictures[title] = drawings.keep(path, metric, layer.record.mask_id, picture)
    return rows, pictures


def _hotspot(layer: Layer, place: Place) -> tuple[list[Value], Image.Image | None]:
    if not layer.has_objects:
        return [], None
    spot = hotspot.hotspot(layer, place)
    values = list(hotspot.values(spot, place))
    return values, None if spot is None else heatmaps.draw_hotspot(layer, place, spot)


def _heatmap(layer: Layer, place: Place) -> tuple[list[Value], Image.Image | None]:
    heat = heatmaps.heat_map(layer, place)
    return heatmaps.values(layer, heat), heatmaps.draw_heat_map(layer, place, heat)


def _histogram(layer: Layer, place: Place) -> tuple[list[Value], Image.Image | None]:
    found = histograms.histograms(layer, place)
    values = [value for each in found for value in histograms.values(each)]
    return values, histograms.draw(layer, found) if found else None
