"""Metrics of two masks, or of masks and the tissue around them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.names import Tissue, speaks_of
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.rasters import Points, Raster
from tissuetalk.tools.masks.stored import SegmentedRegion
from tissuetalk.tools.measure.values import Finding, Value, statistics

MOST_DISTANCE_PX = 16_000_000
"""Largest picture of a region on which distances are computed; a slide's is taken from its pyramid."""


def ratio(masks: SegmentedRegion) -> Iterator[Finding]:
    """Every pair of masks in the order they were asked for; None where the second is empty."""
    for number, first in enumerate(masks.layers):
        for second in masks.layers[number + 1 :]:
            pair = f"{first.name} : {second.name}"
            parts: list[tuple[str, float, float]] = [("area", first.record.area_px, second.record.area_px)]
            if first.has_objects and second.has_objects:
                parts.append(("count", first.count(), second.count()))
            for of, above, below in parts:
                rule = f"{of} of the first mask / {of} of the second"
                yield first, Value(f"ratio.{of}", above / below if below else None, "", rule, pair)


def area_fraction(masks: SegmentedRegion) -> Iterator[Finding]:
    """Of the region; of the tissue, too, where that is known without looking at the image."""
    for layer in masks.layers:
        rule = "mask pixels / region pixels, glass included"
        share = layer.record.area_px / layer.region_px
        yield layer, Value("area_fraction", share, "of the region", rule)
        # of a picture this would open the image, which a default metric must not need
        if masks.tissue_is_stored:
            yield layer, _share_of_tissue(layer, masks)


def density(masks: SegmentedRegion) -> Iterator[Finding]:
    """Per area of the region; of the tissue, too, where that is known without looking at the image."""
    for layer in masks.layers:
        if not layer.has_objects:
            continue
        if layer.mpp is None:
            rule = "objects / region pixels, glass included, times 10⁶"
            yield layer, Value("density", layer.count() / layer.region_px * 1e6, "per 10⁶ px", rule)
            continue
        rule = "objects / area of the segmented region, glass included"
        yield layer, Value("density", layer.count() / (layer.region_px * layer.mpp**2 / 1e6), "per mm²", rule)
        if masks.tissue_is_stored and masks.tissue.area_px:
            yield layer, _per_tissue(layer, masks)


def tissue(masks: SegmentedRegion) -> Iterator[Finding]:
    """Area of the tissue, and of each mask its share of it and its objects per mm² of it."""
    rule = f"tissue: {masks.tissue_rule}"
    yield masks.layers[0], Value("tissue.area", masks.tissue_mm2("tissue"), "mm²", rule, "tissue")
    for layer in masks.layers:
        yield layer, _share_of_tissue(layer, masks)
        if layer.has_objects:
            yield layer, _per_tissue(layer, masks)


def _share_of_tissue(layer: MaskLayer, masks: SegmentedRegion) -> Value:
    rule = f"mask area on tissue / tissue area; tissue: {masks.tissue_rule}"
    total_px = masks.tissue.area_px
    share = area_on_tissue_px(layer, masks.tissue) / total_px if total_px else None
    return Value("area_fraction.tissue", share, "of the tissue", rule)


def _per_tissue(layer: MaskLayer, masks: SegmentedRegion) -> Value:
    total_mm2 = masks.tissue_mm2("density.tissue")
    rule = f"objects / tissue area ({total_mm2:.4g} mm²); tissue: {masks.tissue_rule}"
    return Value("density.tissue", layer.count() / total_mm2, "per mm²", rule)


def area_on_tissue_px(layer: MaskLayer, tissue: Raster) -> float:
    """Full-resolution pixels that are both mask and tissue; a mask pixel is on tissue when its middle is."""
    total = 0.0
    for piece in layer.labels.rasters():
        total += float(np.count_nonzero(piece.values & tissue.nearest(*piece.middles))) * piece.pixel_px
    return total


def density_in(masks: SegmentedRegion) -> Iterator[Finding]:
    """Objects of one mask per mm² of another: with lymphocytes and a tumour, TIL density."""
    mpp = masks.needs_scale("density_in")
    for objects, region in _pairs(masks):
        inside, area_px = 0, 0.0
        for piece in region.labels.rasters():
            area_px += piece.area_px
            inside += sum(int(np.count_nonzero(piece.at(batch))) for batch in objects.points(piece.edges))
        area_mm2 = area_px * mpp**2 / 1e6
        name = f"{objects.name} in {region.name}"
        rule = f"{objects.name} whose centroid lies in {region.name}"
        yield objects, Value("density_in.count", inside, "objects", rule, name)
        density = inside / area_mm2 if area_mm2 else None
        rule = f"that count / area of {region.name} ({area_mm2:.4g} mm²)"
        yield objects, Value("density_in", density, "per mm²", rule, name)


