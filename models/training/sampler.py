"""Crops with their questions: which sentences to ask of a crop and what the right answers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tissuetalk.models.datasets.augment import Strength, affine, optics, stain, warp
from tissuetalk.models.datasets.example import BACKGROUND, FOREGROUND, UNKNOWN, Example, Labelled, Pixels
from tissuetalk.models.datasets.spread import StainSpread, artefacts
from tissuetalk.models.datasets.wordings import LEVELS
from tissuetalk.models.segmentation.pathsegmentor.card import OBJECT_TARGETS, TARGET_MPP
from tissuetalk.models.training.recipes import MiniRecipe

STRIDE = 2
"""Answers are compared at the model's own stride."""
SEEN_FRACTION = 0.002
"""A target with less than this share of the crop is neither present nor absent."""
AIMED = 0.4
"""Share of crops that are aimed at their target, where the recipe says nothing."""
JITTERED_SHARE = 0.6
"""Share of the crops in another source's staining that are jittered on top."""
MILD = Strength(gain=0.25, turn=0.06, offset=0.06, channel=0.1)


@dataclass(frozen=True)
class Batch:
    """B crops with S = group size + 1 questions each; the first K questions of a crop share one target.

    tiles: [B, 3, H, W] pixels. text: [B, S, 384]. mask, mask_known, distance, distance_known: [B, S, h, w] in 0..1.
    presence, presence_known: [B, S]. scale, scale_known, tissue: [B], scale as log2 of µm per pixel.
    objects: [B, S], 1 where separate objects are asked for. again: the tiles in another staining, where somebody teaches.
    """

    tiles: Tensor
    text: Tensor
    mask: Tensor
    mask_known: Tensor
    distance: Tensor
    distance_known: Tensor
    presence: Tensor
    presence_known: Tensor
    scale: Tensor
    scale_known: Tensor
    tissue: Tensor
    objects: Tensor
    again: Tensor | None = None

    def to(self, place: torch.device) -> Batch:
        """The same batch where the network is; from pinned memory without waiting for it."""
        return self._each(lambda part: part.to(place, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU copies from by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(part) for name, part in parts.items() if part is not None})


@dataclass(frozen=True)
class CropTruth:
    """What is right for one target on one crop, at the model's stride."""

    mask: NDArray[np.float32]
    known: NDArray[np.float32]
    distance: NDArray[np.float32]
    distance_known: bool
    presence: float | None


