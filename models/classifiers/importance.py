"""Which segmented objects a slide classifier relies on: blur each, look again, compare the loss (route A, explain.md section 4).

Only patches that an object touches are encoded again; the vectors of all others are those of the untouched slide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tissuetalk.models.classifiers.blur import SIGMA_PX, blurred_where
from tissuetalk.models.classifiers.classifier import (
    Classifier,
    Prediction,
    bag_of,
    predict_bag,
    predict_vectors,
)
from tissuetalk.models.classifiers.controls import ControlPlace, moved_masks
from tissuetalk.models.classifiers.mil import AttentionMIL
from tissuetalk.models.classifiers.patch_bag import Mask, ObjectMask, PatchBag, width_um
from tissuetalk.models.classifiers.patch_encoder import BATCH, encode_patches
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource

LEAST_LOSS = 1e-4
"""Floor of the untouched loss when ratios of single slides are averaged."""


@dataclass(frozen=True)
class Control:
    """The same number of pixels blurred at random. importance: mean over draws. place: where the pixels were drawn."""

    importance: float
    loss_after: float
    draws: int
    place: ControlPlace
    encoder_passes: int


@dataclass(frozen=True)
class ObjectImportance:
    """What blurring one object did to one slide.

    importance: loss afterwards over loss before; 1 no effect, above 1 the classifier used the object.
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
    control: Control | None


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
        """Most important first."""
        return sorted(self.objects, key=lambda found: found.importance, reverse=True)


def loss_of(model: AttentionMIL, vectors: Tensor, label: int) -> float:
    """Cross-entropy against one class, in double precision: a sure classifier's loss is small, not 0."""
    with torch.inference_mode():
        logits = model(vectors).double()
        return float(torch.logsumexp(logits - logits[label], 0).clamp_min(1e-12))


def bag_importance(
    classifier: Classifier,
    bag: PatchBag,
    *,
    label: int | None = None,
    sigma_px: float = SIGMA_PX,
    draws: int = 1,
    place: ControlPlace = "any patch",
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> BagImportance:
    """Blur every object of a bag in turn.

    label: the true class; without it the class that was predicted, and the answer then tells what speaks for that.
    draws: random-blur controls of equal area for every object; 0 leaves them out.
    """
    classes = classifier.card.classes
    if label is not None and not 0 <= label < len(classes):
        raise InvalidArgumentError(
            f"class {label} does not exist; {classifier.card.name} has 0 to {len(classes) - 1}: {', '.join(classes)}."
        )
    before = predict_bag(classifier, bag, stop=stop)
    against = before.label if label is None else label
    slide = _Slide(classifier, bag, before, against, sigma_px, stop)
    random = np.random.default_rng(seed)
    found = tuple(slide.importance(name, draws, place, random) for name in bag.objects)
    return BagImportance(bag.name, against, label is not None, before, slide.loss, sigma_px, found)


def importance_of(
    classifier: Classifier,
    source: ImageSource,
    masks: Sequence[ObjectMask],
    *,
    mpp: float | None = None,
    region: Box | None = None,
    label: int | None = None,
    sigma_px: float = SIGMA_PX,
    draws: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> BagImportance:
    """The same for the objects segmented on an image."""
    bag = bag_of(classifier.card, source, masks, mpp=mpp, region=region)
    return bag_importance(classifier, bag, label=label, sigma_px=sigma_px, draws=draws, stop=stop)


def control_of(
    classifier: Classifier,
    bag: PatchBag,
    found: BagImportance,
    name: str,
    *,
    draws: int = 1,
    place: ControlPlace = "any patch",
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Control | None:
    """The control of one object of a bag that was explained already; None where the object is not there."""
    slide = _Slide(classifier, bag, found.prediction, found.label, found.sigma_px, stop)
    masks = slide.masks(name)
    return slide.control(masks, draws, place, np.random.default_rng(seed)) if masks else None


@dataclass(frozen=True)
class _Slide:
    """Everything that stays the same while objects are blurred."""

    classifier: Classifier
    bag: PatchBag
    before: Prediction
    label: int
    sigma_px: float
    stop: Callable[[], bool]

    @property
    def loss(self) -> float:
        return loss_of(self.classifier.model, self.before.vectors, self.label)

    def masks(self, name: str) -> dict[int, Mask]:
        """An object's masks by the patches it touches."""
        return {i: mask for i in range(len(self.bag)) if (mask := self.bag.mask(i, name)) is not None}

    def blurred(self, masks: dict[int, Mask]) -> Tensor:
        """[N, d] vectors of the slide with these pixels of these patches blurred."""
        vectors = self.before.vectors.clone()
        touched = sorted(masks)
        for start in range(0, len(touched), BATCH):
            some = touched[start : start + BATCH]
            patches = [
                blurred_where(self.bag.pixels(i), masks[i], self.sigma_px, width_um=width_um(self.bag, i))
                for i in some
            ]
            vectors[some] = encode_patches(
                self.classifier.encoder, patches, self.classifier.card.feature, stop=self.stop
            )
        return vectors

    def importance(
        self, name: str, draws: int, place: ControlPlace, random: np.random.Generator
    ) -> ObjectImportance:
        masks = self.masks(name)
        if not masks:
            share = self.before.probabilities[self.label]
            return ObjectImportance(name, 1.0, self.loss, share, False, 0.0, 0, 0, None)
        vectors = self.blurred(masks)
        after = predict_vectors(self.classifier.model, vectors)
        loss = loss_of(self.classifier.model, vectors, self.label)
        share = sum(float(mask.mean()) for mask in masks.values()) / len(self.bag)
        return ObjectImportance(
            name=name,
            importance=loss / self.loss,
            loss_after=loss,
            probability_after=after.probabilities[self.label],
            flips=after.label != self.before.label,
            area_fraction=share,
            patches_touched=len(masks),
            encoder_passes=len(masks),
            control=self.control(masks, draws, place, random) if draws else None,
        )

    def control(
        self, masks: dict[int, Mask], draws: int, place: ControlPlace, random: np.random.Generator
    ) -> Control:
        losses, passes = [], 0
        for _ in range(draws):
            drawn = moved_masks(self.bag, masks, place, random)
            passes += len(drawn)
            losses.append(loss_of(self.classifier.model, self.blurred(drawn), self.label))
        mean = float(np.mean(losses))
        return Control(mean / self.loss, mean, draws, place, passes)


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
            rows = [
                (bag, found)
                for bag in bags
                if label in (None, bag.label)
                for found in bag.objects
                if found.name == name and found.patches_touched
            ]
            if rows:
                table.append(_aggregate(name, label, rows))
    return table


def _aggregate(
    name: str, label: int | None, rows: Sequence[tuple[BagImportance, ObjectImportance]]
) -> ClassImportance:
    before = np.array([bag.loss for bag, _ in rows])
    after = np.array([found.loss_after for _, found in rows])
    controlled = [(bag.loss, found.control.loss_after) for bag, found in rows if found.control is not None]
    return ClassImportance(
        name=name,
        label=label,
        ratio_of_means=float(after.mean() / before.mean()),
        median_ratio=float(np.median(after / before)),
        mean_ratio=float(np.mean(after / np.maximum(before, LEAST_LOSS))),
        control=sum(loss for _, loss in controlled) / sum(loss for loss, _ in controlled)
        if controlled
        else None,
        area_fraction=float(np.mean([found.area_fraction for _, found in rows])),
        slides=len(rows),
    )
