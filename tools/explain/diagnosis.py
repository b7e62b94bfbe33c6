"""What a diagnosis classifier says about the segmented region and what it relied on: by blurring objects, or by their shares.

A classifier is a research model; its answer is evidence to look at and no diagnosis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tissuetalk.models.classifiers.activation_maps import patch_map
from tissuetalk.models.classifiers.classifier import (
    Classifier,
    bag_of,
    classifiers,
    load_classifier,
    named_classifier,
    predict_bag,
)
from tissuetalk.models.classifiers.classifier_file import ClassifierCard, read_card
from tissuetalk.models.classifiers.importance import BagImportance, bag_importance
from tissuetalk.models.classifiers.object_classifier import (
    ObjectClassifier,
    ObjectEvidence,
    bag_evidence,
    load_object_classifier,
    named_object_classifier,
)
from tissuetalk.models.classifiers.patch_bag import Mask as Painted
from tissuetalk.models.classifiers.patch_bag import ObjectMask, PatchBag, SourceBag
from tissuetalk.models.control import Control, Stop
from tissuetalk.models.errors import ModelUnavailableError, OutsideRootsError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB
from tissuetalk.tools.answers.explained import ClassifierEvidence
from tissuetalk.tools.answers.explained import ObjectEvidence as Share
from tissuetalk.tools.answers.results import Mask, SegmentResult
from tissuetalk.tools.drawing.sheet import Bar, Marked, Panel, bars, marked, row
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


class ChangedBag:
    """The same patches with one object changed wherever it is."""

    def __init__(self, bag: PatchBag, changed: str, change: Change) -> None:
        self.name, self.objects = bag.name, bag.objects
        self._bag, self._changed, self._change = bag, changed, change

    def __len__(self) -> int:
        return len(self._bag)

    def pixels(self, index: int) -> RGB:
        pixels, mask = self._bag.pixels(index), self._bag.mask(index, self._changed)
        return pixels if mask is None else self._change(pixels, mask)

    def mask(self, index: int, name: str) -> Painted | None:
        return self._bag.mask(index, name)


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


def find(name: str, roots: Sequence[Path] | None) -> str | Path:
    """A listed classifier's name, or a file. roots: folders it may lie in; None allows any.

    Raises OutsideRootsError, and ModelUnavailableError which lists what there is.
    """
    known = classifiers()
    if name in known:
        return name
    if not name.endswith((".safetensors", ".json")):
        raise ModelUnavailableError(
            f"no classifier is called {name[:80]!r}; here are: {', '.join(known) or 'none'}. "
            "A trained one can be named by its .safetensors file in an allowed folder."
        )
    path = Path(name) if roots is None else (roots[0] / name)
    path = path.resolve()
    if roots is not None and not any(path.is_relative_to(root.resolve()) for root in roots):
        raise OutsideRootsError(f"{name[:200]!r} is not inside an allowed folder; put the classifier there.")
    if not path.is_file():
        raise ModelUnavailableError(
            f"there is no classifier file {name[:200]!r}; here are by name: {', '.join(known) or 'none'}."
        )
    return path.with_suffix(".safetensors")


def consult(
    classifier: str | Path, folder: ResultFolder, source: ImageSource, control: Control = Control()
) -> Consultation:
    """Ask a classifier about the segmented region.

    Raises InvalidArgumentError for too few patches or objects that were never segmented, ModelUnavailableError for a
    classifier that is damaged or made for another encoder or other classes, CancelledError.
    """
    result, stop = folder.result(), control.stop
    card = read_card(classifier) if isinstance(classifier, Path) else classifiers()[classifier]
    if card.kind == "object-aware":
        return _by_shares(classifier, folder, result, source, stop)
    return _by_blurring(classifier, folder, result, source, stop)


def _bag(
    card: ClassifierCard,
    folder: ResultFolder,
    result: SegmentResult,
    source: ImageSource,
    names: Mapping[str, str],
) -> SourceBag:
    """The region's patches with the masks that have a name; masks of one name are one object."""
    region, merged = Box.from_sequence(result.image.region), dict[str, Painted]()
    for mask_id, name in names.items():
        painted = folder.mask(mask_id)
        merged[name] = painted | merged[name] if name in merged else painted
    masks = [ObjectMask(name, painted, region) for name, painted in merged.items()]
    return bag_of(card, source, masks, mpp=result.image.known_mpp, region=region)


