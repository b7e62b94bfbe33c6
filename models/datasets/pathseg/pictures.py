"""Mask pictures beside the images: BCSS, CRAG, DigestPath, GlaS, Janowczyk, RINGS, SegPath, SICAPv2, TNBC, WSSS4LUAD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tissuetalk.models.datasets.pathseg.reading import (
    Annotated,
    Picture,
    Split,
    by_class,
    class_table,
    files_of,
    group_of,
    read_numbers,
    read_picture,
    split_table,
)
from tissuetalk.models.datasets.pathseg.source import Source
from tissuetalk.models.datasets.pathseg.standardise import Objects
from tissuetalk.models.errors import InvalidArgumentError, UnreadableImageError

Masks = list[tuple[Path, Mapping[Any, str]]]


def pictures(source: Source, folder: Path) -> Iterator[Picture]:
    """Every image with all of its masks; an image may have one mask per label (RINGS)."""
    found: dict[Path, tuple[Split | None, Masks]] = {}
    for files in source.images:
        for image, mask in files_of(source, folder, files):
            _, masks = found.setdefault(image, (files.split, []))
            masks.append((mask, files.classes))
    if not found:
        raise InvalidArgumentError(f"{source.name}: no images below {folder}; expected {source.layout}.")
    published, classes = split_table(source, folder), class_table(source, folder)
    for image, (split, masks) in found.items():
        told = [(mask, own or classes) for mask, own in masks]
        known = tuple(dict.fromkeys(label for _, own in told for label in own.values()))
        name = image.relative_to(folder).with_suffix("").as_posix().replace("/", "__")
        yield Picture(
            name,
            group_of(source, image.stem),
            split or published.get(image.name),
            known,
            partial(_read, source, image, told),
        )


def _read(source: Source, image: Path, masks: Masks) -> Annotated:
    pixels = read_picture(image)
    labels: dict[str, Objects] = {}
    for path, classes in masks:
        numbers = read_numbers(path)
        if numbers.shape != pixels.shape[:2]:
            raise UnreadableImageError(
                f"{path} is {numbers.shape[1]}x{numbers.shape[0]} px and its image {pixels.shape[1]}x{pixels.shape[0]}; "
                "fetch both again."
            )
        labels |= by_class(source, numbers, classes)
    return Annotated(pixels, labels)
