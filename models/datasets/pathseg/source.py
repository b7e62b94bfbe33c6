"""The 17 sources: what is known about each as data, where its files lie, and what one annotated image of it is."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import yaml
from PIL import Image, UnidentifiedImageError

from tissuetalk.models.datasets.example import Instances, Pixels
from tissuetalk.models.errors import InvalidArgumentError, UnreadableImageError
from tissuetalk.models.masks.characteristics import components

ANY: Final = "any"
"""Class of a mask in which everything but 0 is the one label."""


Split = Literal["train", "test"]


@dataclass(frozen=True)
class Files:
    """Images of one kind and where their annotation lies.

    glob: below the source's folder, at any depth. swap: replacements that turn an image's path into its annotation's.
    skip: part of a path that leaves an image out. classes: instead of the source's. optional: may have no files.
    """

    glob: str
    swap: Mapping[str, str] = field(default_factory=dict)
    split: Split | None = None
    skip: str | None = None
    classes: Mapping[Any, str] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True)
class PathSegSource:
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
def sources() -> Mapping[str, PathSegSource]:
    """All sources by name."""
    text = resources.files("tissuetalk.models.datasets.pathseg").joinpath("sources.yaml").read_text("utf-8")
    return {
        name: PathSegSource(name, **(row | {"images": tuple(Files(**files) for files in row["images"])}))
        for name, row in yaml.safe_load(text).items()
    }


def source_named(name: str) -> PathSegSource:
    """A source by its name in any case. Raises InvalidArgumentError naming all of them."""
    by_name = {known.casefold(): source for known, source in sources().items()}
    found = by_name.get(name.casefold())
    if found is None:
        raise InvalidArgumentError(f"{name!r} is no PathSeg source; choose from: {', '.join(sources())}.")
    return found


@dataclass(frozen=True)
class Annotated:
    """An image as scanned, and the objects of every label on it."""

    image: Pixels
    labels: Mapping[str, Instances]


@dataclass(frozen=True)
class Picture:
    """One image of a source, read only when asked. split: as published, None when the source has none.

    known: the labels that were looked for on it; those without a pixel are absent, not unlabelled. cut_from: the image it
    is a part of, where a source comes in patches.
    """

    name: str
    group: str
    split: Split | None
    known: tuple[str, ...]
    read: Callable[[], Annotated]
    cut_from: str = ""

    @property
    def source_image(self) -> str:
        """What a split must not divide."""
        return self.cut_from or self.name


def files_of(source: PathSegSource, folder: Path, files: Files) -> Iterator[tuple[Path, Path]]:
    """Image and annotation paths. Raises InvalidArgumentError when there are none, or an annotation is missing."""
    if not folder.is_dir():
        raise InvalidArgumentError(f"there is no folder {folder}; give the folder that holds {source.name}.")
    found = False
    for image in sorted(folder.rglob(files.glob)):
        relative = image.relative_to(folder).as_posix()
        if files.skip and files.skip in relative:
            continue
        # The leading slash lets a rule name a folder at the top: "/images/" to "/masks/".
        for old, new in files.swap.items():
            relative = f"/{relative}".replace(old, new).lstrip("/")
        annotation = folder / relative
        if not annotation.is_file():
            if files.optional:
                continue
            raise InvalidArgumentError(
                f"{source.name}: {image.name} has no annotation at {annotation}; expected {source.layout}."
            )
        found = True
        yield image, annotation
    if not found and not files.optional:
        raise InvalidArgumentError(
            f"{source.name}: nothing like {files.glob} below {folder}; expected {source.layout}."
        )


def group_of(source: PathSegSource, name: str) -> str:
    """The patient or slide in an image's name, else the name."""
    found = re.search(source.group, name)
    return found.group() if found else name


def read_picture(path: Path) -> Pixels:
    """[H, W, 3] RGB. Raises UnreadableImageError."""
    return np.asarray(_opened(path, "RGB"), np.uint8)


def read_numbers(path: Path) -> Instances:
    """[H, W] numbers of a mask picture: palette indices, grey values, or the first channel of a grey colour picture."""
    values = np.asarray(_opened(path, None), np.int32)
    return values if values.ndim == 2 else np.ascontiguousarray(values[..., 0])


def _opened(path: Path, mode: str | None) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert(mode) if mode else picture.copy()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"cannot read {path}: {error}; fetch the file again.") from error


def class_table(source: PathSegSource, folder: Path) -> Mapping[Any, str]:
    """The classes of the source, or of the table that the user has to add. Raises InvalidArgumentError."""
    if source.class_table is None:
        return source.classes
    path = next(iter(sorted(folder.rglob(source.class_table))), None)
    if path is None:
        raise InvalidArgumentError(
            f"{source.name}: its numbers are not published in a form we could check; add {source.class_table} with the "
            "columns number,label (a canonical label for each) from the set's own description."
        )
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    try:
        return {int(row["number"]): row["label"] for row in rows}
    except (KeyError, ValueError) as error:
        raise InvalidArgumentError(f"{path} needs the columns number,label with whole numbers.") from error


def split_table(source: PathSegSource, folder: Path) -> dict[str, Split]:
    """Published split by file name, where the source has a table of it; validation images count as training."""
    rule = source.split_table
    if rule is None:
        return {}
    found: dict[str, Split] = {}
    for path in sorted(folder.rglob(rule["glob"])):
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                found[Path(row[rule["name"]]).name] = "test" if row[rule["split"]] == "test" else "train"
    if not found:
        raise InvalidArgumentError(
            f"{source.name}: no {rule['glob']} below {folder}; its official split is there; expected {source.layout}."
        )
    return found


def by_class(source: PathSegSource, numbers: Instances, classes: Mapping[Any, str]) -> dict[str, Instances]:
    """Label to objects from a mask of class numbers (or, with the class ``any``, of object numbers)."""
    if ANY in classes:
        if source.objects != "numbers" and numbers.max(initial=0) > 127:  # 0 and 255, softened by JPEG
            numbers = (numbers > 127).astype(np.int32)
        return {classes[ANY]: told_apart(source, numbers)}
    masks = {label: (numbers == number).astype(np.int32) for number, label in classes.items()}
    return {label: told_apart(source, mask) for label, mask in masks.items()}


def told_apart(source: PathSegSource, numbers: Instances) -> Instances:
    """Instances as the source tells them apart: by number, as connected parts, or all as one region."""
    if source.objects == "numbers":
        return numbers
    if source.objects == "parts":
        return components(numbers > 0, min_px=1)
    return (numbers > 0).astype(np.int32)
