"""measure: numbers with units from a stored result, each with the rule that computed it. Nothing is segmented again."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models import characteristics
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.object_table import RULES, Table, object_table
from tissuetalk.tools.result_folder import ResultFolder, write_whole
from tissuetalk.tools.results import Answer, Mask, Measured, MeasureResult, SegmentResult, Warned

OpenImage = Callable[[], ImageSource]
"""Opens the image a result was made from, checked to be unchanged; called only by metrics that need pixels."""


@dataclass(frozen=True)
class Value:
    """One number of one mask before it is given an id. ``value`` is None where there is nothing to measure."""

    metric: str
    value: float | None
    unit: str
    rule: str


class Subject:
    """One mask with what metrics need of it, computed when first asked for."""

    def __init__(self, folder: ResultFolder, mask: Mask, mpp: float | None, open_image: OpenImage) -> None:
        self.folder, self.record, self.mpp = folder, mask, mpp
        self._open_image = open_image

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        return self.folder.mask(self.record.mask_id)

    @cached_property
    def instances(self) -> NDArray[np.int32] | None:
        return self.folder.instances(self.record.mask_id)

    @cached_property
    def table(self) -> Table:
        """Geometry of every object; empty for a region without objects."""
        objects = self.instances
        return object_table(np.zeros_like(self.mask, np.int32) if objects is None else objects, mpp=self.mpp)

    @cached_property
    def stained_table(self) -> Table:
        """Geometry, staining and texture of every object; for a region, the region as one object."""
        x0, y0, x1, y1 = self.record.provenance.region
        box = Box(x0, y0, x1, y1)
        with self._open_image() as source:
            rgb = source.read_region(box, width=box.width, height=box.height)
        objects = self.mask.astype(np.int32) if self.instances is None else self.instances
        return object_table(objects, rgb, self.mpp)

    def length(self, column: str) -> tuple[NDArray[np.float64], str]:
        """A ``_px`` column in µm where the scale is known."""
        name, unit = (f"{column[:-2]}um", "µm") if self.mpp is not None else (column, "px")
        return self.table[name], unit


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
    yield from _statistics("size", area, unit, "area of each object")
    diameter, length_unit = subject.length("equivalent_diameter_px")
    yield Value("size.mean_diameter", _mean(diameter), length_unit, RULES["equivalent_diameter_px"])


def _shape(subject: Subject) -> Iterator[Value]:
    for column in ("circularity", "solidity", "eccentricity"):
        yield Value(f"shape.mean_{column}", _mean(subject.table[column]), "", RULES[column])


def _distance(subject: Subject) -> Iterator[Value]:
    gaps, unit = subject.length("nearest_neighbour_px")
    yield from _statistics("distance", gaps[~np.isnan(gaps)], unit, RULES["nearest_neighbour_px"])


def _intensity(subject: Subject) -> Iterator[Value]:
    units = {"mean_intensity": "0..255", "mean_hematoxylin_od": "OD", "mean_eosin_od": "OD"}
    for column, unit in units.items():
        yield Value(f"intensity.{column}", _mean(subject.stained_table[column]), unit, RULES[column])


def _texture(subject: Subject) -> Iterator[Value]:
    for column in ("texture_entropy_bits", "texture_contrast", "texture_homogeneity"):
        unit = "bit" if column.endswith("bits") else ""
        yield Value(
            f"texture.{column.removeprefix('texture_')}",
            _mean(subject.stained_table[column]),
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
ALL = (*METRICS, BETWEEN_MASKS)
BY_DEFAULT = tuple(name for name in METRICS if name not in ("intensity", "texture", "distance"))


def measure_folder(
    folder: ResultFolder,
    *,
    metrics: Sequence[str] | None,
    mask_ids: Sequence[str] | None,
    open_image: OpenImage,
) -> MeasureResult:
    """The asked metrics of the asked masks (default: all masks, everything that needs no pixels).

    Raises InvalidArgumentError for an unknown metric, UnknownMaskError, and ImageChangedError when pixels are needed
    and the image is no longer the one that was segmented.
    """
    wanted = _checked(metrics)
    result = folder.result()
    mpp = result.image.mpp if result.image.mpp_source in ("file", "given") else None
    subjects = [Subject(folder, mask, mpp, open_image) for mask in folder.chosen(list(mask_ids or ()))]
    rows: list[Measured] = []
    for subject in subjects:
        for name in wanted:
            values = METRICS[name](subject) if name in METRICS else ()
            rows += [_measured(subject.record, value) for value in values]
    if BETWEEN_MASKS in wanted:
        rows += _ratios(subjects)
    return MeasureResult(
        result_id=result.result_id,
        image=result.image,
        measurements=rows,
        tables={
            each.record.mask_id: each.record.resources.table
            for each in subjects
            if each.instances is not None
        },
        warnings=_warnings(result),
    )


def _checked(metrics: Sequence[str] | None) -> Sequence[str]:
    if not metrics:
        return BY_DEFAULT
    unknown = [name for name in metrics if name not in ALL]
    if unknown:
        raise InvalidArgumentError(f"unknown metric {unknown[0][:60]!r}; choose from: {', '.join(ALL)}.")
    return list(dict.fromkeys(metrics))


def _warnings(result: SegmentResult) -> list[Warned]:
    return [warning for warning in result.warnings if warning.code != "language"]


def _measured(mask: Mask, value: Value) -> Measured:
    number = None if value.value is None or math.isnan(value.value) else float(value.value)
    return Measured(
        mask_id=mask.mask_id,
        name=name_of(mask),
        metric=value.metric,
        value=number,
        unit=value.unit,
        rule=value.rule,
    )


def name_of(mask: Mask) -> str:
    """What a reader calls it; a canonical label can be looser than what was looked for."""
    return mask.free_form or mask.target


def _ratios(subjects: Sequence[Subject]) -> list[Measured]:
    """Every pair of masks in the order they were asked for; None where the second is empty."""
    if len(subjects) < 2:
        raise InvalidArgumentError(
            "ratio needs two masks; segment both targets in one call, then ask for their ratio."
        )
    rows = []
    for number, first in enumerate(subjects):
        for second in subjects[number + 1 :]:
            pair = f"{name_of(first.record)} : {name_of(second.record)}"
            parts: list[tuple[str, float, float]] = [("area", first.record.area_px, second.record.area_px)]
            if first.record.count is not None and second.record.count is not None:
                parts.append(("count", first.record.count, second.record.count))
            for of, above, below in parts:
                value = above / below if below else None
                rows.append(
                    Measured(
                        mask_id=first.record.mask_id,
                        name=pair,
                        metric=f"ratio.{of}",
                        value=value,
                        unit="",
                        rule=f"{of} of the first mask / {of} of the second",
                    )
                )
    return rows


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _statistics(metric: str, values: NDArray[np.float64], unit: str, rule: str) -> Iterator[Value]:
    for name, function in (("mean", np.mean), ("median", np.median), ("sd", np.std)):
        yield Value(
            f"{metric}.{name}", float(function(values)) if len(values) else None, unit, f"{name} of: {rule}"
        )


def write_table(folder: ResultFolder, mask: Mask, open_image: OpenImage) -> str:
    """The per-object table of one mask as CSV, made when first asked for; positions in pixels of the source image."""
    path = folder.path / mask.resources.table
    if path.is_file():
        return path.read_text("utf-8")
    result = folder.result()
    mpp = result.image.mpp if result.image.mpp_source in ("file", "given") else None
    x0, y0 = result.image.region[:2]
    shift = {"centroid_x": x0, "bbox_x0": x0, "bbox_x1": x0, "centroid_y": y0, "bbox_y0": y0, "bbox_y1": y0}
    measured = Subject(folder, mask, mpp, open_image).stained_table
    table = {name: column + shift[name] if name in shift else column for name, column in measured.items()}
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


def answer(result: MeasureResult, links: dict[str, str]) -> Answer[MeasureResult]:
    """links: table URI by mask id, as the caller's transport names them."""
    shown = result.model_copy(update={"tables": links})
    return Answer(
        shown,
        as_text(shown),
        links=tuple((uri, f"{mask_id}.csv", "text/csv") for mask_id, uri in links.items()),
    )
