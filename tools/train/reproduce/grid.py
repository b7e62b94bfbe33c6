"""A paper's experiments as a grid: what they need, what they cost, running or resuming them, and the page at the end."""

from __future__ import annotations

import csv
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Final

from tissuetalk.models.control import Control
from tissuetalk.models.errors import CancelledError, ModelUnavailableError, TissuetalkError
from tissuetalk.models.metrics.tables import table
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.train.recipes import run_recipe

PAGE: Final = "page.md"
DONE: Final = "done.json"


@dataclass(frozen=True)
class Need:
    """Data or weights that some of the runs read. missing: what is wrong with it, None when it is there."""

    name: str
    missing: str | None
    bring: str


@dataclass(frozen=True)
class GridCell:
    """One run. name: its folder below the grid's. needs: names of what it reads. gpu_hours: see the paper's ``hours``."""

    name: str
    values: Mapping[str, Any]
    gpu_hours: float
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperFigure:
    """A figure of a paper's table, None where it has none, and ours, None where it was not run; shares of 1 are shown in percent."""

    table: str
    row: str
    column: str
    published: float | None
    ours: float | None


@dataclass
class Outcome:
    """What became of the cells: name to what went wrong, "" for those that are done."""

    said: dict[str, str] = field(default_factory=dict)


class Paper(ABC):
    """One paper. hours: where the estimates of time come from. left_out: parts that do not run here, with the reason."""

    name: ClassVar[str]
    title: ClassVar[str]
    hours: ClassVar[str]
    left_out: ClassVar[tuple[str, ...]] = ()
    figures_are: ClassVar[str] = "Dice in percent"
    percent: ClassVar[bool] = True
    """Published figures are in percent, ours of 0 to 1 are brought there."""

    @abstractmethod
    def needs(self, data: Path) -> list[Need]: ...

    @abstractmethod
    def cells(self, data: Path, *, dry: bool, seeds: Sequence[int]) -> list[GridCell]: ...

    @abstractmethod
    def figures(self, out: Path, seeds: Sequence[int]) -> list[PaperFigure]:
        """Published figures with those of the finished cells below ``out``."""

    @abstractmethod
    def draw(self, folder: Path) -> None:
        """Little data and weights for a dry run, in the layout that ``data`` has."""

    def run(self, cell: GridCell, folder: Path, control: Control) -> None:
        """One cell, resumed where it was stopped."""
        recipe = folder / "recipe.yaml"
        write_whole(recipe, json.dumps(dict(cell.values), indent=1) + "\n")  # JSON is YAML
        run_recipe(recipe, folder, control)


def reproduce(
    paper: Paper,
    data: Path | None,
    out: Path,
    *,
    dry: bool = False,
    seeds: Sequence[int] = (7,),
    only: str = "",
    has_gpu: Callable[[], bool],
    control: Control = Control(),
) -> Path:
    """Run what can be run of a paper's grid, or go on with it, and return its page.

    data: folder as the page describes it; a dry run draws its own. only: cells whose names begin so. A cell that fails is
    named on the page and the others go on. Raises ModelUnavailableError when something failed or nothing can be run, with
    the page written.
    """
    out.mkdir(parents=True, exist_ok=True)
    if dry:
        data = out / "drawn"
        paper.draw(data)
    if data is None:
        raise ModelUnavailableError(
            f"reproduce {paper.name} needs --data, or --dry-run to try it on drawn data."
        )
    needs = paper.needs(data)
    lacking = {need.name for need in needs if need.missing is not None}
    cells = [cell for cell in paper.cells(data, dry=dry, seeds=seeds) if cell.name.startswith(only)]
    able = [cell for cell in cells if not lacking.intersection(cell.needs)]
    outcome = Outcome({cell.name: "" for cell in cells if (out / cell.name / DONE).is_file()})

    def page() -> Path:
        said = _page(paper, needs, cells, outcome, paper.figures(out, seeds), dry=dry)
        write_whole(out / PAGE, said)
        return out / PAGE

    written = page()
    if not able:
        raise ModelUnavailableError(
            f"nothing of {len(cells)} runs can start; {written} says what is missing."
        )
    left = [cell for cell in able if cell.name not in outcome.said]
    if left and not dry and not has_gpu():
        hours = sum(cell.gpu_hours for cell in left)
        raise ModelUnavailableError(
            f"{len(left)} runs of about {hours:,.0f} GPU hours are left and there is no GPU here; {written} lists them."
        )
    for name, said in _run_all(paper, left, out, control):
        outcome.said[name] = said
        page()
    written = page()
    if failed := [name for name, said in outcome.said.items() if said]:
        raise ModelUnavailableError(
            f"{len(failed)} of {len(cells)} runs failed, the first of them {failed[0]}; {written} says why. What is done is "
            "kept: mend it and start again."
        )
    return written


