"""What is known about each of the 17 sources, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml

from tissuetalk.models.errors import InvalidArgumentError

ANY = "any"
"""Class of a mask in which everything but 0 is the one label."""


@dataclass(frozen=True)
class Files:
    """Images of one kind and where their annotation lies.

    glob: below the source's folder, at any depth. swap: replacements that turn an image's path into its annotation's.
    skip: part of a path that leaves an image out. classes: instead of the source's. optional: may have no files.
    """

    glob: str
    swap: Mapping[str, str] = field(default_factory=dict)
    split: Literal["train", "test"] | None = None
    skip: str | None = None
    classes: Mapping[Any, str] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True)
class Source:
    """One of the 17 sets; the keys are explained at the top of ``sources.yaml``."""

    name: str
    magnification: float
    format: str
    split: Literal["official", "random", "test"]
    layout: str
    objects: Literal["numbers", "parts", "none"]
    images: tuple[Files, ...]
    classes: Mapping[Any, str]
    group: str = "^.*$"
    class_table: str | None = None
    split_table: Mapping[str, str] | None = None


@lru_cache(maxsize=1)
def sources() -> Mapping[str, Source]:
    """All sources by name."""
    text = (
        resources.files("tissuetalk.models.datasets.pathseg")
        .joinpath("sources.yaml")
        .read_text(encoding="utf-8")
    )
    return {
        name: Source(name, **(row | {"images": tuple(Files(**files) for files in row["images"])}))
        for name, row in yaml.safe_load(text).items()
    }


def source_named(name: str) -> Source:
    """A source by its name in any case. Raises InvalidArgumentError naming all of them."""
    by_name = {known.casefold(): source for known, source in sources().items()}
    found = by_name.get(name.casefold())
    if found is None:
        raise InvalidArgumentError(f"{name!r} is no PathSeg source; choose from: {', '.join(sources())}.")
    return found
