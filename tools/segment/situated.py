"""Masks of a model whose network is told words and a place together: one pass around every point and box.

Crops are centred on their places, so that what is asked at a place is answered the same whatever else is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.images import Box
from tissuetalk.models.masks.characteristics import components
from tissuetalk.models.segmenter import Context, SituatedSegmenter
from tissuetalk.prompts.target import Request
from tissuetalk.tools.segment import engine
from tissuetalk.tools.segment.decide import connected
from tissuetalk.tools.segment.engine import FoundMask
from tissuetalk.tools.segment.field import FieldOfView
from tissuetalk.tools.segment.grid import MAX_MASK_PX, SlideSettings
from tissuetalk.tools.segment.pointing import LARGEST_SHARE, PointedPlace, box_in, counted, places_of
from tissuetalk.tools.segment.request import Wanted

MARKED: Final = re.compile(r"\b(point(ed)?|click(ed)?|marked|cursor)\b", re.IGNORECASE)
"""Words for a place that somebody showed."""
UNMARKED: Final = "the words speak of a marked place and none was given: pass points=[[x, y]] or boxes"


def find_masks(
    field: FieldOfView,
    request: Request,
    asked: Sequence[Wanted],
    control: Control,
    settings: SlideSettings,
) -> list[FoundMask]:
    """One answer per target, in the order asked: around its places, or tile by tile where it has none.

    Raises ImageTooLargeError and CancelledError.
    """
    found = []
    for number, each in enumerate(asked):
        part = control.part(number / len(asked), (number + 1) / len(asked))
        if each.prompt.at_place:
            found.append(_at_places(field, request, each, part))
            continue
        (mask,) = engine.find_masks(field, [(each.prompt, each.capability)], part, settings)
        marked = MARKED.search(each.prompt.text) and not (request.points or request.boxes)
        found.append(replace(mask, note=f"presence {mask.presence:.2f}; {UNMARKED}") if marked else mask)
    return found


def _at_places(field: FieldOfView, request: Request, wanted: Wanted, control: Control) -> FoundMask:
    """What the network says around every point and box of the request, together."""
    source, region = field.source, field.region
    if region.width * region.height > MAX_MASK_PX:
        raise engine.too_large(region.width, region.height)
    painted, presence, coarsest, seen = np.zeros((region.height, region.width), bool), 0.0, 0.0, 0
    places = places_of(request, source)
    for number, place in enumerate(places):
        control.check()
        crop, mpp = _crop_around(place, field, wanted)
        mask, there = _answer(field, wanted, place, crop, mpp)
        presence, coarsest = max(presence, there), max(coarsest, mpp)
        if (part := crop.intersection(region)) is not None:
            painted[part.inside(region)] |= mask[part.inside(crop)]
            seen = max(seen, part.width * part.height)
        control.report((number + 1) / len(places), f"place {number + 1} of {len(places)}")
    objects = wanted.capability.objects
    labels = components(painted) if objects else connected(painted)
    said = "in words" if field.model.sent(wanted.prompt) else "by the number of its task"
    note = f"presence {presence:.2f}, asked {said} with {counted(request)}"
    if seen < region.width * region.height:
        note += "; nothing was looked at further away"
    return FoundMask(labels, objects, presence, coarsest, note=note)


def _crop_around(place: PointedPlace, field: FieldOfView, wanted: Wanted) -> tuple[Box, float]:
    """A square of the side the network was trained with, or larger around a large box, and the µm/px it is shown at."""
    source, mpp = field.source, wanted.capability.mpp
    side = round(field.model.tile_px * mpp / field.scale.mpp)
    while place.longest_px > LARGEST_SHARE * 2 * side and side < max(source.width, source.height):
        side, mpp = 2 * side, 2 * mpp
    x, y = place.centre
    across, down = min(side, source.width), min(side, source.height)
    x0 = min(max(round(x - across / 2), 0), source.width - across)
    y0 = min(max(round(y - down / 2), 0), source.height - down)
    return Box(x0, y0, x0 + across, y0 + down), mpp


def _answer(
    field: FieldOfView, wanted: Wanted, place: PointedPlace, crop: Box, mpp: float
) -> tuple[NDArray[np.bool_], float]:
    """[crop.height, crop.width] in full-resolution pixels, and presence."""
    model = cast("SituatedSegmenter", field.model)  # only such a one is told places
    step = mpp / field.scale.mpp
    width, height = max(1, round(crop.width / step)), max(1, round(crop.height / step))
    tile = field.source.read_region(crop, width=width, height=height)
    across, down = width / crop.width, height / crop.height
    point = box = None
    if place.point is not None:
        point = (place.point[0] - crop.x0) * across, (place.point[1] - crop.y0) * down
    if place.box is not None:
        box = box_in(crop, place.box, across, down)
    decoded = model.answer_at(tile, wanted.prompt, point=point, box=box)
    presence = model.finish(decoded, wanted.prompt, Context({})).presence
    logits = cv2.resize(decoded.logits, (crop.width, crop.height), interpolation=cv2.INTER_LINEAR)
    return logits > 0, presence