class Sampler:
    """Draws batches. The same seed and step always give the same batch, so a resumed run goes on as if never stopped.

    sentences: target to level to [N, 384] sentence vectors. unlabelled: tissue whose staining crops may take on, and which a
    teacher may teach on.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        recipe: MiniRecipe,
        sentences: dict[str, dict[str, NDArray[np.float32]]],
        unlabelled: Sequence[Example] = (),
    ) -> None:
        self.recipe, self.sentences, self.strength = recipe, sentences, Strength()
        self.spread = StainSpread([*examples, *unlabelled]) if recipe.stain_spread else None
        self.unlabelled = [each for each in unlabelled if each.dataset in recipe.unlabelled_mpp]
        self.pools: list[list[Example]] = []
        self.targets: list[str] = []
        shares: list[float] = []
        for entry, share in recipe.mix.items():
            dataset, _, target = entry.partition("/")
            here = [example for example in examples if example.dataset == dataset]
            pool = [example for example in here if target in example.targets]
            # Images that surely lack the target teach its absence from within the same set.
            pool += [e for e in here if target in e.absent and target not in e.targets]
            if pool:
                self.pools.append(pool)
                self.targets.append(target)
                shares.append(share)
        self.shares = np.array(shares) / sum(shares)
        self.counter = [example for example in examples if not example.tissue]
        self._centres: dict[tuple[int, str], NDArray[np.int64]] = {}

    def told(self, recipe: MiniRecipe) -> Sampler:
        """One of another recipe with the same mix, over the same examples."""
        other = copy(self)
        other.recipe = recipe
        return other

    def batch(self, step: int) -> Batch:
        """The batch of one training step."""
        rng = np.random.default_rng((self.recipe.seed, step))
        crops = [self._crop(rng) for _ in range(self.recipe.batch)]
        return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*crops, strict=True)))

    def _choose(self, rng: np.random.Generator) -> tuple[Example, str]:
        if self.counter and rng.random() < self.recipe.counter_share:
            return self.counter[rng.integers(len(self.counter))], str(rng.choice(list(self.sentences)))
        index = int(rng.choice(len(self.pools), p=self.shares))
        distil = self.recipe.distil
        if distil is not None and self.unlabelled and rng.random() < distil.unlabelled_share:
            return self.unlabelled[rng.integers(len(self.unlabelled))], self.targets[index]
        return self.pools[index][rng.integers(len(self.pools[index]))], self.targets[index]

    def _crop(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        example, target = self._choose(rng)
        side = self.recipe.crop_px
        zoom = float(np.exp(rng.uniform(-self.recipe.zoom, self.recipe.zoom)))
        if target in self.recipe.wide_scales and rng.random() < self.recipe.wide_share:
            fine, coarse = (np.log(TARGET_MPP[target] / mpp) for mpp in self.recipe.wide_scales[target])
            zoom = float(np.exp(rng.uniform(coarse, fine)))
        centre = self._centre(example, target, rng)
        matrix = affine(centre, example.mpp / TARGET_MPP[target] * zoom, side, rng)
        image, hidden = self._look(example, matrix, rng)
        main = self._answer(example, target, matrix, hidden)
        # The last question is another target: without it the network could answer every crop with its only label.
        other = self._other(example, target, rng)
        answers = [main] * self.recipe.group_size + [self._answer(example, other, matrix, hidden)]
        names = [target] * self.recipe.group_size + [other]
        text = self._text(names, rng)
        presence = [answer.presence for answer in answers]
        columns: tuple[NDArray[np.float32], ...] = (
            np.ascontiguousarray(image.transpose(2, 0, 1), np.float32),
            text,
            np.stack([answer.mask for answer in answers]),
            np.stack([answer.known for answer in answers]),
            np.stack([answer.distance for answer in answers]),
            np.stack([answer.known * answer.distance_known for answer in answers]),
            np.array([value or 0.0 for value in presence], np.float32),
            np.array([value is not None for value in presence], np.float32),
            np.array(np.log2(TARGET_MPP[target] / zoom), np.float32),
            np.array(example.scale_known, np.float32),
            np.array(example.tissue, np.float32),
            np.array([name in OBJECT_TARGETS for name in names], np.float32),
        )
        if self.recipe.distil is not None:
            again = stain(image, rng, self.strength)
            columns += (np.ascontiguousarray(again.transpose(2, 0, 1), np.float32),)
        return columns

    def _other(self, example: Example, target: str, rng: np.random.Generator) -> str:
        """Another target to ask for: one that is annotated or surely absent, and of what only a teacher knows, too, where there is one."""
        asked = [name for name in (*example.targets, *example.absent) if name in self.sentences]
        others = [name for name in asked if name != target]
        if (distil := self.recipe.distil) is not None and (not others or rng.random() < distil.unasked):
            mpp = TARGET_MPP[target]
            near = [name for name in self.sentences if mpp / 2 <= TARGET_MPP[name] <= mpp * 2]
            others = [name for name in near if name not in asked and name != target] or others
        return str(rng.choice(others)) if others else target

    def _look(
        self, example: Example, matrix: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[Pixels, NDArray[np.bool_] | None]:
        """The crop in other colours, and what an artefact hides on it."""
        image = warp(example.image, matrix, self.recipe.crop_px, smooth=True)
        if rng.random() < self.strength.plain:
            return image, None
        if self.spread is not None and example.tissue and rng.random() < self.recipe.stain_spread:
            image = self.spread.move(image, example, rng)
            if rng.random() < JITTERED_SHARE:
                image = stain(image, rng, MILD)
        else:
            image = stain(image, rng, self.strength)
        hidden = None
        if self.recipe.artefacts:
            image, hidden = artefacts(image, rng, self.recipe.artefacts)
        return optics(image, rng, self.strength), hidden

    def _centre(self, example: Example, target: str, rng: np.random.Generator) -> tuple[float, float]:
        """A point to look at, in a share of crops where the target is."""
        height, width = example.image.shape[:2]
        key = (id(example), target)
        if key not in self._centres:
            label = example.targets.get(target)
            rows, columns = np.nonzero(label.label[::4, ::4] == FOREGROUND) if label is not None else ((), ())
            # Every fourth pixel is enough to aim by, and a list of all of them is not small.
            found = np.stack([np.asarray(columns), np.asarray(rows)], axis=1)
            self._centres[key] = found.astype(np.int64) * 4
        seen = self._centres[key]
        if len(seen) and rng.random() < self.recipe.aimed.get(target, AIMED):
            x, y = seen[rng.integers(len(seen))] + rng.uniform(-40, 40, 2)
            return float(np.clip(x, 0, width)), float(np.clip(y, 0, height))
        return float(rng.uniform(0.15, 0.85) * width), float(rng.uniform(0.15, 0.85) * height)

    def _answer(
        self,
        example: Example,
        target: str,
        matrix: NDArray[np.float32],
        hidden: NDArray[np.bool_] | None,
    ) -> CropTruth:
        side, small = self.recipe.crop_px, self.recipe.crop_px // STRIDE
        labelled = example.targets.get(target)
        if labelled is None:
            nothing = np.zeros((small, small), np.float32)
            certain = target in example.absent
            return CropTruth(nothing, nothing + certain, nothing, False, 0.0 if certain else None)
        label = warp(labelled.label, matrix, side, smooth=False)
        if hidden is not None and target in OBJECT_TARGETS:  # a region goes on below a pen's line
            label[hidden] = BACKGROUND
        mask = _shrink((label == FOREGROUND).astype(np.float32))
        # A block with a single unknown pixel is unknown.
        known = (_shrink((label == UNKNOWN).astype(np.float32)) == 0).astype(np.float32)
        distance: NDArray[np.float32] = np.zeros_like(mask)
        if labelled.distance is not None:
            depth = warp(labelled.distance, matrix, side, smooth=True).astype(np.float32)
            if hidden is not None:
                depth[hidden] = 0
            distance = _shrink(depth) / np.float32(255)
        deep = labelled.distance is not None and target in OBJECT_TARGETS
        return CropTruth(mask, known, distance, deep, _presence(labelled, label))

    def _text(self, names: Sequence[str], rng: np.random.Generator) -> NDArray[np.float32]:
        levels = rng.permutation(len(LEVELS))
        rows = []
        for index, name in enumerate(names):
            bank = self.sentences[name][LEVELS[levels[index % len(LEVELS)]]]
            rows.append(bank[rng.integers(len(bank))])
        text = np.stack(rows)
        return np.asarray(text + rng.normal(0, self.recipe.text_noise, text.shape), np.float32)


def _shrink(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = plane.shape
    blocks = plane.reshape(height // STRIDE, STRIDE, width // STRIDE, STRIDE)
    return np.asarray(blocks.mean((1, 3)), np.float32)


def _presence(labelled: Labelled, label: Pixels) -> float | None:
    if labelled.present is not None:
        return float(labelled.present)
    share = float((label == FOREGROUND).mean())
    if share >= SEEN_FRACTION:
        return 1.0
    return 0.0 if share == 0 and bool((label == BACKGROUND).all()) else None
