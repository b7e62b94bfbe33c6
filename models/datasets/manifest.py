"""Manifests of annotated images, one row per image in the format described beside the data sets, and fixed shares of them."""

from __future__ import annotations

import os
import random
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.datasets.example import Pixels
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.reading import table_of
from tissuetalk.models.writing import CsvWriter, whole_file

MaskKind = Literal["instance", "binary", "class-index", "boxes", "class-label", "none"]
SUBSET_SEED = 2026
REQUIRED_COLUMNS = {"file", "mask", "mask_kind", "mask_class", "group", "organ", "mpp_um"}


@dataclass(frozen=True)
class Record:
    """One annotated image. group: patient, slide or field; never split over train and validation.

    mpp: µm per pixel, or None when the source does not say.
    """

    image: Path
    mask: Path | None
    kind: MaskKind
    mask_class: str
    group: str
    organ: str
    stain: str
    mpp: float | None
    note: str
    source: str = ""
    """Data set it comes from, where a manifest holds several."""
    split: str = ""
    """``train`` or ``test`` as the manifest says it."""
    absent: tuple[str, ...] = ()
    """Classes that were looked for and are certainly not on the image."""


def microns_per_pixel(text: str) -> float | None:
    """The number in ``0.25``, ``about 0.25`` or ``about 0.25 (estimated)``; None for ``unknown`` or nothing."""
    found = re.search(r"\d+(?:\.\d+)?", text)
    return float(found.group()) if found else None


def read_manifest(path: Path) -> list[Record]:
    """All rows of a manifest, or of the ``manifest.csv`` in a folder.

    Raises InvalidArgumentError when columns are missing.
    """
    path = path / "manifest.csv" if path.is_dir() else path
    if not path.is_file():
        raise InvalidArgumentError(
            f"there is no manifest at {path}; give a manifest.csv or the folder that holds one."
        )
    columns, rows = table_of(path)
    if missing := REQUIRED_COLUMNS - set(columns):
        raise InvalidArgumentError(
            f"{path} lacks the columns {', '.join(sorted(missing))}; add them to the header."
        )
    return [
        Record(
            image=path.parent / row["file"],
            mask=path.parent / row["mask"] if row["mask"] else None,
            kind=cast(MaskKind, row["mask_kind"] or "none"),
            mask_class=row["mask_class"],
            group=row["group"],
            organ=row["organ"],
            stain=row.get("stain") or "",
            mpp=microns_per_pixel(row["mpp_um"]),
            note=row.get("note") or "",
            source=row.get("source") or "",
            split=row.get("split") or "",
            absent=tuple(name for name in (row.get("absent") or "").split(";") if name),
        )
        for row in rows
    ]


def rows_by_file(path: Path) -> Mapping[str, list[dict[str, str]]]:
    """Rows of a table of boxes, points or types beside a manifest, by their ``file``; of a file without any none.

    All rows are under "" where the table has no such column. Raises InvalidArgumentError.
    """
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in table_of(path)[1]:
        found[row.get("file", "")].append(row)
    return found


def read_rgb(path: Path) -> Pixels:
    """[H, W, 3] RGB of an annotated image."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InvalidArgumentError(f"cannot read the image {path}; check the manifest.")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_mask(record: Record) -> NDArray[np.int32]:
    """[H, W] values of the mask as stored."""
    mask = cv2.imread(str(record.mask), cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise InvalidArgumentError(f"cannot read the mask {record.mask}; check the manifest.")
    return np.asarray(mask, np.int32)


def draw_subset(
    manifest: Path,
    out: Path,
    *,
    fraction: float = 0.1,
    seed: int = SUBSET_SEED,
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
    columns, rows = table_of(manifest)
    if by not in columns or "file" not in columns:
        raise InvalidArgumentError(f"{manifest} has no column {by!r}; it has {', '.join(columns)}.")
    rows = [row for row in rows if split is None or row.get("split") == split]
    strata: dict[str, list[str]] = {}
    for file, stratum in {row["file"]: row[by] for row in rows}.items():
        strata.setdefault(stratum, []).append(file)
    draw, chosen = random.Random(seed), set[str]()
    for _, files in sorted(strata.items()):
        chosen.update(draw.sample(sorted(files), max(1, round(fraction * len(files)))))
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent.resolve()
    with whole_file(out) as part, part.open("w", encoding="utf-8", newline="") as lines:
        writer = CsvWriter(lines, columns, line_end="\r\n")
        writer.header()
        for row in rows:
            if row["file"] in chosen:
                given = {key: manifest.parent / row[key] for key in ("file", "mask") if row.get(key)}
                moved = {key: Path(os.path.relpath(at.resolve(), folder)) for key, at in given.items()}
                writer.row(row | {key: path.as_posix() for key, path in moved.items()})
    return len(chosen)
