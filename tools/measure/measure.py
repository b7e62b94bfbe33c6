"""measure: numbers with units from a stored result, each with the rule that computed it. Nothing is segmented again."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks import characteristics
from tissuetalk.models.masks.object_table import RULES
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.answers.results import Answer, Mask, Measured, MeasureResult, SegmentResult, Warned
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.picture import OrdinaryPlace
from tissuetalk.tools.masks.pyramid import is_slide
from tissuetalk.tools.masks.slide import StoredSlide
from tissuetalk.tools.measure.measures import PLACE_METRICS, SLIDE_DEFAULT, place_rows, slide_rows
from tissuetalk.tools.measure.subject import Subject
from tissuetalk.tools.measure.values import OpenImage, Value, mean, measured, name_of, statistics
from tissuetalk.tools.storage.result_folder import ResultFolder

__all__ = [
    "ALL",
    "BY_DEFAULT",
    "METRICS",
    "OpenImage",
    "answer",
    "as_text",
    "measure_folder",
    "name_of",
    "write_table",
]


def _area(subject: Subject) -> Iterator[Value]:
    area_px = subject.record.area_px
    if subject.mpp is None:
        yield Value("area", area_px, "px", "number of mask pixels")
    else:
        yield Value("area", area_px * subject.mpp**2, "µm²", "mask pixels times (µm per pixel)²")


def _area_fraction(subject: Subject) -> Iterator[Value]:
    yield Value(
        "area_fraction",
        subject.record.area_px / subject.mask.size,
        "of the region",
        "mask pixels / region pixels",
    )


def _count(subject: Subject) -> Iterator[Value]:
    if subject.instances is not None:
        yield Value("count", len(subject.table["id"]), "objects", "objects as separated by the model")


def _density(subject: Subject) -> Iterator[Value]:
    if subject.instances is None:
        return
    count = len(subject.table["id"])
    if subject.mpp is None:
        yield Value(
            "density", count / subject.mask.size * 1e6, "per 10⁶ px", "objects / region pixels, times 10⁶"
        )
    else:
        density = characteristics.density_per_mm2(count, subject.mask.size, subject.mpp)
        yield Value("density", density, "per mm²", "objects / area of the segmented region")


def _size(subject: Subject) -> Iterator[Value]:
    area, unit = (
        (subject.table["area_um2"], "µm²") if subject.mpp is not None else (subject.table["area_px"], "px")
    )
    yield from statistics("size", area, unit, "area of each object")
    diameter, length_unit = subject.length("equivalent_diameter_px")
    yield Value("size.mean_diameter", mean(diameter), length_unit, RULES["equivalent_diameter_px"])


def _shape(subject: Subject) -> Iterator[Value]:
    for column in ("circularity", "solidity", "eccentricity"):
        yield Value(f"shape.mean_{column}", mean(subject.table[column]), "", RULES[column])


def _distance(subject: Subject) -> Iterator[Value]:
    gaps, unit = subject.length("nearest_neighbour_px")
    yield from statistics("distance", gaps[~np.isnan(gaps)], unit, RULES["nearest_neighbour_px"])


def _intensity(subject: Subject) -> Iterator[Value]:
    units = {"mean_intensity": "0..255", "mean_hematoxylin_od": "OD", "mean_eosin_od": "OD"}
    for column, unit in units.items():
        yield Value(f"intensity.{column}", mean(subject.stained_table[column]), unit, RULES[column])


def _texture(subject: Subject) -> Iterator[Value]:
    for column in ("texture_entropy_bits", "texture_contrast", "texture_homogeneity"):
        unit = "bit" if column.endswith("bits") else ""
        yield Value(
            f"texture.{column.removeprefix('texture_')}",
            mean(subject.stained_table[column]),
            unit,
            RULES[column],
        )


def _irregularity(subject: Subject) -> Iterator[Value]:
    clipped, raw = characteristics.irregularity(subject.mask)
    rule = "1 - 4π·area/perimeter² of the whole mask, perimeter = mask pixels with a 4-neighbour outside"
    yield Value("irregularity", clipped, "", f"{rule}, clipped to 0..1")
    yield Value("irregularity.unclipped", raw, "", rule)


_INSTANCES = "8-connected parts of at least 36 px"


def _instance_count(subject: Subject) -> Iterator[Value]:
    yield Value(
        "instance_count", characteristics.instance_count(subject.mask), "parts", f"number of {_INSTANCES}"
    )


def _instance_ratio(subject: Subject) -> Iterator[Value]:
    rule = f"mean area / region area over {_INSTANCES}"
    yield Value("instance_ratio", characteristics.instance_ratio(subject.mask), "of the region", rule)


def _instance_dispersion(subject: Subject) -> Iterator[Value]:
    px = characteristics.instance_dispersion(subject.mask)
    rule = f"largest distance between the centroids of {_INSTANCES}"
    yield Value("instance_dispersion", px * (subject.mpp or 1), "px" if subject.mpp is None else "µm", rule)


METRICS: dict[str, Callable[[Subject], Iterator[Value]]] = {
    "area": _area,
    "area_fraction": _area_fraction,
    "count": _count,
    "density": _density,
    "size": _size,
    "shape": _shape,
    "distance": _distance,
    "intensity": _intensity,
    "texture": _texture,
    "irregularity": _irregularity,
    "instance_count": _instance_count,
    "instance_ratio": _instance_ratio,
    "instance_dispersion": _instance_dispersion,
}
"""One function per metric; definitions of the last four: spec pathsegmentor.md section 10."""
BETWEEN_MASKS = "ratio"
ALL = (*METRICS, BETWEEN_MASKS, *PLACE_METRICS)
BY_DEFAULT = tuple(name for name in METRICS if name not in ("intensity", "texture", "distance"))


def measure_folder(
    folder: ResultFolder,
    *,
    metrics: Sequence[str] | None,
    mask_ids: Sequence[str] | None,
    open_image: OpenImage,
) -> MeasureResult:
    """The asked metrics of the asked masks (default: all masks, everything that needs no pixels).

    A slide answers from its object files and label pyramids. Raises InvalidArgumentError for an unknown metric and for
    one that cannot be computed here, UnknownMaskError, and ImageChangedError when pixels are needed and the image is no
    longer the one that was segmented.
    """
    if is_slide(folder.path):
        return _measure_slide(folder, metrics, mask_ids, open_image)
    wanted = _checked(metrics, BY_DEFAULT)
    result = folder.result()
    mpp = result.image.mpp if result.image.mpp_source in ("file", "given") else None
    subjects = [Subject(folder, mask, mpp, open_image) for mask in folder.chosen(list(mask_ids or ()))]
    rows: list[Measured] = []
    for subject in subjects:
        for name in wanted:
            values = METRICS[name](subject) if name in METRICS else ()
            rows += [measured(subject.record, value) for value in values]
    masks = [subject.record for subject in subjects]
    if BETWEEN_MASKS in wanted:
        rows += _ratios(masks)
    with_objects = [subject.record for subject in subjects if subject.instances is not None]
    place = OrdinaryPlace(result.image, subjects, open_image)
    drawn, pictures = place_rows(place, result, wanted, folder.path)
    return _answered(result, rows + drawn, with_objects, pictures)


def _measure_slide(
    folder: ResultFolder, metrics: Sequence[str] | None, mask_ids: Sequence[str] | None, open_image: OpenImage
) -> MeasureResult:
    wanted = _checked(metrics, SLIDE_DEFAULT)
    with StoredSlide(folder, open_image, mask_ids or ()) as slide:
        rows = slide_rows(slide, wanted)
        if BETWEEN_MASKS in wanted:
            rows += _ratios([layer.record for layer in slide.layers])
        drawn, pictures = place_rows(slide, slide.result, wanted, folder.path)
        known = {(row.mask_id, row.metric) for row in rows}
        rows += [row for row in drawn if (row.mask_id, row.metric) not in known]
        with_objects = [layer.record for layer in slide.layers if layer.has_objects]
        return _answered(slide.result, rows, with_objects, pictures)


def _answered(
    result: SegmentResult, rows: list[Measured], with_objects: Sequence[Mask], pictures: dict[str, str]
) -> MeasureResult:
    return MeasureResult(
        result_id=result.result_id,
        image=result.image,
        measurements=rows,
        tables={mask.mask_id: mask.resources.table for mask in with_objects},
        pictures=pictures,
        warnings=_warnings(result),
    )


def _checked(metrics: Sequence[str] | None, by_default: Sequence[str]) -> Sequence[str]:
    if not metrics:
        return by_default
    unknown = [name for name in metrics if name not in ALL]
    if unknown:
        raise InvalidArgumentError(f"unknown metric {unknown[0][:60]!r}; choose from: {', '.join(ALL)}.")
    return list(dict.fromkeys(metrics))


def _warnings(result: SegmentResult) -> list[Warned]:
    return [warning for warning in result.warnings if warning.code != "language"]


def _ratios(masks: Sequence[Mask]) -> list[Measured]:
    """Every pair of masks in the order they were asked for; None where the second is empty."""
    if len(masks) < 2:
        raise InvalidArgumentError(
            "ratio needs two masks; segment both targets in one call, then ask for their ratio."
        )
    rows = []
    for number, first in enumerate(masks):
        for second in masks[number + 1 :]:
            pair = f"{name_of(first)} : {name_of(second)}"
            parts: list[tuple[str, float, float]] = [("area", first.area_px, second.area_px)]
            if first.count is not None and second.count is not None:
                parts.append(("count", first.count, second.count))
            for of, above, below in parts:
                value = above / below if below else None
                rows.append(
                    Measured(
                        mask_id=first.mask_id,
                        name=pair,
                        metric=f"ratio.{of}",
                        value=value,
                        unit="",
                        rule=f"{of} of the first mask / {of} of the second",
                    )
                )
    return rows


def write_table(folder: ResultFolder, mask: Mask, open_image: OpenImage) -> str:
    """The per-object table of one mask as CSV, made when first asked for; positions in pixels of the source image."""
    path = folder.path / mask.resources.table
    if path.is_file():
        return path.read_text("utf-8")
    result = folder.result()
    mpp = result.image.mpp if result.image.mpp_source in ("file", "given") else None
    table = Subject(folder, mask, mpp, open_image).stained_table
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
    write_whole(path, buffer.getvalue())
    return buffer.getvalue()


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
