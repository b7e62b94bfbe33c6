"""Annotated images for groups of prompts: all objects of an image, or those of one class, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field
from torch import Tensor, from_numpy
from torch.nn import functional

from tissuetalk.models.datasets.group_sentences import drawn_group, sentences
from tissuetalk.models.datasets.manifest import SUBSET_SEED, Record, draw_subset, read_manifest, read_rgb
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.annotations import (
    SCORED_KINDS,
    class_name,
    indexed_classes,
    read_annotations,
)
from tissuetalk.models.recipe import Recipe, RecipePath
from tissuetalk.models.segmenter import RGB

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


class GroupSet(Recipe):
    """Images of one manifest and what is asked about them."""

    manifest: Annotated[
        RecipePath, AfterValidator(lambda path: path / "manifest.csv" if path.is_dir() else path)
    ]
    """As for `tissuetalk evaluate`: a file, or the folder with ``manifest.csv``."""
    split: str | None = None
    """Only rows with this value of ``split``."""
    files: str = ""
    """Only images with this in their file's name: ``fold1`` of PanNuke."""
    things: str = "nuclei"
    """What the objects are, in the plural: the sentences say it."""
    classes: Mapping[str, tuple[str, ...]] = {}
    """Class in the sentences to those of the manifest that it is made of; by default each class of the manifest is one."""
    only_all: bool = False
    """Ask for all objects, never for a class."""
    tile_px: int | None = Field(default=None, ge=32)
    """Larger images are shown in tiles of this side; by default whole."""

    @property
    def name(self) -> str:
        return self.manifest.parent.name if self.manifest.name == "manifest.csv" else self.manifest.stem

    def asked(self, annotated: str) -> str | None:
        """What a class of the manifest is called in sentences, None where nothing asks for it.

        A canonical label is called by its object.
        """
        plain = annotated.split("-", 2)[2] if annotated.count("-") >= 2 else annotated
        if not self.classes:
            return plain
        found = (name for name, parts in self.classes.items() if annotated in parts or plain in parts)
        return next(found, None)


