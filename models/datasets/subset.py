"""A fixed share of a manifest, drawn once and stored (E7)."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

from tissuetalk.models.errors import InvalidArgumentError

SEED = 2026


def draw_subset(
    manifest: Path,
    out: Path,
    *,
    fraction: float = 0.1,
    seed: int = SEED,
    by: str = "organ",
    split: str | None = None,
) -> int:
    """Write the rows of a share of the images, the same share of every value of the column ``by``; returns how many images.

    Every stratum keeps at least one image. split: only rows with this value of ``split``. Paths in the new manifest are
    relative to it. Raises InvalidArgumentError for a wrong share or column.
    """
    manifest = manifest / "manifest.csv" if manifest.is_dir() else manifest
    if not manifest.is_file():
        raise InvalidArgumentError(f"there is no manifest at {manifest}; give a manifest.csv or its folder.")
    if not 0 < fraction <= 1:
        raise InvalidArgumentError(f"a fraction of {fraction:g} is no share; give more than 0 and at most 1.")
    with manifest.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        columns, rows = list(table.fieldnames or ()), list(table)
    if by not in columns or "file" not in columns:
        raise InvalidArgumentError(f"{manifest} has no column {by!r}; it has {', '.join(columns)}.")
    rows = [row for row in rows if split is None or row.get("split") == split]
    strata: dict[str, list[str]] = {}
    for file, stratum in {row["file"]: row[by] for row in rows}.items():
        strata.setdefault(stratum, []).append(file)
    draw = random.Random(seed)
    chosen = {
        file
        for _, files in sorted(strata.items())
        for file in draw.sample(sorted(files), max(1, round(fraction * len(files))))
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns)
        writer.writeheader()
        for row in rows:
            if row["file"] in chosen:
                moved = {key: _seen_from(out, manifest, row[key]) for key in ("file", "mask") if row.get(key)}
                writer.writerow(row | moved)
    return len(chosen)


def _seen_from(out: Path, manifest: Path, path: str) -> str:
    return Path(os.path.relpath((manifest.parent / path).resolve(), out.parent.resolve())).as_posix()
