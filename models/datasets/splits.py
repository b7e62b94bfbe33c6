"""Which images of a set are held out (``holdout.yaml``), and the rows of a set before anybody reads a mask."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tissuetalk.models.datasets.example import Example
from tissuetalk.models.datasets.manifest import Record, read_manifest, read_rgb
from tissuetalk.models.segmentation.pathsegmentor.card import TARGET_MPP


@lru_cache(maxsize=1)
def holdout() -> dict[str, dict[str, Any]]:
    """The stored rule of every set."""
    text = resources.files("tissuetalk.models.datasets").joinpath("holdout.yaml").read_text(encoding="utf-8")
    rules: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return rules


def held_out(dataset: str, records: list[Record]) -> Callable[[Record], bool]:
    """The stored split of a set as a question about one record."""
    rule = holdout()[dataset]
    groups, files = set(rule.get("groups", ())), tuple(rule.get("files", ()))
    if "groups_fraction" in rule:
        # Sorted, so that the draw does not depend on the order of the manifest.
        known = sorted({record.group for record in records})
        groups = set(random.Random(rule["seed"]).sample(known, round(rule["groups_fraction"] * len(known))))
    if "files_fraction" in rule:
        stems = sorted({record.image.stem[:4] for record in records})
        files = tuple(random.Random(rule["seed"]).sample(stems, round(rule["files_fraction"] * len(stems))))
        return lambda record: record.image.stem[:4] in files
    return lambda record: record.group in groups or any(part in record.image.name for part in files)


def each_row(folder: Path, mpp: float | None = None) -> Iterator[tuple[Record, Example]]:
    """Every row, and what is known of its image before anybody reads the mask. mpp: instead of the manifest's."""
    records = read_manifest(folder)
    away = held_out(folder.name, records)
    for record in records:
        scale = mpp or record.mpp or TARGET_MPP["nuclei"]
        image = read_rgb(record.image)
        yield record, Example(folder.name, record.image.name, record.group, away(record), image, scale)