def _by_blurring(
    name: str | Path, folder: ResultFolder, result: SegmentResult, source: ImageSource, stop: Stop
) -> Consultation:
    """Route A: which object's blurring costs the classifier most (spec explain.md, section 4)."""
    loaded = load_classifier(name) if isinstance(name, Path) else named_classifier(name)
    names = {mask.mask_id: mask.name for mask in result.masks if mask.found}
    bag = _bag(loaded.card, folder, result, source, names)
    found = bag_importance(loaded, bag, stop=stop)

    def after(changed: str, change: Change) -> Probabilities:
        prediction = predict_bag(loaded, ChangedBag(bag, changed, change), stop=stop)
        return _named(loaded.card, prediction.probabilities)

    answer = _importance_answer(loaded.card, found, len(bag))
    return Consultation(answer, _importance_picture(loaded, found, bag, source, folder, result), names, after)


def _by_shares(
    name: str | Path, folder: ResultFolder, result: SegmentResult, source: ImageSource, stop: Stop
) -> Consultation:
    """Route B: each object's exact share of the logit (spec explain.md, sections 5 and 6)."""
    loaded = load_object_classifier(name) if isinstance(name, Path) else named_object_classifier(name)
    names = {mask.mask_id: _wanted_name(mask, loaded) for mask in result.masks}
    bag = _bag(loaded.card, folder, result, source, names)
    evidence = bag_evidence(loaded, bag, stop=stop)

    def after(changed: str, change: Change) -> Probabilities:
        return _named(
            loaded.card, bag_evidence(loaded, ChangedBag(bag, changed, change), stop=stop).probabilities
        )

    picture = evidence_picture(evidence, view_of_image(source, bag.boxes, result.image.known_mpp))
    return Consultation(_shares_answer(loaded.card, evidence, len(bag)), picture, names, after)


def _wanted_name(mask: Mask, loaded: ObjectClassifier) -> str:
    """What the classifier calls it, where it knows it by any of its names."""
    own = [mask.label, mask.target, mask.free_form, mask.evidence]
    known = {name.casefold(): name for name in loaded.wanted}
    return next((known[name.casefold()] for name in own if name and name.casefold() in known), mask.name)


def _named(card: ClassifierCard, values: Sequence[float]) -> Probabilities:
    return {label: round(float(value), 4) for label, value in zip(card.classes, values, strict=True)}


def _importance_answer(card: ClassifierCard, found: BagImportance, patches: int) -> ClassifierEvidence:
    shares = [
        Share(
            name=each.name,
            contribution=None,
            importance=round(each.importance, 4),
            control=None if each.control is None else round(each.control.importance, 4),
            area_fraction=round(each.area_fraction, 5),
            rank=rank,
        )
        for rank, each in enumerate(found.ranked(), start=1)
    ]
    predicted = card.classes[found.label]
    statement = _says(card, predicted, found.prediction.probabilities[found.label], patches)
    if shares:
        top = found.ranked()[0]
        control = (
            ""
            if top.control is None
            else f" (as many pixels blurred at random: {top.control.importance:.2f})"
        )
        statement += (
            f"; blurring {top.name} multiplies its loss by {top.importance:.2f}{control} "
            f"and takes “{predicted}” to {top.probability_after:.2f}"
        )
    return _answer(
        card, predicted, found.prediction.probabilities, patches, shares, "blurring objects", statement
    )