def distance_to(masks: SegmentedRegion) -> Iterator[Finding]:
    """From each object of one mask to the border of another, negative inside it."""
    unit, to_unit = ("px", 1.0) if masks.mpp is None else ("µm", masks.mpp)
    # pairs with the same region follow each other, so that its distance field is made once
    pairs = sorted(_pairs(masks), key=lambda pair: pair[1].record.mask_id)
    held: tuple[str, Raster, NDArray[np.float32] | None] | None = None
    for objects, region in pairs:
        if held is None or held[0] != region.record.mask_id:
            # one at a time: each is a large picture
            held = region.record.mask_id, *_signed_distance(region)
        _, raster, field = held
        found = [] if field is None else [_looked_up(batch, raster, field) for batch in objects.points()]
        distances = np.concatenate(found or [np.zeros(0)]) * to_unit
        rule = (
            f"distance from the centroid of each of {objects.name} to the border of {region.name}, negative inside; "
            f"read from {region.name} at {max(raster.step_x, raster.step_y) * to_unit:.3g} {unit} per pixel"
        )
        name = f"{objects.name} to {region.name}"
        for value in statistics("distance_to", distances, unit, rule, name):
            yield objects, value
        share = float(np.mean(distances < 0)) if len(distances) else None
        rule = "share with a negative distance"
        yield objects, Value("distance_to.inside", share, f"of {objects.name}", rule, name)


def _pairs(masks: SegmentedRegion) -> list[tuple[MaskLayer, MaskLayer]]:
    """(objects, region) of every two masks; a mask of objects can also be what others lie in."""
    layers = masks.layers
    return [(one, other) for one in layers for other in layers if one is not other and one.has_objects]


def _signed_distance(region: MaskLayer) -> tuple[Raster, NDArray[np.float32] | None]:
    """In full-resolution pixels from every pixel's middle to the border; None without any region."""
    raster = region.labels.overview(MOST_DISTANCE_PX)
    if not raster.values.any():
        return raster, None
    sampling = (raster.step_y, raster.step_x)
    # SciPy measures between pixel middles; the border runs half a pixel before the nearest middle
    half = min(sampling) / 2
    outside = ndimage.distance_transform_edt(~raster.values, sampling=sampling).astype(np.float32)
    field = np.where(raster.values, np.float32(0), outside - half)
    del outside
    inside = ndimage.distance_transform_edt(np.pad(raster.values, 1), sampling=sampling).astype(np.float32)
    field -= np.where(raster.values, inside[1:-1, 1:-1] - half, np.float32(0))
    return raster, field


def _looked_up(points: Points, raster: Raster, field: NDArray[np.float32]) -> NDArray[np.float64]:
    column = np.clip((points[:, 0] - raster.x0) / raster.step_x, 0, field.shape[1] - 1).astype(np.int64)
    row = np.clip((points[:, 1] - raster.y0) / raster.step_y, 0, field.shape[0] - 1).astype(np.int64)
    return field[row, column].astype(np.float64)


def tumour_stroma(masks: SegmentedRegion) -> Iterator[Finding]:
    """Share of stroma in tumour and stroma together, and tumour over stroma.

    Raises InvalidArgumentError when one of the two was not segmented, with the reason where there is one.
    """
    tumour, stroma = _region_named(masks, "tumour"), _region_named(masks, "stroma")
    areas = [sum(piece.area_px for piece in layer.labels.rasters()) for layer in (tumour, stroma)]
    tumour_px, stroma_px = areas
    name, both = f"{tumour.name} : {stroma.name}", tumour_px + stroma_px
    rule = "area of stroma / (area of tumour + area of stroma), over all that was segmented"
    share = stroma_px / both if both else None
    yield tumour, Value("tumour_stroma.stroma_fraction", share, "of tumour and stroma", rule, name)
    over = tumour_px / stroma_px if stroma_px else None
    yield tumour, Value("tumour_stroma.ratio", over, "", "area of tumour / area of stroma", name)


def _region_named(masks: SegmentedRegion, what: Tissue) -> MaskLayer:
    """Cells of a tumour are no tumour area, so objects do not count; stroma of a tumour is stroma."""
    for layer in masks.layers:
        named = f"{layer.record.label or ''} {layer.name} {layer.record.target}"
        fits = speaks_of(what, named) and not (what == "tumour" and speaks_of("stroma", layer.name))
        if fits and not layer.has_objects:
            return layer
    for item in masks.result.not_segmented:
        if speaks_of(what, f"{item.label or ''} {item.free_form or ''}"):
            raise InvalidArgumentError(
                f"tumour_stroma needs {what} as a region, which was not segmented ({item.code}): {item.reason}"
            )
    raise InvalidArgumentError(
        f"tumour_stroma needs {what} as a region and this result has none; segment tumour and stroma in one call, "
        "with a model that knows both (tissuetalk models)."
    )