def _run_all(
    paper: Paper, cells: Sequence[GridCell], out: Path, control: Control
) -> Iterator[tuple[str, str]]:
    """Every cell in turn, its name with what went wrong, "" where nothing did."""
    for number, cell in enumerate(cells):
        print(f"{cell.name} ({number + 1} of {len(cells)})", file=sys.stderr)
        folder = out / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            paper.run(cell, folder, control.part(number / len(cells), (number + 1) / len(cells)))
        except CancelledError:
            raise
        except TissuetalkError as error:
            yield cell.name, f"{error.code}: {error}"
            continue
        write_whole(folder / DONE, json.dumps({"recipe": dict(cell.values)}, indent=1, default=str))
        yield cell.name, ""


def rows_of(file: Path) -> list[dict[str, str]]:
    """Rows of a run's table, none where it is not there."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def rows_of_seeds(out: Path, cell: str, seeds: Sequence[int]) -> list[dict[str, str]]:
    """Rows of ``scores.csv`` of every seed of a cell that is done."""
    return [row for seed in seeds for row in rows_of(out / cell / f"seed-{seed}" / "scores.csv")]


def mean_of(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _page(
    paper: Paper,
    needs: Sequence[Need],
    cells: Sequence[GridCell],
    outcome: Outcome,
    figures: Sequence[PaperFigure],
    *,
    dry: bool,
) -> str:
    lacking = {need.name for need in needs if need.missing is not None}
    used = {name for cell in cells for name in cell.needs}
    parts = [f"# {paper.title}", ""]
    if dry:
        parts += [
            "A dry run on drawn data at tiny size: it shows that every run works. Its figures mean nothing.",
            "",
        ]
    told = [
        [need.name, need.missing or "here", need.bring if need.missing else ""]
        for need in needs
        if need.name in used
    ]
    if told:
        parts += ["## What it needs", "", table(["what", "state", "where it comes from"], told), ""]
    rows = []
    for cell in cells:
        missing = sorted(lacking.intersection(cell.needs))
        state = "done" if outcome.said.get(cell.name) == "" else outcome.said.get(cell.name, "to do")
        rows.append([cell.name, f"lacks {', '.join(missing)}" if missing else state, f"{cell.gpu_hours:.1f}"])
    done = sum(value == "" for value in outcome.said.values())
    hours = sum(cell.gpu_hours for cell in cells)
    parts += ["## Figures", "", f"{paper.figures_are}; published / ours, where there is one.", ""]
    for name in dict.fromkeys(figure.table for figure in figures):
        some = [figure for figure in figures if figure.table == name]
        parts += [f"### {name}", "", _beside(some, percent=paper.percent), ""]
    if paper.left_out:
        parts += ["## Not run here", "", *(f"- {reason}" for reason in paper.left_out), ""]
    parts += [
        f"## Runs: {done} of {len(cells)} done, about {hours:,.0f} GPU hours in all",
        "",
        paper.hours,
        "",
    ]
    parts += [table(["run", "state", "GPU hours"], rows), ""]
    return "\n".join(parts)


def _beside(figures: Sequence[PaperFigure], *, percent: bool) -> str:
    """One table: rows and columns as published, in each cell both figures."""
    factor, places = (100, 2) if percent else (1, 3)
    columns = list(dict.fromkeys(figure.column for figure in figures))
    lines: dict[str, dict[str, str]] = {}
    for figure in figures:
        ours = "not run" if figure.ours is None else f"{factor * figure.ours:.{places}f}"
        told = "-" if figure.published is None else f"{figure.published:.{places}f}"
        lines.setdefault(figure.row, {})[figure.column] = f"{told} / {ours}"
    return table(
        ["", *columns],
        [[row, *(cells.get(column, "") for column in columns)] for row, cells in lines.items()],
    )
