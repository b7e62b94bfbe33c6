"""Measures that need two masks, or a mask and the tissue."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.names import Tissue, speaks_of
from tissuetalk.tools.answers.results import SegmentResult
from tissuetalk.tools.masks.layer import Layer, Place, Raster, needs_scale, pairs, tissue_mm2
from tissuetalk.tools.measure.values import Value, name_of, statistics

MOST_DISTANCE_PX = 16_000_000
"""Largest picture of a region on which distances are computed; a slide's is taken from its pyramid."""


def tissue_values(place: Place) -> Iterator[tuple[Layer | None, Value]]:
    """Area of the tissue, and of each mask its share of it and its objects per mm² of it."""
    total_mm2 = tissue_mm2(place, "tissue")
    yield None, Value("tissue.area", total_mm2, "mm²", f"tissue: {place.tissue_rule}", "tissue")
    for layer in place.layers:
        yield layer, fraction_of_tissue(layer, place)
        if layer.has_objects:
            yield layer, per_tissue(layer, place)


def fraction_of_tissue(layer: Layer, place: Place) -> Value:
    """Mask pixels on tissue over tissue."""
    rule = f"mask area on tissue / tissue area; tissue: {place.tissue_rule}"
    total_px = place.tissue.area_px
    share = area_on_tissue_px(layer, place.tissue) / total_px if total_px else None
    return Value("area_fraction.tissue", share, "of the tissue", rule)


def per_tissue(layer: Layer, place: Place) -> Value:
    """All objects over tissue."""
    total_mm2 = tissue_mm2(place, "density.tissue")
    rule = f"objects / tissue area ({total_mm2:.4g} mm²); tissue: {place.tissue_rule}"
    return Value("density.tissue", layer.count() / total_mm2, "per mm²", rule)


def area_on_tissue_px(layer: Layer, tissue: Raster) -> float:
    """Full-resolution pixels that are both mask and tissue; a mask pixel is on tissue when its middle is."""
    return sum(
        float(np.count_nonzero(_on_tissue(piece, tissue))) * _pixel(piece) for piece in layer.rasters()
    )


def _pixel(piece: Raster) -> float:
    return piece.step_x * piece.step_y


def _on_tissue(piece: Raster, tissue: Raster) -> NDArray[np.bool_]:
    height, width = piece.values.shape
    column = (piece.x0 + (np.arange(width) + 0.5) * piece.step_x - tissue.x0) / tissue.step_x
    row = (piece.y0 + (np.arange(height) + 0.5) * piece.step_y - tissue.y0) / tissue.step_y
    column = np.clip(column.astype(np.int64), 0, tissue.values.shape[1] - 1)
    row = np.clip(row.astype(np.int64), 0, tissue.values.shape[0] - 1)
    return np.asarray(piece.values & tissue.values[np.ix_(row, column)], bool)


def density_in(place: Place) -> Iterator[tuple[Layer, Value]]:
    """Objects of one mask per mm² of another: with lymphocytes and a tumour, TIL density."""
    for objects, region in pairs(place, "density_in"):
        mpp = needs_scale(place, "density_in")
        inside, area_px = 0, 0.0
        for piece in region.rasters():
            area_px += piece.area_px
            height, width = piece.values.shape
            box = (piece.x0, piece.y0, piece.x0 + width * piece.step_x, piece.y0 + height * piece.step_y)
            inside += sum(int(np.count_nonzero(piece.at(batch))) for batch in objects.points(box))
        area_mm2 = area_px * mpp**2 / 1e6
        first, second = name_of(objects.record), name_of(region.record)
        name = f"{first} in {second}"
        yield (
            objects,
            Value("density_in.count", inside, "objects", f"{first} whose centroid lies in {second}", name),
        )
        yield (
            objects,
            Value(
                "density_in",
                inside / area_mm2 if area_mm2 else None,
                "per mm²",
                f"that count / area of {second} ({area_mm2:.4g} mm²)",
                name,
            ),
        )


