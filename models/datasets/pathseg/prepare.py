"""From a source's own files to a manifest of 1024 px patches that `evaluate` and `train` read."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from tissuetalk.models.datasets.pathseg.arrays import conic, hdf5, matlab, pannuke
from tissuetalk.models.datasets.pathseg.outlines import aperio, coco, outline_table
from tissuetalk.models.datasets.pathseg.pictures import pictures
from tissuetalk.models.datasets.pathseg.reading import Picture, Split
from tissuetalk.models.datasets.pathseg.source import Source, source_named
from tissuetalk.models.datasets.pathseg.standardise import SIDE_PX, Objects, Patch, patches, random_split
from tissuetalk.models.errors import WorkspaceUnwritableError

READERS: Final[Mapping[str, Callable[[Source, Path], Iterator[Picture]]]] = {
    "pictures": pictures,
    "conic": conic,
    "pannuke": pannuke,
    "matlab": matlab,
    "hdf5": hdf5,
    "aperio": aperio,
    "outline-table": outline_table,
    "coco": coco,
}
COLUMNS: Final = (
    "file", "mask", "mask_kind", "mask_class", "n_instances", "split", "group", "organ", "stain", "magnification",
    "mpp_um", "width", "height", "source", "absent", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """What a run wrote: source images, patches, and (patch, label) pairs, of which so many are for testing."""

    images: int
    patches: int
    masks: int
    test_masks: int
    labels: tuple[str, ...]


def read_source(source: Source, folder: Path) -> list[Picture]:
    """All images of a source with their split: the published one, else four fifths train, or all for testing."""
    found = list(READERS[source.format](source, folder))
    drawn = random_split([picture.name for picture in found])

    def split_of(picture: Picture) -> Split:
        if source.split == "test":
            return "test"
        return drawn[picture.name] if picture.split is None else picture.split

    return [Picture(p.name, p.group, split_of(p), p.known, p.read) for p in found]


def prepare(
    name: str,
    folder: Path,
    out: Path,
    *,
    limit: int | None = None,
    progress: Callable[[float, str], None] = lambda done, what: None,
) -> Prepared:
    """Write patches, masks and ``manifest.csv`` (all), ``train.csv`` and ``test.csv`` of one source.

    limit: only so many source images, for a try. A patch without a pixel of any label gives no row.
    Raises InvalidArgumentError or UnreadableImageError naming what is missing, WorkspaceUnwritableError for ``out``.
    """
    source = source_named(name)
    found = list(islice(read_source(source, folder), limit))
    rows: list[dict[str, Any]] = []
    n_patches = 0
    try:
        for part in ("images", "masks"):
            (out / part).mkdir(parents=True, exist_ok=True)
        for done, picture in enumerate(found):
            progress(done / len(found), picture.name)
            read = picture.read()
            for patch in patches(read.image, read.labels, source.magnification):
                n_patches += 1
                rows += _written(out, source, picture, patch)
        for file, chosen in (
            ("manifest.csv", rows),
            ("train.csv", [row for row in rows if row["split"] == "train"]),
            ("test.csv", [row for row in rows if row["split"] == "test"]),
        ):
            with (out / file).open("w", encoding="utf-8", newline="") as lines:
                writer = csv.DictWriter(lines, COLUMNS)
                writer.writeheader()
                writer.writerows(chosen)
    except OSError as error:
        raise WorkspaceUnwritableError(
            f"cannot write to {out}: {error.strerror}; choose another folder."
        ) from error
    labels = tuple(sorted({row["mask_class"] for row in rows}))
    n_test = sum(row["split"] == "test" for row in rows)
    return Prepared(len(found), n_patches, len(rows), n_test, labels)


def _written(out: Path, source: Source, picture: Picture, patch: Patch) -> Iterator[dict[str, Any]]:
    """Write a patch and its masks, and give a row for each label on it."""
    if not patch.labels:
        return
    stem = re.sub(r"[^\w.-]+", "_", f"{source.name}_{picture.name}_x{patch.x}_y{patch.y}")
    _save(out / "images" / f"{stem}.png", cv2.cvtColor(patch.image, cv2.COLOR_RGB2BGR))
    across, down = patch.mpp_xy
    absent = [label for label in picture.known if label not in patch.labels]
    for label, numbers in patch.labels.items():
        mask = f"masks/{stem}_{re.sub(r'[^a-z0-9]+', '-', label)}.png"
        instances = source.objects != "none"
        count = _save_mask(out / mask, numbers, instances=instances)
        yield {
            "file": f"images/{stem}.png",
            "mask": mask,
            "mask_kind": "instance" if instances else "binary",
            "mask_class": label,
            "n_instances": count if instances else "",
            "split": picture.split,
            "group": picture.group,
            "organ": label.split("-", 1)[0],
            "stain": "H&E",
            "magnification": "40x",
            "mpp_um": f"{(across * down) ** 0.5:.5f}",
            "width": SIDE_PX,
            "height": SIDE_PX,
            "source": source.name,
            "absent": ";".join(absent),
            "note": f"{patch.width}x{patch.height} px at 40x; µm per pixel {across:.5f} across, {down:.5f} down",
        }


def _save_mask(path: Path, numbers: Objects, *, instances: bool) -> int:
    """16-bit object numbers from 1, or 0 and 255; returns how many objects there are."""
    if not instances:
        _save(path, np.where(numbers > 0, 255, 0).astype(np.uint8))
        return 0
    values, ranks = np.unique(numbers, return_inverse=True)
    ranks = ranks.reshape(numbers.shape) + (0 if values[0] == 0 else 1)
    _save(path, ranks.astype(np.uint16))
    return int(ranks.max())


def _save(path: Path, pixels: Any) -> None:
    encoded, data = cv2.imencode(".png", pixels)
    if not encoded:
        raise OSError(f"{path.name} could not be written")
    path.write_bytes(data.tobytes())
