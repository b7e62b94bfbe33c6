"""Which segmented objects a slide classifier relies on: blur each, look again, compare (route A, explain.md section 4).

Only patches that an object touches are encoded again; the vectors of all others are those of the untouched slide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from tissuetalk.models.classifiers.bags import Mask, PatchBag
from tissuetalk.models.classifiers.classifier import Classifier, Prediction, predict_bag, predict_vectors
from tissuetalk.models.classifiers.encoder import BATCH, encode_patches
from tissuetalk.models.classifiers.networks import AttentionMIL
from tissuetalk.models.classifiers.patches import PATCH_PX, PATCH_UM, stained
from tissuetalk.models.control import Control
from tissuetalk.models.segmenter import RGB

SIGMA_PX = 20.0
"""Of the Gaussian, in pixels of 0.25 µm: 5 µm of tissue, whatever the size of a patch."""
SURE = 0.99
LEAST_LOSS = -math.log(SURE)
"""Floor of a single slide's losses in ratios. A loss below it is a probability above 0.99, where a ratio says nothing:
from 0.9999 to 0.93 the loss grows 500-fold."""
MEAN_FLOOR = 1e-4
"""Floor of the untouched loss when ratios of single slides are averaged, as in the paper."""
ControlPlace = Literal["any patch", "same patches"]
"""Random pixels anywhere in the slide's tissue, or in the very patches that hold the object (harder to beat)."""
_TRIES = 8


def loss_ratio(after: float, before: float) -> float:
    """How many times the loss of one slide grew, both floored; 1 is no effect."""
    return max(after, LEAST_LOSS) / max(before, LEAST_LOSS)


@dataclass(frozen=True)
class RandomBlur:
    """The control: the same number of pixels blurred at random. importance, loss_after: mean over draws."""

    importance: float
    loss_after: float
    draws: int
    place: ControlPlace
    encoder_passes: int

    @property
    def probability_after(self) -> float:
        """Of the class in question; over several draws their geometric mean."""
        return math.exp(-self.loss_after)


@dataclass(frozen=True)
class ObjectImportance:
    """What blurring one object did to one slide.

    importance: ``loss_ratio``; above 1 the classifier used the object. loss_after: without a floor.
    probability_after: of the class in question. flips: another class became the likeliest.
    area_fraction: blurred share of the patches' pixels. encoder_passes: patches encoded again, control not counted.
    """

    name: str
    importance: float
    loss_after: float
    probability_after: float
    flips: bool
    area_fraction: float
    patches_touched: int
    encoder_passes: int
    control: RandomBlur | None

    @property
    def specific(self) -> bool:
        """It costs the classifier more than as many pixels blurred at random."""
        return self.control is None or self.loss_after > self.control.loss_after


@dataclass(frozen=True)
class BagImportance:
    """One slide. label: the class the loss is taken against; label_known: it is the true one, not the prediction itself."""

    name: str
    label: int
    label_known: bool
    prediction: Prediction
    loss: float
    sigma_px: float
    objects: tuple[ObjectImportance, ...]

    def ranked(self) -> list[ObjectImportance]:
        """Most important first, by loss: it tells objects apart that the floor of the ratio does not."""
        return sorted(self.objects, key=lambda found: found.loss_after, reverse=True)


def loss_of(model: AttentionMIL, vectors: Tensor, label: int) -> float:
    """Cross-entropy against one class, in double precision: a sure classifier's loss is small, not 0."""
    with torch.inference_mode():
        logits = model(vectors).double()
        return float(torch.logsumexp(logits - logits[label], 0).clamp_min(1e-12))


