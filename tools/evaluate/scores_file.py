"""``scores.csv`` of an earlier evaluation, question by question."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from tissuetalk.models.errors import InvalidArgumentError

ScoreRow = Mapping[str, str]
Pair = tuple[str, str, str]
"""source, file, target: what makes two rows the same question."""


def read_scores(folder: Path) -> dict[Pair, ScoreRow]:
    """Scored rows that show their target, by question. Raises InvalidArgumentError without a ``scores.csv``."""
    path = folder / "scores.csv" if folder.is_dir() else folder
    if not path.is_file():
        raise InvalidArgumentError(
            f"there is no scores.csv in {folder}; run `tissuetalk evaluate` with --out {folder}."
        )
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {"file", "mask_class", "dice", "target_present"} <= rows[0].keys():
        raise InvalidArgumentError(
            f"{path} is no scores.csv of `tissuetalk evaluate`; give its --out folder."
        )
    return {
        (row.get("source", ""), row["file"], row["mask_class"]): row
        for row in rows
        if row["dice"] and row["target_present"] == "True"
    }
