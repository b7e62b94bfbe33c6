"""Results on a terminal."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tissuetalk.tools.answers.explained import ExplainResult
    from tissuetalk.tools.answers.results import Answer, MeasureResult, SegmentResult
    from tissuetalk.tools.cohort.table import CohortTable
    from tissuetalk.tools.doctor import Checked


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@contextmanager
def image_progress(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on stderr, so that stdout stays the result's."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("segmenting", total=1.0)
        yield lambda done, what: bar.update(task, completed=done, description=what)


def segment_table(result: SegmentResult, out: Path) -> None:
    console, table = _console(), _table("#", "target", "words", "verdict")
    number = 0
    for mask in result.masks:
        number += mask.found
        table.add_row(
            str(number) if mask.found else "-", mask.label or mask.free_form, mask.evidence, mask.verdict
        )
    for item in result.not_segmented:
        table.add_row(
            "", item.label or item.free_form, item.evidence, f"not segmented ({item.code}): {item.reason}"
        )
    console.print(table)
    for warning in result.warnings:
        console.print(f"warning {warning.code}: {warning.message}", markup=False)
    console.print(
        f"written to {out}: result.json, masks, instances, objects.geojson, overlay.png", markup=False
    )


def cohort_table(cohort: CohortTable, out: str) -> None:
    """A line per slide and target on the terminal, then where everything lies."""
    console, table = (
        _console(),
        _table("slide", "state", "target", "count", "area", "per mm² tissue", "tissue"),
    )
    for slide in cohort.slides:
        state = slide.error.code if slide.error else slide.state
        tissue = "" if slide.tissue_mm2 is None else f"{slide.tissue_mm2:.3g} mm²"
        for mask in slide.masks:
            area = f"{mask.area_px} px" if mask.area_mm2 is None else f"{mask.area_mm2:.3g} mm²"
            density = "" if mask.density_per_mm2 is None else f"{mask.density_per_mm2:.4g}"
            count = "" if mask.count is None else str(mask.count)
            table.add_row(slide.name, state, mask.name, count, area, density, tissue)
        if not slide.masks:
            table.add_row(slide.name, state, "; ".join(slide.not_segmented), "", "", "", tissue)
    console.print(table)
    console.print(f"written to {out}: cohort.csv, cohort.json, slides/", markup=False)


def measure_table(result: MeasureResult, *, as_csv: bool) -> None:
    columns = ("mask_id", "name", "metric", "value", "unit", "rule")
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows([getattr(row, column) for column in columns] for row in result.measurements)
        return
    console, table = _console(), _table("mask", "metric", "value", "unit", "rule")
    for row in result.measurements:
        table.add_row(
            row.name, row.metric, "n/a" if row.value is None else f"{row.value:.4g}", row.unit, row.rule
        )
    console.print(table)
    for title, path in result.pictures.items():
        console.print(f"drawn in the result's folder: {path} ({title.split()[0]})", markup=False)
    for warning in result.warnings:
        console.print(f"warning {warning.code}: {warning.message}", markup=False)


def explain_text(answer: Answer[ExplainResult]) -> None:
    _console().print(answer.text, markup=False)
    if answer.result.picture is not None:
        print(answer.result.picture)


def models_table(listed: Sequence[dict[str, Any]]) -> None:
    console, table = _console(), _table("model", "targets", "licence", "usable here")
    for model in listed:
        name = f"{model['name']} (default)" if model["default"] else model["name"]
        table.add_row(name, ", ".join(model["targets"]), model["licence"], model["missing"] or "yes")
    console.print(table)


def doctor_table(findings: Sequence[Checked]) -> None:
    console, table = _console(), _table("part", "state", "what")
    for finding in findings:
        table.add_row(finding.part, finding.state, finding.what)
    console.print(table)
