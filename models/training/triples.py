"""Triples of image, mask and sentence for the full-size PathSegmentor, from manifests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tissuetalk.models.datasets.manifest import Record, read_manifest, read_rgb
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.metrics.annotations import (
    SCORED_KINDS,
    Annotation,
    class_name,
    indexed_classes,
    read_annotations,
)
from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import Tokens, label_sentence
from tissuetalk.models.training.recipes import BaseRecipe

PADDING = 128
"""Grey around an image that became smaller than the crop; its mask there is 0."""


@dataclass(frozen=True)
class Triple:
    """One image and one of the things annotated on it."""

    record: Record
    name: str

    @property
    def absent(self) -> bool:
        return self.name in self.record.absent

    @property
    def sentence(self) -> str:
        return label_sentence(self.name, self.record.organ)


@dataclass(frozen=True)
class TripleBatch:
    """tiles: [B, 3, S, S] pixels. truth: [B, S, S] in 0..1. shown: [B], 1 where the crop shows the target.

    counts: [B], 1 where the answer is known: shown, or asked for something absent; a crop that lost its target counts
    nothing. ids, padding: [B, L] tokens of one sentence a tile.
    """

    tiles: Tensor
    truth: Tensor
    shown: Tensor
    counts: Tensor
    ids: Tensor
    padding: Tensor

    def rows(self, which: Tensor) -> TripleBatch:
        """Some of its tiles."""
        return TripleBatch(*(getattr(self, field.name)[which] for field in fields(self)))


def triples(recipe: BaseRecipe) -> list[Triple]:
    """Every annotated image and class that is not for testing. Raises InvalidArgumentError when there is none."""
    records = [record for manifest in recipe.manifests for record in read_manifest(manifest)]
    scored = [record for record in records if record.kind in SCORED_KINDS]
    able = [record for record in scored if record.split not in ("test", "val")]
    found = []
    for record in able:
        several = record.kind == "class-index"
        names = indexed_classes(record.mask_class).values() if several else [class_name(record.mask_class)]
        found += [Triple(record, name) for name in names]
    if not found:
        raise InvalidArgumentError(f"{recipe.name}: the manifests hold no annotated image for training.")
    return found


class TripleSampler:
    """Draws batches. The same seed and step always give the same batch; each epoch has every triple once."""

    def __init__(self, found: Sequence[Triple], recipe: BaseRecipe, tokens: Tokens) -> None:
        self.triples, self.recipe, self.tokens = found, recipe, tokens

    @property
    def steps(self) -> int:
        """Length of the whole run."""
        return self.recipe.steps or max(1, round(self.recipe.epochs * len(self.triples) / self.recipe.batch))

    def batch(self, step: int) -> TripleBatch:
        """The batch of one training step."""
        rng = np.random.default_rng((self.recipe.seed, step))
        chosen = [self._at(step * self.recipe.batch + number) for number in range(self.recipe.batch)]
        # Drawn after the order is fixed, so that asking for absent things does not move any other choice.
        chosen = [self._perhaps_absent(triple, rng) for triple in chosen]
        crops = [self._crop(triple, rng) for triple in chosen]
        tiles, truths = (np.stack(column) for column in zip(*crops, strict=True))
        shown = truths.any((1, 2)).astype(np.float32)
        counts = np.maximum(shown, [float(triple.absent) for triple in chosen]).astype(np.float32)
        ids, padding = self.tokens([triple.sentence for triple in chosen])
        image, mask, there, known = (torch.from_numpy(part) for part in (tiles, truths, shown, counts))
        return TripleBatch(image, mask, there, known, ids, padding)

    def _at(self, position: int) -> Triple:
        epoch, place = divmod(position, len(self.triples))
        order = np.random.default_rng((self.recipe.seed, 1, epoch)).permutation(len(self.triples))
        return self.triples[int(order[place])]

    def _crop(
        self, triple: Triple, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        side = self.recipe.side_px
        image, mask = read_rgb(triple.record.image), self._mask(triple)
        zoom = float(rng.uniform(*self.recipe.rescale)) * side / max(image.shape[:2])
        size = (max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        tile, truth = np.full((side, side, 3), PADDING, np.uint8), np.zeros((side, side), np.float32)
        y = int(rng.integers(0, max(1, image.shape[0] - side + 1)))
        # An image smaller than the crop sits in its corner; the grey around it counts as background.
        x = int(rng.integers(0, max(1, image.shape[1] - side + 1)))
        part = np.s_[y : y + side, x : x + side]
        height, width = image[part].shape[:2]
        tile[:height, :width], truth[:height, :width] = image[part], mask[part]
        return np.ascontiguousarray(tile.transpose(2, 0, 1), np.float32), truth

    def _perhaps_absent(self, triple: Triple, rng: np.random.Generator) -> Triple:
        """Now and then the same image is asked for something that is not on it."""
        if not triple.record.absent or rng.random() >= self.recipe.absent_share:
            return triple
        return Triple(triple.record, str(rng.choice(triple.record.absent)))

    def _mask(self, triple: Triple) -> NDArray[np.uint8]:
        if triple.absent:
            (first, *_) = read_annotations(triple.record)
            return np.zeros(first.mask.shape, np.uint8)
        by_name: dict[str, Annotation] = {one.name: one for one in read_annotations(triple.record)}
        return by_name[triple.name].mask.astype(np.uint8)
