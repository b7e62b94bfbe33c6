"""measure: numbers with units from a stored result, each with the rule that computed it. Nothing is segmented again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.object_table import RULES
from tissuetalk.tools.answers.results import Answer, Measured, MeasureResult
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.layer import OpenImage
from tissuetalk.tools.masks.stored import SegmentedRegion, open_masks
from tissuetalk.tools.measure import masks as of_masks
from tissuetalk.tools.measure import pairs, pictures
from tissuetalk.tools.measure.values import GAP_RULE, Metric, measured, of_each
from tissuetalk.tools.storage.result_folder import ResultFolder

METRICS: dict[str, Metric] = {
    "area": Metric(of_each(of_masks.area), "µm²", "mask pixels times (µm per pixel)²", by_default=True),
    "area_fraction": Metric(
        pairs.area_fraction, "of the region", "mask pixels / region pixels", by_default=True
    ),
    "count": Metric(
        of_each(of_masks.count, objects=True),
        "objects",
        "objects as separated by the model",
        ("objects",),
        True,
    ),
    "density": Metric(pairs.density, "per mm²", "objects / area of the segmented region", ("objects",), True),
    "size": Metric(of_each(of_masks.size, objects=True), "µm²", "area of each object", ("objects",), True),
    "shape": Metric(
        of_each(of_masks.shape, objects=True), "", "circularity, solidity, eccentricity", ("objects",), True
    ),
    "distance": Metric(of_each(of_masks.distance, objects=True), "µm", GAP_RULE, ("objects",)),
    "intensity": Metric(of_each(of_masks.intensity), "0..255, OD", RULES["mean_intensity"], ("pixels",)),
    "texture": Metric(of_each(of_masks.texture), "bit", RULES["texture_entropy_bits"], ("pixels",)),
    "irregularity": Metric(of_each(of_masks.irregularity), "", "1 - 4π·area/perimeter²", by_default=True),
    "instance_count": Metric(
        of_each(of_masks.instance_count), "parts", f"number of {of_masks.INSTANCES}", by_default=True
    ),
    "instance_ratio": Metric(
        of_each(of_masks.instance_ratio),
        "of the region",
        f"mean area of {of_masks.INSTANCES}",
        by_default=True,
    ),
    "instance_dispersion": Metric(
        of_each(of_masks.instance_dispersion),
        "µm",
        f"largest distance between {of_masks.INSTANCES}",
        by_default=True,
    ),
    "ratio": Metric(pairs.ratio, "", "the first mask / the second", ("two masks",)),
    "tissue": Metric(
        pairs.tissue, "mm²", "area of tissue, and what is measured per tissue", ("scale", "pixels")
    ),
    "hotspot": Metric(
        pictures.hotspots, "objects in 2 mm²", "the densest circle", ("objects", "scale", "pixels")
    ),
    "density_in": Metric(
        pairs.density_in, "per mm²", "objects of one mask in another", ("two masks", "objects", "scale")
    ),
    "distance_to": Metric(
        pairs.distance_to, "µm", "objects of one mask to the border of another", ("two masks", "objects")
    ),
    "tumour_stroma": Metric(pairs.tumour_stroma, "", "areas of tumour and stroma"),
    "heatmap": Metric(pictures.heat_maps, "per mm²", "density in squares", ("scale", "pixels")),
    "histogram": Metric(pictures.histograms, "µm²", "percentiles of sizes and distances", ("objects",)),
}
"""Every metric of pictures and slides alike. A new one is a function and an entry here."""
BY_DEFAULT = tuple(name for name, metric in METRICS.items() if metric.by_default)


def measure_folder(
    folder: ResultFolder,
    *,
    metrics: Sequence[str] | None,
    mask_ids: Sequence[str] | None,
    open_image: OpenImage,
) -> MeasureResult:
    """The asked metrics of the asked masks (default: all masks, everything that needs no pixels).

    Raises InvalidArgumentError for an unknown metric and for one that cannot be had here, which says why;
    UnknownMaskError; and ImageChangedError when pixels are needed and the image is no longer the one that was segmented.
    """
    unknown = [name for name in metrics or () if name not in METRICS]
    if unknown:
        raise InvalidArgumentError(f"unknown metric {unknown[0][:60]!r}; choose from: {', '.join(METRICS)}.")
    masks = open_masks(folder, open_image, mask_ids or ())
    found: dict[tuple[str, str, str | None], Measured] = {}
    drawn: dict[str, str] = {}
    for name in dict.fromkeys(metrics or BY_DEFAULT):
        if metrics:
            _require(name, masks)
        for layer, finding in METRICS[name].function(masks) if masks.layers else ():
            if isinstance(finding, Image.Image):
                title = f"{name} {layer.record.mask_id}"
                drawn[title] = pictures.write_picture(folder.path, name, layer, finding)
            else:
                # two metrics can give the same number, such as density.tissue
                key = layer.record.mask_id, finding.metric, finding.name
                found.setdefault(key, measured(layer, finding))
    return MeasureResult(
        result_id=masks.result.result_id,
        image=masks.result.image,
        measurements=list(found.values()),
        tables={
            each.record.mask_id: each.record.resources.table for each in masks.layers if each.has_objects
        },
        pictures=drawn,
        warnings=[warning for warning in masks.result.warnings if warning.code != "language"],
    )


def _require(name: str, masks: SegmentedRegion) -> None:
    """Raise InvalidArgumentError, which says what is missing, for a metric that no mask here can have."""
    needs, have = METRICS[name].needs, ", ".join(layer.name for layer in masks.layers)
    with_objects = any(layer.has_objects for layer in masks.layers)
    if "scale" in needs:
        masks.needs_scale(name)
    if "two masks" in needs and (len(masks.layers) < 2 or ("objects" in needs and not with_objects)):
        kind = ", one of them separate objects" if "objects" in needs else ""
        raise InvalidArgumentError(
            f"{name} needs two masks{kind}; this result has: {have or 'none'}. Segment both targets in one call."
        )
    if "objects" in needs and masks.layers and not with_objects:
        regions = [
            each for each, metric in METRICS.items() if metric.by_default and "objects" not in metric.needs
        ]
        raise InvalidArgumentError(
            f"{name} needs separate objects, and this result has only regions: {have}. Ask for {', '.join(regions)}, "
            "or segment nuclei, cells or glands."
        )


def as_text(result: MeasureResult) -> str:
    """The same numbers, one line per mask."""
    lines: dict[str, list[str]] = {}
    for row in result.measurements:
        value = "n/a" if row.value is None else f"{row.value:.4g}"
        lines.setdefault(row.name, []).append(f"{row.metric} {value} {row.unit}".rstrip())
    text = [f"{name}: " + "; ".join(parts) for name, parts in lines.items()] or ["No masks to measure."]
    return "\n".join([*text, *(f"warning {warning.code}: {warning.message}" for warning in result.warnings)])


def answer(
    result: MeasureResult, address: Callable[[str], str], picture: Image.Image | None = None
) -> Answer[MeasureResult]:
    """address: of a file of the result, as the caller's transport names it. picture: what was drawn, on one sheet."""
    shown = result.model_copy(
        update={
            "tables": {mask_id: address(path) for mask_id, path in result.tables.items()},
            "pictures": {title: address(path) for title, path in result.pictures.items()},
        }
    )
    text = as_text(shown)
    links = [(uri, f"{mask_id}.csv", "text/csv") for mask_id, uri in shown.tables.items()]
    links += [(uri, title, "image/png") for title, uri in shown.pictures.items()]
    budget = drawing.picture_budget(text, len(shown.model_dump_json()) + 150 * len(links))
    jpeg = None if picture is None else drawing.as_jpeg_within(picture, budget)
    return Answer(shown, text, jpeg, tuple(links))
