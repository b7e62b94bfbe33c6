"""One row per slide of a cohort, the totals over them, and both as a table other software opens."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from tissuetalk.models.errors import BadRequestError, TissuetalkError
from tissuetalk.models.writing import CsvWriter, write_whole
from tissuetalk.tools.answers.results import Closed, Mask, MppSource, SegmentResult

SlideState = Literal["done", "failed", "pending"]


class CohortMask(Closed):
    """One target on one slide. density_per_mm2: objects per mm² of tissue; None without a known scale."""

    name: str
    label: str | None
    found: bool
    presence: float
    count: int | None
    area_px: int
    area_mm2: float | None
    density_per_mm2: float | None
    tissue_fraction: float | None


class CohortFailure(Closed):
    """code: of the contract, or ``error`` for a failure that is nobody's on purpose; the log has its traceback."""

    code: str
    message: str


class CohortSlide(Closed):
    """A slide of the cohort. slide: path or address. stamp: changes when the file does. result: folder below OUT."""

    name: str
    slide: str
    state: SlideState
    stamp: str = ""
    image_id: str | None = None
    width: int | None = None
    height: int | None = None
    mpp: float | None = None
    mpp_source: MppSource | None = None
    tissue_mm2: float | None = None
    seconds: float | None = None
    masks: list[CohortMask] = Field(default_factory=list)
    not_segmented: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    error: CohortFailure | None = None
    result: str | None = None


class CohortTarget(Closed):
    """A target over all finished slides. density_per_mm2: all its objects over all their tissue."""

    slides: int
    found_on: int
    count: int | None
    area_mm2: float | None
    density_per_mm2: float | None


class CohortTable(Closed):
    """cohort.json."""

    version: str
    request: dict[str, Any]
    states: dict[SlideState, int]
    errors: dict[str, int]
    warnings: dict[str, int]
    tissue_mm2: float | None
    targets: dict[str, CohortTarget]
    slides: list[CohortSlide]

    @property
    def exit_status(self) -> int:
        """0 all slides done, 2 some slides cannot be used, 3 something the operator must fix, or do again."""
        if not self.errors.keys() <= {kind.code for kind in _below(BadRequestError)}:
            return 3
        return 0 if set(self.states) <= {"done"} else 2


def row_of(
    name: str, slide: str, stamp: str, result: SegmentResult, tissue_mm2: float | None, seconds: float
) -> CohortSlide:
    """A finished slide. tissue_mm2: None where the scale is unknown."""
    image = result.image.model_dump(include={"image_id", "width", "height", "mpp", "mpp_source"})
    return CohortSlide(
        **image,
        name=name,
        slide=slide,
        state="done",
        stamp=stamp,
        tissue_mm2=tissue_mm2,
        seconds=round(seconds, 3),
        masks=[_mask_row(mask, tissue_mm2) for mask in result.masks],
        not_segmented=[f"{item.free_form or item.label}: {item.code}" for item in result.not_segmented],
        warnings=[warning.code for warning in result.warnings],
        result=f"slides/{name}",
    )


def failed_row(name: str, slide: str, error: BaseException) -> CohortSlide:
    """A slide that could not be done, with the code an assistant can act on."""
    if isinstance(error, TissuetalkError):
        failure = CohortFailure(code=error.code, message=str(error))
    else:
        message = f"{type(error).__name__}: the work crashed; see the log."
        failure = CohortFailure(code="error", message=message)
    return CohortSlide(name=name, slide=slide, state="failed", error=failure)


def _mask_row(mask: Mask, tissue_mm2: float | None) -> CohortMask:
    area_mm2 = None if mask.area_um2 is None else mask.area_um2 / 1e6
    # no tissue is no density, not an infinite one
    per_tissue = tissue_mm2 or None
    return CohortMask(
        **mask.model_dump(include={"label", "found", "presence", "count", "area_px"}),
        name=mask.free_form or mask.target,
        area_mm2=area_mm2,
        density_per_mm2=None if mask.count is None or per_tissue is None else mask.count / per_tissue,
        tissue_fraction=None if area_mm2 is None or per_tissue is None else area_mm2 / per_tissue,
    )


def cohort_of(version: str, request: dict[str, Any], slides: Sequence[CohortSlide]) -> CohortTable:
    """The table with its totals."""
    ordered = sorted(slides, key=lambda slide: slide.name)
    done = [slide for slide in ordered if slide.state == "done"]
    names = dict.fromkeys(mask.name for slide in done for mask in slide.masks)
    return CohortTable(
        version=version,
        request=request,
        states=dict(Counter(slide.state for slide in ordered)),
        errors=dict(Counter(slide.error.code for slide in ordered if slide.error)),
        warnings=dict(Counter(code for slide in done for code in set(slide.warnings))),
        tissue_mm2=_total(slide.tissue_mm2 for slide in done),
        targets={name: _over(name, done) for name in names},
        slides=ordered,
    )


def _over(name: str, done: Sequence[CohortSlide]) -> CohortTarget:
    pairs = [(slide, mask) for slide in done for mask in slide.masks if mask.name == name]
    counts = [mask.count for _, mask in pairs]
    count = None if None in counts else sum(value for value in counts if value is not None)
    tissue = _total(slide.tissue_mm2 for slide, _ in pairs)
    return CohortTarget(
        slides=len(pairs),
        found_on=sum(mask.found for _, mask in pairs),
        count=count,
        area_mm2=_total(mask.area_mm2 for _, mask in pairs),
        density_per_mm2=None if count is None or not tissue else count / tissue,
    )


def _total(values: Iterator[float | None]) -> float | None:
    """None when any part is unknown: a sum over the rest would look like one over all."""
    known = list(values)
    return None if not known or None in known else sum(value for value in known if value is not None)


def write_tables(cohort: CohortTable, out: Path) -> None:
    """cohort.json and cohort.csv, each replaced in one step."""
    write_whole(out / "cohort.json", cohort.model_dump_json(indent=1) + "\n")
    text = io.StringIO()
    writer = CsvWriter(text, COLUMNS, line_end="\r\n")
    writer.header()
    for slide in cohort.slides:
        writer.rows(_lines(slide))
    write_whole(out / "cohort.csv", text.getvalue())


COLUMNS: Final = [
    "slide",
    "state",
    "target",
    "label",
    "found",
    "presence",
    "count",
    "area_mm2",
    "area_px",
    "tissue_mm2",
    "density_per_mm2",
    "tissue_fraction",
    "width",
    "height",
    "mpp",
    "mpp_source",
    "seconds",
    "not_segmented",
    "warnings",
    "error_code",
    "error_message",
    "result",
    "path",
]
"""cohort.csv: a line per slide and target; a slide without one has a line of its own."""


def _lines(slide: CohortSlide) -> Iterator[dict[str, Any]]:
    shared = {
        "slide": slide.name,
        "state": slide.state,
        "not_segmented": "; ".join(slide.not_segmented),
        "warnings": "; ".join(slide.warnings),
        "error_code": slide.error.code if slide.error else None,
        "error_message": slide.error.message if slide.error else None,
        "path": slide.slide,
    }
    shared |= slide.model_dump(include=set(COLUMNS) - shared.keys())
    for mask in slide.masks:
        yield shared | mask.model_dump(exclude={"name"}) | {"target": mask.name}
    if not slide.masks:
        yield shared


def _below(kind: type[TissuetalkError]) -> Iterator[type[TissuetalkError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)
