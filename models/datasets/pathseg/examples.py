"""Prepared manifests as the project's training examples, one per patch with every label that is on it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from tissuetalk.models.datasets.example import BACKGROUND, FOREGROUND, Example, Labelled
from tissuetalk.models.datasets.manifest import Record, read_manifest, read_mask, read_rgb
from tissuetalk.models.datasets.objects import from_instances


def examples(manifest: Path) -> Iterator[Example]:
    """Every patch of a prepared manifest, read when reached; ``targets`` are keyed by canonical label.

    Labels that the source looked for and that have no pixel on the patch are ``absent``; all others are unknown.
    """
    path = manifest / "manifest.csv" if manifest.is_dir() else manifest
    for image, members in groupby(read_manifest(path), key=lambda record: record.image):
        records = list(members)
        first = records[0]
        yield Example(
            first.source or path.parent.name,
            image.name,
            first.group,
            first.split == "test",
            read_rgb(image),
            first.mpp or 0.25,
            first.mpp is not None,
            {record.mask_class: _labelled(record) for record in records},
            first.absent,
        )


def _labelled(record: Record) -> Labelled:
    numbers = read_mask(record)
    if record.kind == "instance":
        return from_instances(numbers, parted=True)
    return Labelled(np.where(numbers > 0, FOREGROUND, BACKGROUND).astype(np.uint8))
