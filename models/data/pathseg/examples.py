"""Prepared manifests as the project's training examples, one per patch with every label that is on it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from tissuetalk.models.data.example import BACKGROUND, FOREGROUND, Example, Labelled
from tissuetalk.models.data.manifest import Record, read_manifest, read_mask, read_rgb
from tissuetalk.models.data.objects import from_instances


def examples(manifest: Path) -> Iterator[Example]:
    """Every patch of a prepared manifest, read when reached; ``targets`` are keyed by canonical label.

    Labels that the source looked for and that have no pixel on the patch are ``absent``; all others are unknown.
    """
    path = manifest / "manifest.csv" if manifest.is_dir() else manifest
    records = read_manifest(path)
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    pairs = zip(records, rows, strict=True)
    for image, members in groupby(pairs, key=lambda pair: pair[0].image):
        chosen = list(members)
        record, row = chosen[0]
        yield Example(
            record.source or path.parent.name,
            image.name,
            record.group,
            row.get("split") == "test",
            read_rgb(image),
            record.mpp or 0.25,
            record.mpp is not None,
            {one.mask_class: _labelled(one) for one, _ in chosen},
            tuple(label for label in (row.get("absent") or "").split(";") if label),
        )


def _labelled(record: Record) -> Labelled:
    numbers = read_mask(record)
    if record.kind == "instance":
        return from_instances(numbers, parted=True)
    return Labelled(np.where(numbers > 0, FOREGROUND, BACKGROUND).astype(np.uint8))