@dataclass(frozen=True)
class GroupPicture:
    """An image with all rows of the manifest about it."""

    file: Path
    group: str
    source: GroupSet
    records: tuple[Record, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that were looked for on it, present or not; none where everything is one class."""
        annotated: list[str] = []
        for record in self.records:
            several = record.kind == "class-index"
            annotated += (
                indexed_classes(record.mask_class).values() if several else [class_name(record.mask_class)]
            )
            annotated += record.absent
        named = dict.fromkeys(name for each in annotated if (name := self.source.asked(each)) is not None)
        lone = len(named) < 2 and not self.source.classes
        return () if self.source.only_all or lone else tuple(named)

    def image(self) -> RGB:
        """[H, W, 3], 0..255."""
        return read_rgb(self.file)

    def masks(self) -> tuple[Mask, dict[str, Mask]]:
        """[H, W] of all objects, and of every class that is there."""
        found = [one for record in self.records for one in read_annotations(record)]
        by_class: dict[str, Mask] = {}
        for one in found:
            name = self.source.asked(one.name)
            if name in self.class_names and one.mask.any():
                by_class[name] = by_class.get(name, np.zeros_like(one.mask)) | one.mask
        return np.any([one.mask for one in found], axis=0), by_class

    def tiles(self) -> list[Box]:
        """Equal steps over the whole image, overlapping as little as they can."""
        height, width = self.image().shape[:2]
        side = self.source.tile_px or max(height, width)
        return [(x, y, w, h) for y, h in _along(height, side) for x, w in _along(width, side)]


def _along(length: int, side: int) -> Iterator[tuple[int, int]]:
    if length <= side:
        yield 0, length
        return
    count = math.ceil(length / side)
    for number in range(count):
        yield round(number * (length - side) / (count - 1)), side


def pictures(source: GroupSet, manifest: Path | None = None) -> list[GroupPicture]:
    """Images of a set with a mask. manifest: another one, with a part of its rows. Raises InvalidArgumentError."""
    by_file: dict[Path, list[Record]] = {}
    for record in read_manifest(manifest or source.manifest):
        chosen = source.split in (None, record.split) and source.files in record.image.name
        if chosen and record.kind in SCORED_KINDS:
            by_file.setdefault(record.image, []).append(record)
    if not by_file:
        raise InvalidArgumentError(
            f"{source.name}: no row of {source.manifest} has a mask"
            + (f" and the split {source.split}" if source.split else "")
            + (f" and {source.files!r} in its name" if source.files else "")
            + "; correct the recipe."
        )
    return [GroupPicture(file, rows[0].group, source, tuple(rows)) for file, rows in by_file.items()]


def subset(
    source: GroupSet, out: Path, fraction: float, by: str
) -> tuple[list[GroupPicture], list[GroupPicture]]:
    """The pictures of a fixed share, and those left out. What was drawn stays in ``out`` and is drawn once."""
    every = pictures(source)
    if fraction >= 1:
        return every, []
    if not out.is_file():
        rows = out.with_suffix(".rows.csv")
        draw_subset(source.manifest, rows, fraction=1.0, by=by, split=source.split)
        draw_subset(rows, out, fraction=fraction, seed=SUBSET_SEED, by=by)
    names = {record.image.resolve() for record in read_manifest(out)}
    return [one for one in every if one.file.resolve() in names], [
        one for one in every if one.file.resolve() not in names
    ]


@dataclass(frozen=True)
class PromptGroup:
    """One tile, K sentences and their one answer, [H, W] in 0..1 at the tile's size."""

    tile: RGB
    sentences: tuple[str, ...]
    truth: Tensor

    def truth_at(self, size: Sequence[int]) -> Tensor:
        """[h, w]: the share of each cell that is covered."""
        return functional.adaptive_avg_pool2d(self.truth[None, None], (size[0], size[1]))[0, 0]


Kind = Literal["T1", "T2"]
"""All objects, or those of one class."""


class GroupSampler:
    """Draws groups. The same seed and step always give the same ones; each epoch shows every tile once."""

    def __init__(
        self,
        chosen: Sequence[GroupPicture],
        *,
        size: int,
        batch: int,
        class_share: float,
        absent_share: float,
        seed: int,
    ) -> None:
        """class_share: of groups for one class. absent_share: of those, for a class that is not on the image."""
        self.items = [(picture, tile) for picture in chosen for tile in picture.tiles()]
        self.size, self.each, self.seed = size, batch, seed
        self.class_share, self.absent_share = class_share, absent_share

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return math.ceil(len(self.items) / self.each)

    def batch(self, step: int) -> list[PromptGroup]:
        epoch, number = divmod(step, self.steps)
        order = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.items))
        random = np.random.default_rng((self.seed, step))
        chosen = [self.items[at] for at in order[number * self.each : (number + 1) * self.each]]
        return [self._group(picture, box, random) for picture, box in chosen]

    def _group(self, picture: GroupPicture, box: Box, random: np.random.Generator) -> PromptGroup:
        x, y, width, height = box
        part = np.s_[y : y + height, x : x + width]
        every, by_class = picture.masks()
        here = [name for name, mask in by_class.items() if mask[part].any()]
        gone = [name for name in picture.class_names if name not in here]
        name: str | None = None
        if random.random() < self.class_share and (here or gone):
            asked = gone if gone and (not here or random.random() < self.absent_share) else here
            if asked is here or self.absent_share:
                name = asked[int(random.integers(len(asked)))]
        truth = every if name is None else by_class.get(name, np.zeros_like(every))
        said = drawn_group(sentences("train", picture.source.things, name), self.size, random)
        shown = from_numpy(np.ascontiguousarray(truth[part], np.float32))
        return PromptGroup(np.ascontiguousarray(picture.image()[part]), tuple(said), shown)