def blurred_where(patch: RGB, mask: Mask, sigma_px: float = SIGMA_PX, *, width_um: float = PATCH_UM) -> RGB:
    """[S, S, 3] with the masked pixels replaced by those of the blurred patch; the edge of the mask is hard.

    sigma_px: in pixels of 0.25 µm. width_um: what the patch spans; by default 256 µm, where it is 1024 such pixels.
    """
    sigma = sigma_px * (PATCH_UM / PATCH_PX) * patch.shape[0] / width_um
    soft = cv2.GaussianBlur(patch, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.where(mask[..., None], soft, patch).astype(np.uint8)


def bag_importance(
    classifier: Classifier,
    bag: PatchBag,
    *,
    label: int | str | None = None,
    sigma_px: float = SIGMA_PX,
    draws: int = 1,
    place: ControlPlace = "any patch",
    seed: int = 0,
    control: Control = Control(),
) -> BagImportance:
    """Blur every object of a bag in turn. Raises CancelledError, and InvalidArgumentError for a class that does not exist.

    label: the true class; without it the class that was predicted, and the answer then tells what speaks for that.
    draws: random-blur controls of equal area for every object; 0 leaves them out.
    """
    number = None if label is None else classifier.card.class_number(label)
    before = predict_bag(classifier, bag, control)
    against = before.label if number is None else number
    slide = _Slide(classifier, bag, before, against, sigma_px, control)
    random = np.random.default_rng(seed)
    found = tuple(slide.importance(name, draws, place, random) for name in bag.objects)
    return BagImportance(bag.name, against, number is not None, before, slide.loss, sigma_px, found)


def control_of(
    classifier: Classifier,
    bag: PatchBag,
    found: BagImportance,
    name: str,
    *,
    draws: int = 1,
    place: ControlPlace = "any patch",
    seed: int = 0,
) -> RandomBlur | None:
    """The control of one object of a bag that was explained already; None where the object is not there."""
    slide = _Slide(classifier, bag, found.prediction, found.label, found.sigma_px, Control())
    masks = slide.masks(name)
    return slide.random_blur(masks, draws, place, np.random.default_rng(seed)) if masks else None


@dataclass(frozen=True)
class _Slide:
    """Everything that stays the same while objects are blurred."""

    classifier: Classifier
    bag: PatchBag
    before: Prediction
    label: int
    sigma_px: float
    control: Control

    @property
    def loss(self) -> float:
        return loss_of(self.classifier.model, self.before.vectors, self.label)

    def masks(self, name: str) -> dict[int, Mask]:
        """An object's masks by the patches it touches."""
        return {i: mask for i in range(len(self.bag)) if (mask := self.bag.mask(i, name)) is not None}

    def blurred(self, masks: Mapping[int, Mask]) -> Tensor:
        """[N, d] vectors of the slide with these pixels of these patches blurred."""
        # what is not blurred keeps its vector: only touched patches pay for an encoding
        vectors, touched, card = self.before.vectors.clone(), sorted(masks), self.classifier.card
        for start in range(0, len(touched), BATCH):
            some = touched[start : start + BATCH]
            patches = [
                blurred_where(self.bag.pixels(i), masks[i], self.sigma_px, width_um=self.bag.width_um(i))
                for i in some
            ]
            vectors[some] = encode_patches(self.classifier.encoder, patches, card.feature, self.control)
        return vectors

    def importance(
        self, name: str, draws: int, place: ControlPlace, random: np.random.Generator
    ) -> ObjectImportance:
        masks = self.masks(name)
        if not masks:
            share = self.before.probabilities[self.label]
            # an object that is nowhere changes nothing, by definition and not by measurement
            return ObjectImportance(name, 1.0, self.loss, share, False, 0.0, 0, 0, None)
        vectors = self.blurred(masks)
        after = predict_vectors(self.classifier.model, vectors)
        loss = loss_of(self.classifier.model, vectors, self.label)
        return ObjectImportance(
            name=name,
            importance=loss_ratio(loss, self.loss),
            loss_after=loss,
            probability_after=after.probabilities[self.label],
            flips=after.label != self.before.label,
            area_fraction=sum(float(mask.mean()) for mask in masks.values()) / len(self.bag),
            patches_touched=len(masks),
            encoder_passes=len(masks),
            control=self.random_blur(masks, draws, place, random) if draws else None,
        )

    def random_blur(
        self, masks: dict[int, Mask], draws: int, place: ControlPlace, random: np.random.Generator
    ) -> RandomBlur:
        losses, passes = [], 0
        for _ in range(draws):
            drawn = moved_masks(self.bag, masks, place, random)
            passes += len(drawn)
            losses.append(loss_of(self.classifier.model, self.blurred(drawn), self.label))
        mean = float(np.mean(losses))
        return RandomBlur(loss_ratio(mean, self.loss), mean, draws, place, passes)


def moved_masks(
    bag: PatchBag, masks: Mapping[int, Mask], place: ControlPlace, random: np.random.Generator
) -> dict[int, Mask]:
    """An object's masks shifted and turned at random: the same pixels in number and clumping, but not on the object.

    Of eight random positions the one that lies most on tissue is taken.
    """
    if place == "same patches":
        homes = sorted(masks)
    else:
        # without replacement: two masks in one patch would overlap and blur fewer pixels
        homes = [int(i) for i in random.choice(len(bag), size=len(masks), replace=False)]
    moved = {}
    for home, (_, mask) in zip(homes, sorted(masks.items()), strict=True):
        tissue = stained(bag.pixels(home))
        side = tissue.shape[0]
        if mask.shape[0] != side:
            mask = cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0
        tries = []
        for _ in range(_TRIES):
            turned = np.rot90(mask, int(random.integers(4)))
            shift = tuple(int(step) for step in random.integers(mask.shape[0], size=2))
            # rolled, not shifted out of the patch: the number of blurred pixels stays the same
            tries.append(np.roll(turned, shift, axis=(0, 1)))
        moved[home] = max(tries, key=lambda drawn: int((drawn & tissue).sum()))
    return moved


@dataclass(frozen=True)
class ClassImportance:
    """One object over the slides of one class (None: all classes together).

    ratio_of_means: mean loss after over mean loss before, the figure to quote. median_ratio, mean_ratio: of single slides, the
    latter with the untouched loss floored at 1e-4. control: ratio of means of the random blur, None when it was not drawn.
    slides: those on which the object was found.
    """

    name: str
    label: int | None
    ratio_of_means: float
    median_ratio: float
    mean_ratio: float
    control: float | None
    area_fraction: float
    slides: int


def by_class(bags: Sequence[BagImportance]) -> list[ClassImportance]:
    """Aggregates over slides, for every object: each class for itself, then all together."""
    names = list(dict.fromkeys(found.name for bag in bags for found in bag.objects))
    labels: list[int | None] = [*sorted({bag.label for bag in bags}), None]
    table = []
    for name in names:
        for label in labels:
            named = ((bag, found) for bag in bags for found in bag.objects if found.name == name)
            rows = [(b, found) for b, found in named if label in (None, b.label) and found.patches_touched]
            if not rows:
                continue
            before = np.array([bag.loss for bag, _ in rows])
            after = np.array([found.loss_after for _, found in rows])
            drawn = [(bag.loss, found.control.loss_after) for bag, found in rows if found.control]
            blur = sum(loss for _, loss in drawn) / sum(loss for loss, _ in drawn) if drawn else None
            row = ClassImportance(
                name=name,
                label=label,
                ratio_of_means=float(after.mean() / before.mean()),
                median_ratio=float(np.median(after / before)),
                mean_ratio=float(np.mean(after / np.maximum(before, MEAN_FLOOR))),
                control=blur,
                area_fraction=float(np.mean([found.area_fraction for _, found in rows])),
                slides=len(rows),
            )
            table.append(row)
    return table
