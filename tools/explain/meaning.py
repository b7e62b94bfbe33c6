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
from tissuetalk.tools.masks.layer import MaskLayer
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
        box = best_example(windows.layer_of(folder, mask)) if mask is not None and mask.found else None
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


def best_example(layer: MaskLayer) -> Box | None:
    """The box around a typical object: whole, of a usual size and the fullest shape; of a region, where most of it is."""
    region = layer.region
    if layer.has_objects and layer.region_px <= windows.MOST_SEEN_PX:
        return _typical(layer.labels.sample(region, region.width, region.height), region)
    painted = windows.looked_over(layer)
    if not painted.any():
        return None
    weight = painted.astype(np.float32) + windows.edges(painted)
    if not layer.has_objects:
        side = max(LEAST_SIDE, min(region.width, region.height) // 3)
        return windows.busiest(weight, region, side, side)
    # objects of a slide are looked at where most of them are: at the scale of the whole they would be specks
    side = round(windows.MOST_SEEN_PX**0.5)
    part = windows.busiest(weight, region, side, side)
    return _typical(layer.labels.sample(part, part.width, part.height), part)


def _typical(labels: NDArray[np.int32], part: Box) -> Box | None:
    """labels: [part.height, part.width]"""
    places = [(number, place) for number, place in enumerate(ndimage.find_objects(labels), 1) if place]
    if not places:
        return None
    area = np.bincount(labels.ravel())[[number for number, _ in places]]
    y, x, bottom, right = np.array(
        [(rows.start, columns.start, rows.stop, columns.stop) for _, (rows, columns) in places]
    ).T
    whole = (x > 0) & (y > 0) & (right < labels.shape[1]) & (bottom < labels.shape[0])
    fit = np.flatnonzero(whole) if whole.any() else np.arange(len(area))
    low, high = np.quantile(area[fit], (0.5, 0.95), method="nearest")  # of few objects, one at least
    usual = fit[(area[fit] >= low) & (area[fit] <= high)]
    box_area = (right[usual] - x[usual]) * (bottom[usual] - y[usual])
    best = usual[int((area[usual] / box_area).argmax())]
    side = max(LEAST_SIDE, ROOM * max(right[best] - x[best], bottom[best] - y[best]))
    side = int(min(side, part.width, part.height))
    left = part.x0 + int(np.clip((x[best] + right[best] - side) / 2, 0, part.width - side))
    top = part.y0 + int(np.clip((y[best] + bottom[best] - side) / 2, 0, part.height - side))
    return Box(left, top, left + side, top + side)
