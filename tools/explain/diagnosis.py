"""What a diagnosis classifier says about the segmented region and what it relied on: by blurring objects, or by their shares.

A classifier is a research model; its answer is evidence to look at and no diagnosis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tissuetalk.models.classifiers.activation_maps import patch_map
from tissuetalk.models.classifiers.bags import Mask as Painted
from tissuetalk.models.classifiers.bags import ObjectMask, SourceBag
from tissuetalk.models.classifiers.card import ClassifierCard, ClassifierFile
from tissuetalk.models.classifiers.classifier import (
    Classifier,
    ObjectClassifier,
    ObjectPrediction,
    bag_of,
    load_any,
    named_classifier,
    predict_bag,
    predict_objects,
)
from tissuetalk.models.classifiers.importance import BagImportance, ObjectImportance, bag_importance
from tissuetalk.models.control import Control
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB
from tissuetalk.tools.answers.explained import ClassifierEvidence, ObjectEvidence, PatchEvidence
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.drawing.drawing import DrawnMask
from tissuetalk.tools.drawing.sheet import Bar, Panel, bars, marked, row
from tissuetalk.tools.explain import windows
from tissuetalk.tools.explain.activation_pictures import (
    evidence_picture,
    map_panel,
    patches_painted,
    view_of_image,
)
from tissuetalk.tools.storage.result_folder import ResultFolder

Change = Callable[[RGB, Painted], RGB]
"""A patch and where an object is in it, to the patch without it."""
Probabilities = dict[str, float]
WIDTH = 1000
MOST_PATCHES = 20
"""In an answer."""


class ChangedBag(SourceBag):
    """The patches of a bag with one object changed wherever it is."""

    def __init__(self, bag: SourceBag, changed: str, change: Change) -> None:
        # the same source, boxes and masks: only what is seen of them differs
        vars(self).update(vars(bag))
        self._changed, self._change = changed, change

    def pixels(self, index: int) -> RGB:
        pixels, mask = super().pixels(index), self.mask(index, self._changed)
        return pixels if mask is None else self._change(pixels, mask)


@dataclass(frozen=True)
class Consultation:
    """What a classifier said. names: of its objects, by mask id. after: probabilities with an object changed."""

    answer: ClassifierEvidence
    picture: Image.Image
    names: Mapping[str, str]
    after: Callable[[str, Change], Probabilities]

    def without(self, mask: Mask, change: Change) -> tuple[Probabilities, Probabilities] | None:
        """Before and after; None for a mask the classifier was not shown."""
        name = self.names.get(mask.mask_id)
        return None if name is None else (self.answer.probabilities, self.after(name, change))


def consult(
    classifier: str | Path | ClassifierFile,
    folder: ResultFolder,
    source: ImageSource,
    control: Control = Control(),
) -> Consultation:
    """Ask a classifier about the segmented region.

    Raises InvalidArgumentError for too few patches or objects that were never segmented, ModelUnavailableError for a
    classifier that is damaged or made for another encoder or other classes, CancelledError.
    """
    loaded = named_classifier(classifier) if isinstance(classifier, str) else load_any(classifier)
    if isinstance(loaded, Classifier):
        return _by_blurring(loaded, folder, source, control)
    return _by_shares(loaded, folder, source, control)


def _bag(
    card: ClassifierCard, folder: ResultFolder, source: ImageSource, names: Mapping[str, str]
) -> SourceBag:
    """The region's patches with the masks that have a name; masks of one name are one object."""
    result, merged = folder.result(), dict[str, Painted]()
    image, region = result.image, Box.from_sequence(result.image.region)
    for mask in result.masks:
        if (name := names.get(mask.mask_id)) is not None:
            painted = windows.looked_over(windows.layer_of(folder, mask))
            merged[name] = painted | merged[name] if name in merged else painted
    masks = [ObjectMask(name, painted, region) for name, painted in merged.items()]
    # an assumed scale would cut patches of a wrong size: then the card's size in pixels counts
    return bag_of(card, source, masks, mpp=image.known_mpp, region=region)