def distance_to(place: Place) -> Iterator[tuple[Layer, Value]]:
    """From each object of one mask to the border of another, negative inside it."""
    unit, to_unit = ("px", 1.0) if place.mpp is None else ("µm", place.mpp)
    held: tuple[str, Raster, NDArray[np.float32] | None] | None = None
    for objects, region in sorted(pairs(place, "distance_to"), key=lambda pair: pair[1].record.mask_id):
        if held is None or held[0] != region.record.mask_id:
            held = (region.record.mask_id, *_field(region))  # one at a time: each is a large picture
        _, raster, field = held
        found = [] if field is None else [_looked_up(batch, raster, field) for batch in objects.points()]
        distances = np.concatenate(found or [np.zeros(0)]) * to_unit
        first, second = name_of(objects.record), name_of(region.record)
        rule = (
            f"distance from the centroid of each of {first} to the border of {second}, negative inside; read from "
            f"{second} at {max(raster.step_x, raster.step_y) * to_unit:.3g} {unit} per pixel"
        )
        name = f"{first} to {second}"
        for value in statistics("distance_to", distances, unit, rule, name):
            yield objects, value
        share = float(np.mean(distances < 0)) if len(distances) else None
        yield (
            objects,
            Value("distance_to.inside", share, f"of {first}", "share with a negative distance", name),
        )


def _field(region: Layer) -> tuple[Raster, NDArray[np.float32] | None]:
    """Signed distance in full-resolution pixels from every pixel's middle to the border; None without any region."""
    raster = region.overview(MOST_DISTANCE_PX)
    if not raster.values.any():
        return raster, None
    sampling = (raster.step_y, raster.step_x)
    half = min(sampling) / 2
    outside = ndimage.distance_transform_edt(~raster.values, sampling=sampling).astype(np.float32)
    field = np.where(raster.values, np.float32(0), outside - half)
    del outside
    inside = ndimage.distance_transform_edt(np.pad(raster.values, 1), sampling=sampling).astype(np.float32)
    field -= np.where(raster.values, inside[1:-1, 1:-1] - half, np.float32(0))
    return raster, field


def _looked_up(
    points: NDArray[np.float64], raster: Raster, field: NDArray[np.float32]
) -> NDArray[np.float64]:
    column = np.clip((points[:, 0] - raster.x0) / raster.step_x, 0, field.shape[1] - 1).astype(np.int64)
    row = np.clip((points[:, 1] - raster.y0) / raster.step_y, 0, field.shape[0] - 1).astype(np.int64)
    return field[row, column].astype(np.float64)


def tumour_stroma(place: Place, result: SegmentResult) -> Iterator[tuple[Layer, Value]]:
    """Share of stroma in tumour and stroma together, and tumour over stroma.

    Raises InvalidArgumentError when one of the two was not segmented, with the reason where there is one.
    """
    tumour = _only(place, result, "tumour")
    stroma = _only(place, result, "stroma")
    tumour_px, stroma_px = (sum(piece.area_px for piece in layer.rasters()) for layer in (tumour, stroma))
    name = f"{name_of(tumour.record)} : {name_of(stroma.record)}"
    both = tumour_px + stroma_px
    yield (
        tumour,
        Value(
            "tumour_stroma.stroma_fraction",
            stroma_px / both if both else None,
            "of tumour and stroma",
            "area of stroma / (area of tumour + area of stroma), over all that was segmented",
            name,
        ),
    )
    yield (
        tumour,
        Value(
            "tumour_stroma.ratio",
            tumour_px / stroma_px if stroma_px else None,
            "",
            "area of tumour / area of stroma",
            name,
        ),
    )


def _only(place: Place, result: SegmentResult, what: Tissue) -> Layer:
    """The region of that name. Cells of a tumour are no tumour area, so objects do not count."""
    found = [
        layer
        for layer in place.layers
        if not layer.has_objects
        and speaks_of(what, f"{layer.record.label or ''} {name_of(layer.record)} {layer.record.target}")
        and not (what == "tumour" and speaks_of("stroma", name_of(layer.record)))
    ]
    if found:
        return found[0]
    for item in result.not_segmented:
        if speaks_of(what, f"{item.label or ''} {item.free_form or ''}"):
            raise InvalidArgumentError(
                f"tumour_stroma needs {what} as a region, which was not segmented ({item.code}): {item.reason}"
            )
    raise InvalidArgumentError(
        f"tumour_stroma needs {what} as a region and this result has none; segment tumour and stroma in one call, "
        "with a model that knows both (tissuetalk models)."
    )
