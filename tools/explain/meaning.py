"""What each structure is, in plain words, and which part of this picture shows it best."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.errors import UnknownLabelError
from tissuetalk.models.images import Box
from tissuetalk.prompts.glossary import GlossaryCard, card_for, card_for_concept, card_for_words
from tissuetalk.tools.answers.explained import Meaning
from tissuetalk.tools.answers.results import Mask, SegmentResult
from tissuetalk.tools.explain import windows
from tissuetalk.tools.explain.request import ExplainRequest
from tissuetalk.tools.storage.result_folder import ResultFolder

ROOM = 2.2
"""Side of an example's box, in sides of the object."""
LEAST_SIDE = 64


def meanings(folder: ResultFolder, result: SegmentResult, request: ExplainRequest) -> list[Meaning]:
    """One card per kind of object, in the order it was named. A question that names other objects gets theirs."""
    cards: dict[str, Meaning] = {}
    for card, mask in _cards(result, request):
        if card.name in cards:
            continue
        box = best_example(folder, mask) if mask is not None and mask.found else None
        cards[card.name] = Meaning(
            name=card.name,
            what=card.what_it_is,
            looks_like=card.what_it_looks_like,
            why_it_matters=card.why_it_matters,
            confused_with=card.confused_with,
            reference=card.reference,
            mask_id=None if mask is None else mask.mask_id,
            example_box=None if box is None else box.as_list(),
        )
    return list(cards.values())


def _cards(result: SegmentResult, request: ExplainRequest) -> Iterable[tuple[GlossaryCard, Mask | None]]:
    if request.concepts and request.everything:
        for concept in request.concepts:
            card = card_for_concept(concept)
            if card is not None:
                yield card, None
        return
    for mask in request.masks(result):
        if (card := _card(mask.label, mask.name, mask.evidence)) is not None:
            yield card, mask
    for item in result.not_segmented if request.everything else ():
        if (card := _card(item.label, item.free_form or item.evidence, item.evidence)) is not None:
            yield card, None


def _card(label: str | None, *words: str) -> GlossaryCard | None:
    """By label, unless it fits only loosely for want of an organ; else by the first words that mean something."""
    if label is not None and not label.startswith("unspecified-"):
        return card_for(label)
    for each in words:
        try:
            return card_for_words(each)
        except UnknownLabelError:
            continue
    return None if label is None else card_for(label)


def best_example(folder: ResultFolder, mask: Mask) -> Box | None:
    """The box around a typical object: whole, of a usual size and the fullest shape; of a region, where most of it is."""
    region = Box.from_sequence(mask.provenance.region)
    labels = folder.instances(mask.mask_id)
    if labels is None:
        painted = folder.mask(mask.mask_id)
        if not painted.any():
            return None
        side = max(LEAST_SIDE, min(region.width, region.height) // 3)
        weight = painted.astype(np.float32) + windows.edges(painted)
        return windows.busiest(weight, region, side, side)
    return _typical(labels, region)


def _typical(labels: NDArray[np.int32], region: Box) -> Box | None:
    boxes = _object_boxes(labels)
    if not len(boxes):
        return None
    x, y, width, height, area = boxes.T
    whole = (x > 0) & (y > 0) & (x + width < labels.shape[1]) & (y + height < labels.shape[0])
    fit = np.flatnonzero(whole) if whole.any() else np.arange(len(area))
    low, high = np.quantile(area[fit], (0.5, 0.95), method="nearest")  # of few objects, one at least
    usual = fit[(area[fit] >= low) & (area[fit] <= high)]
    full = area[usual] / (width[usual] * height[usual])
    best = usual[int(full.argmax())]
    across, down = region.width / labels.shape[1], region.height / labels.shape[0]
    side = max(LEAST_SIDE, ROOM * max(width[best] * across, height[best] * down))
    side = int(min(side, region.width, region.height))
    left = int(np.clip((x[best] + width[best] / 2) * across - side / 2, 0, region.width - side))
    top = int(np.clip((y[best] + height[best] / 2) * down - side / 2, 0, region.height - side))
    return Box(region.x0 + left, region.y0 + top, region.x0 + left + side, region.y0 + top + side)


def _object_boxes(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """[N, 5] x, y, width, height, area of every object."""
    areas = np.bincount(labels.ravel())
    rows = [
        (
            place[1].start,
            place[0].start,
            place[1].stop - place[1].start,
            place[0].stop - place[0].start,
            areas[number],
        )
        for number, place in enumerate(ndimage.find_objects(labels), start=1)
        if place is not None
    ]
    return np.array(rows, np.int64).reshape(-1, 5)