def _by_blurring(
    loaded: Classifier, folder: ResultFolder, source: ImageSource, control: Control
) -> Consultation:
    """Route A: which object's blurring costs the classifier most (spec explain.md, section 4)."""
    result = folder.result()
    names = {mask.mask_id: mask.name for mask in result.masks if mask.found}
    bag = _bag(loaded.card, folder, source, names)
    found = bag_importance(loaded, bag, control=control)

    def after(changed: str, change: Change) -> Probabilities:
        prediction = predict_bag(loaded, ChangedBag(bag, changed, change), control)
        return _named(loaded.card, prediction.probabilities)

    answer = importance_answer(loaded.card, found, len(bag))
    told = found.prediction
    added = told.contributions[:, found.label]
    answer = answer.model_copy(update={"strongest_patches": _strongest(bag.boxes, added, told.attention)})
    return Consultation(answer, _importance_picture(loaded, found, bag, source, folder), names, after)


def _by_shares(
    loaded: ObjectClassifier, folder: ResultFolder, source: ImageSource, control: Control
) -> Consultation:
    """Route B: each object's share of the logit (spec explain.md, sections 5 and 6)."""
    result = folder.result()
    # masks that found nothing count, too: "not there" is an answer, "nobody looked" is refused
    names = {mask.mask_id: _wanted_name(mask, loaded) for mask in result.masks}
    bag = _bag(loaded.card, folder, source, names)
    evidence = predict_objects(loaded, bag, control=control)

    def after(changed: str, change: Change) -> Probabilities:
        told = predict_objects(loaded, ChangedBag(bag, changed, change), control=control)
        return _named(loaded.card, told.probabilities)

    answer = shares_answer(loaded.card, evidence)
    # over its objects: all of them and the offset add up to the logit
    added = evidence.shares.fine.sum(axis=1)
    answer = answer.model_copy(update={"strongest_patches": _strongest(bag.boxes, added, None)})
    picture = evidence_picture(evidence, view_of_image(source, bag.boxes, result.image.known_mpp))
    return Consultation(answer, picture, names, after)


def _strongest(
    boxes: Sequence[Box], added: NDArray[np.floating], attention: NDArray[np.floating] | None
) -> list[PatchEvidence]:
    order = np.argsort(-(added if attention is None else attention), kind="stable")[:MOST_PATCHES]
    return [
        PatchEvidence(
            box=boxes[index].as_list(),
            attention=None if attention is None else round(float(attention[index]), 6),
            contribution=round(float(added[index]), 6),
        )
        for index in order.tolist()
    ]


def _wanted_name(mask: Mask, loaded: ObjectClassifier) -> str:
    """What the classifier calls it, where it knows it by any of its names."""
    own = [mask.label, mask.target, mask.free_form, mask.evidence]
    known = {name.casefold(): name for name in loaded.wanted}
    return next((known[name.casefold()] for name in own if name and name.casefold() in known), mask.name)


def _named(card: ClassifierCard, values: Sequence[float]) -> Probabilities:
    return {label: round(float(value), 4) for label, value in zip(card.classes, values, strict=True)}


def importance_answer(card: ClassifierCard, found: BagImportance, patches: int) -> ClassifierEvidence:
    """Route A in words: the probability first, because the ratio of losses of a sure classifier says little."""
    ranked = found.ranked()
    shares = [
        ObjectEvidence(
            name=each.name,
            contribution=None,
            importance=round(each.importance, 4),
            control=None if blur is None else round(blur.importance, 4),
            probability_after=round(each.probability_after, 4),
            control_probability_after=None if blur is None else round(blur.probability_after, 4),
            area_fraction=round(each.area_fraction, 5),
            rank=rank,
        )
        for rank, (each, blur) in enumerate(((each, each.control) for each in ranked), start=1)
    ]
    told, label = found.prediction.probabilities, found.label
    why = f"; {_blurring(card.classes[label], told[label], ranked[0])}" if ranked else ""
    return _answer(card, label, told, patches, shares, why)


