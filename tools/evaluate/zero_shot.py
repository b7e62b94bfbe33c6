"""One sentence, several models, several data sets, no fine-tuning (E10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.metrics.tables import csv_text, table
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.evaluate.scores import Mean, Summary

PUBLISHED_SETS: Final = ("Histology", "CPM15", "CPM17", "Kumar-same", "Kumar-diff", "CryoNuSeg")
PUBLISHED: Final = {
    "SAM2 (visual)": (46.91, 43.10, 42.29, 36.29, 40.77, 35.78),
    "SAM3 (text)": (52.46, 56.07, 57.87, 34.53, 53.22, 64.10),
    "SAMPO (visual)": (70.16, 79.28, 81.14, 78.45, 83.19, 77.94),
    "group-aware (text)": (74.61, 79.56, 86.10, 80.50, 84.78, 77.58),
}
"""Dice in percent over all nuclei, trained on a tenth of PanNuke (arXiv 2603.06384)."""

Evaluate = Callable[[Path, Path, str], Summary]
"""Manifest, folder for its scores, model: the summary."""


@dataclass(frozen=True)
class Cell:
    """One model on one set; dice is None where nothing could be scored."""

    model: str
    dataset: str
    dice: Mean | None
    n_errors: int


def zero_shot(
    manifests: Sequence[Path], models: Sequence[str], words: str, out: Path, evaluate: Evaluate
) -> list[Cell]:
    """Score every model on every manifest with the same words; a cell that is there already is not scored again.

    Writes ``zero_shot.csv`` and ``zero_shot.md``, and each cell's own evaluation to ``out/MODEL/SET``.
    """
    names = [_name(manifest) for manifest in manifests]
    if len(set(names)) < len(names):
        raise InvalidArgumentError(f"two sets have one name ({', '.join(names)}); rename a folder.")
    cells = []
    for model in models:
        for manifest, name in zip(manifests, names, strict=True):
            folder = out / model / name
            # scoring a cell takes minutes to hours; asked with other words it is scored again
            summary = _stored(folder, words) or evaluate(manifest, folder, model)
            dice = summary.overall.metrics.get("dice") if summary.overall else None
            cells.append(Cell(model, name, dice, sum(summary.errors.values())))
    write_whole(out / "zero_shot.csv", csv_text(map(_csv_row, cells)))
    write_whole(out / "zero_shot.md", _markdown(cells, models, names, words))
    return cells


def _csv_row(cell: Cell) -> dict[str, object]:
    dice = cell.dice
    figures = dice.model_dump(include={"low", "high"}) if dice else {"low": None, "high": None}
    row = {"model": cell.model, "set": cell.dataset, "n": dice.n if dice else 0, "dice": dice and dice.mean}
    return row | figures | {"errors": cell.n_errors}


def _name(manifest: Path) -> str:
    folder = manifest if manifest.is_dir() else manifest.parent
    return folder.resolve().name if manifest.is_dir() or manifest.stem == "manifest" else manifest.stem


def _stored(folder: Path, words: str) -> Summary | None:
    path = folder / "summary.json"
    if not path.is_file():
        return None
    summary = Summary.model_validate_json(path.read_text(encoding="utf-8"))
    return summary if summary.words == words else None


def _markdown(cells: Sequence[Cell], models: Sequence[str], names: Sequence[str], words: str) -> str:
    by_place = {(cell.model, cell.dataset): cell for cell in cells}
    lines = [[model, *(_shown(by_place[model, name]) for name in names)] for model in models]
    published = [[method, *(f"{value:.2f}" for value in row)] for method, row in PUBLISHED.items()]
    return "\n\n".join(
        [
            "# Several data sets, one sentence",
            f"Mean Dice in percent [95 %] for {words!r}, nothing fine-tuned.",
            table(["model", *names], lines),
            "Published for all nuclei (arXiv 2603.06384), on its own sets:",
            table(["method", *PUBLISHED_SETS], published) + "\n",
        ]
    )


def _shown(cell: Cell) -> str:
    if cell.dice is None:
        return f"not scored ({cell.n_errors} errors)"
    if cell.dice.low is None or cell.dice.high is None:
        return f"{100 * cell.dice.mean:.2f}"
    return f"{100 * cell.dice.mean:.2f} [{100 * cell.dice.low:.1f}, {100 * cell.dice.high:.1f}]"