def _shares_answer(card: ClassifierCard, evidence: ObjectEvidence, patches: int) -> ClassifierEvidence:
    shares = [
        Share(
            name=each.name,
            contribution=round(each.activation, 4),
            importance=None,
            control=None,
            area_fraction=round(each.area_fraction, 5),
            rank=each.rank,
        )
        for each in evidence.shares.ranking
    ]
    predicted = card.classes[evidence.label]
    top = shares[0]
    statement = (
        f"{_says(card, predicted, evidence.probabilities[evidence.label], patches)}; "
        f"most for it speaks {top.name} (share {top.contribution:+.2f})"
    )
    return _answer(card, predicted, evidence.probabilities, patches, shares, "shares of objects", statement)


def _says(card: ClassifierCard, predicted: str, probability: float, patches: int) -> str:
    return f"classifier {card.name} says “{predicted}” ({probability:.2f}) from {patches} patches"


def _answer(
    card: ClassifierCard,
    predicted: str,
    probabilities: Sequence[float],
    patches: int,
    shares: list[Share],
    method: str,
    statement: str,
) -> ClassifierEvidence:
    return ClassifierEvidence(
        classifier=card.name,
        predicted=predicted,
        probabilities=_named(card, probabilities),
        patches=patches,
        objects=shares,
        method=method,
        trained_on=card.training,
        metrics={key: str(value) for key, value in card.metrics.items()},
        statement=f"{statement}. A research model's answer, not a diagnosis.",
    )


def _importance_picture(
    loaded: Classifier,
    found: BagImportance,
    bag: SourceBag,
    source: ImageSource,
    folder: ResultFolder,
    result: SegmentResult,
) -> Image.Image:
    """The tissue with its objects, the map of patches, and how much the blurring of each object costs."""
    mpp = result.image.known_mpp
    view = view_of_image(source, bag.boxes, mpp, longest_px=330)
    predicted = loaded.card.classes[found.label]
    shown = patches_painted(view, patch_map(loaded.model, found.prediction.vectors, found.label).values)
    around = _around(bag.boxes, source)
    outlines = [
        Marked(
            _over(
                ObjectMask("", folder.mask(mask.mask_id), Box.from_sequence(result.image.region)),
                around,
                view.pixels,
            ),
            mask.colour,
            number,
            f"{number}  {mask.name}",
        )
        for number, mask in enumerate([mask for mask in result.masks if mask.found], start=1)
    ]
    probability = found.prediction.probabilities[found.label]
    tissue = Panel(
        marked(view.pixels, outlines, view.um_per_px),
        f"says “{predicted}” ({probability:.2f})",
        keys=tuple((each.colour, each.caption) for each in outlines),
    )
    panels = [tissue, map_panel(view, shown, "what each patch adds")]
    room = WIDTH - sum(panel.picture.width + 10 for panel in panels)
    return row([*panels, _importance_bars(found, max(room, 260))])


def _importance_bars(found: BagImportance, width: int) -> Panel:
    rows = []
    for each in found.ranked()[:8]:
        rows.append(Bar(each.name, each.importance, f"x{each.importance:.2f}", "#c8141e"))
        if each.control is not None:
            rows.append(
                Bar("  random blur", each.control.importance, f"x{each.control.importance:.2f}", "#9a9a9a")
            )
    high = max([2.0, *(bar.value for bar in rows)])
    title = "loss when an object is blurred (x1 = no effect)"
    return bars(title, rows, width, low=0, high=round(high, 1), foot="times the loss")


def _around(boxes: Sequence[Box], source: ImageSource) -> Box:
    whole = Box(
        min(box.x0 for box in boxes),
        min(box.y0 for box in boxes),
        max(box.x1 for box in boxes),
        max(box.y1 for box in boxes),
    )
    return whole.clipped_to(source.width, source.height)


def _over(mask: ObjectMask, box: Box, pixels: RGB) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """[h, w] of the mask over a box, at the size of a picture of it."""
    side = max(pixels.shape[:2])
    square = mask.within(
        Box(box.x0, box.y0, box.x0 + max(box.width, box.height), box.y0 + max(box.width, box.height)), side
    )
    if square is None:
        return np.zeros(pixels.shape[:2], np.int32)
    return square[: pixels.shape[0], : pixels.shape[1]].astype(np.int32)