def _blurring(predicted: str, before: float, top: ObjectImportance) -> str:
    said = (
        f"blurring {top.name} takes “{predicted}” from {before:.2f} to {top.probability_after:.2f} "
        f"(its loss times {top.importance:.1f})"
    )
    if top.control is None:
        return said
    said += f"; as many pixels blurred at random, to {top.control.probability_after:.2f}"
    return (
        said if top.specific else f"{said}: they do at least as much, so this is not specific to {top.name}"
    )


def shares_answer(card: ClassifierCard, evidence: ObjectPrediction) -> ClassifierEvidence:
    """Route B in words. Contributions and the bias add up to the logit of the predicted class."""
    found = evidence.shares
    shares = [
        ObjectEvidence(
            name=each.name,
            contribution=round(each.share, 6),
            importance=None,
            control=None,
            area_fraction=round(each.area_fraction, 5),
            rank=each.rank,
        )
        for each in found.ranking
    ]
    why = (
        f"; most for it speaks {shares[0].name}, which adds {shares[0].contribution:+.2f} to its logit of "
        f"{found.logit:.2f} (all shares and the classifier's offset of {found.bias:+.2f} add up to it)"
    )
    answer = _answer(card, evidence.label, evidence.probabilities, len(evidence.patches), shares, why)
    return answer.model_copy(update={"logit": round(found.logit, 6), "bias": round(found.bias, 6)})


def _answer(
    card: ClassifierCard,
    label: int,
    probabilities: Sequence[float],
    patches: int,
    shares: list[ObjectEvidence],
    why: str,
) -> ClassifierEvidence:
    said = f"“{card.classes[label]}” ({probabilities[label]:.2f}) from {patches} patches"
    return ClassifierEvidence(
        classifier=card.name,
        predicted=card.classes[label],
        probabilities=_named(card, probabilities),
        patches=patches,
        objects=shares,
        method="shares of objects" if card.kind == "object-aware" else "blurring objects",
        trained_on=card.training,
        metrics={key: str(value) for key, value in card.metrics.items()},
        statement=f"classifier {card.name} says {said}{why}. A research model's answer, not a diagnosis.",
    )


def _importance_picture(
    loaded: Classifier, found: BagImportance, bag: SourceBag, source: ImageSource, folder: ResultFolder
) -> Image.Image:
    """The tissue with its objects, the map of patches, and what the blurring of each object costs."""
    result = folder.result()
    view = view_of_image(source, bag.boxes, result.image.known_mpp, longest_px=330)
    predicted = loaded.card.classes[found.label]
    shown = patches_painted(view, patch_map(loaded.model, found.prediction.vectors, found.label).values)
    height, width = view.pixels.shape[:2]
    outlines = []
    for number, mask in enumerate([mask for mask in result.masks if mask.found], start=1):
        labels = windows.layer_of(folder, mask).labels.sample(view.box, width, height)
        outlines.append(DrawnMask(labels, mask.colour, f"{number}  {mask.name}", number))
    probability = found.prediction.probabilities[found.label]
    picture = marked(view.pixels, outlines, view.um_per_px)
    keys = tuple((each.colour, each.caption) for each in outlines)
    tissue = Panel(picture, f"says “{predicted}” ({probability:.2f})", keys=keys)
    panels = [tissue, map_panel(view, shown, "what each patch adds")]
    rows = [Bar("as it is", probability, f"{probability:.2f}")]
    for each in found.ranked()[:8]:
        told = f"{each.probability_after:.2f} (loss x{each.importance:.1f})"
        rows.append(Bar(each.name, each.probability_after, told, "#c8141e"))
        if each.control is not None:
            after = each.control.probability_after
            rows.append(Bar("  random blur", after, f"{after:.2f}", "#9a9a9a"))
    room = max(WIDTH - sum(panel.picture.width + 10 for panel in panels), 260)
    title = f"“{predicted}” when an object is blurred"
    return row([*panels, bars(title, rows, room, low=0, high=1, foot="probability")])
