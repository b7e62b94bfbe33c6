"""Objects the caller points at: one mask per box or point, from a model that knows places instead of names.

Every place is seen in a square crop a few times its size. Crops lie on a grid of the image, so a place is answered the
same whatever else is asked and whatever the region, and neighbours share one encoding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np

from tissuetalk.models.control import Control
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.masks.characteristics import Labels, Mask
from tissuetalk.models.segmenter import BoxXYXY, Context, PointXY, PromptableSegmenter
from tissuetalk.prompts.relations import renumbered
from tissuetalk.prompts.target import Request
from tissuetalk.tools.segment.engine import FoundMask, too_large
from tissuetalk.tools.segment.field import FieldOfView
from tissuetalk.tools.segment.grid import MAX_MASK_PX
from tissuetalk.tools.storage.features import FeatureCache

LARGEST_SHARE = 0.25
"""Of the side of its crop that a box takes up at most: a model trained on whole pictures wants surroundings."""
FINEST_SHARE = 0.25
"""The smallest crop, as a share of the model's input: smaller ones would only show magnified blur."""
MOST_READ_PX = 4096
"""Side up to which a crop is read at full resolution."""
LARGE_PX = 16_000_000
"""Region from which only the surroundings of the places are kept as the result's region."""
NO_OPINION = 0.5
"""Presence of something whose name the model does not know."""


@dataclass(frozen=True)
class PointedPlace:
    """A box or a point, in pixels of the source image."""

    box: BoxXYXY | None = None
    point: PointXY | None = None

    @property
    def centre(self) -> PointXY:
        if self.box is None:
            assert self.point is not None
            return self.point
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def longest_px(self) -> float:
        return 0.0 if self.box is None else max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass(frozen=True)
class _Drawn:
    """A mask with the corner of its bounding box in pixels of the source image."""

    x: int
    y: int
    mask: Mask


def objects_at(field: FieldOfView, request: Request, control: Control = Control()) -> FoundMask:
    """One object per box and point of the request, numbered in that order; where two overlap, the smaller one is on top.

    Raises InvalidArgumentError without any place or for points where the model takes boxes only, ImageTooLargeError and
    CancelledError.
    """
    source, region, mpp, features = field.source, field.region, field.scale.mpp, field.features
    model = cast("PromptableSegmenter", field.model)  # the caller asked ``is_pointed``
    places = places_of(request, source)
    if not places or (request.points and not model.takes_points):
        raise model.needs_places()
    if region.width * region.height > MAX_MASK_PX:
        raise too_large(region.width, region.height)
    crops: dict[Box, list[int]] = defaultdict(list)
    for number, place in enumerate(places):
        crops[crop_around(place, model.side_px, source.width, source.height)].append(number)
    cache = features or FeatureCache(memory_bytes=0)
    drawn: dict[int, _Drawn] = {}
    for done, (crop, numbers) in enumerate(crops.items()):
        control.check()
        masks = _ask(model, source, crop, [places[number] for number in numbers], cache)
        for number, mask in zip(numbers, masks, strict=True):
            if mask is not None:
                drawn[number] = mask
        control.report((done + 1) / len(crops), f"crop {done + 1} of {len(crops)}")
    instances = _painted(drawn, region)
    coarsest = max(max(crop.width, crop.height) for crop in crops) / model.side_px
    return FoundMask(
        instances,
        objects=True,
        presence=NO_OPINION,
        model_mpp=mpp * coarsest,
        note=f"outlined in {counted(request)}; {model.card.name} does not judge what is there",
    )


def places_of(request: Request, source: ImageSource) -> list[PointedPlace]:
    """The boxes, clipped to the image, then the points."""
    boxes = [
        PointedPlace(box=(max(x0, 0.0), max(y0, 0.0), min(x1, source.width), min(y1, source.height)))
        for x0, y0, x1, y1 in request.boxes
    ]
    return boxes + [PointedPlace(point=point) for point in request.points]


def narrowed(request: Request, region: Box) -> Box:
    """Of a large region only the part around the places, with half as much again on every side: a slide's mask is not kept."""
    corners = [(x, y, x + 1, y + 1) for x, y in request.points] + list(request.boxes)
    if not corners or region.width * region.height <= LARGE_PX or not np.isfinite(corners).all():
        return region
    left, top, right, bottom = (
        min(each[0] for each in corners),
        min(each[1] for each in corners),
        max(each[2] for each in corners),
        max(each[3] for each in corners),
    )
    beside, above = max((right - left) / 2, 256), max((bottom - top) / 2, 256)
    x0, y0 = max(region.x0, int(left - beside)), max(region.y0, int(top - above))
    x1, y1 = min(region.x1, int(right + beside)), min(region.y1, int(bottom + above))
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else region


def crop_around(place: PointedPlace, side_px: int, width: int, height: int) -> Box:
    """The square of the image's grid whose middle is nearest to the place, large enough for it, inside the image."""
    side = round(side_px * FINEST_SHARE) if place.box is not None else side_px
    while place.longest_px > LARGEST_SHARE * side and side < max(width, height):
        side *= 2
    x, y = place.centre
    across, down = min(side, width), min(side, height)
    x0, y0 = _start(x, side, width - across), _start(y, side, height - down)
    return Box(x0, y0, x0 + across, y0 + down)


def box_in(crop: Box, box: BoxXYXY, across: float, down: float) -> BoxXYXY:
    """A box of the image in pixels of a crop that is shown so many times as wide and high."""
    x0, y0, x1, y1 = box
    return (x0 - crop.x0) * across, (y0 - crop.y0) * down, (x1 - crop.x0) * across, (y1 - crop.y0) * down


def _start(middle: float, side: int, last: int) -> int:
    step = side // 2
    return min(max(round((middle - side / 2) / step) * step, 0), last)


def _ask(
    model: PromptableSegmenter,
    source: ImageSource,
    crop: Box,
    places: Sequence[PointedPlace],
    cache: FeatureCache,
) -> Iterator[_Drawn | None]:
    """Masks of places that share a crop; None for an empty one."""
    shrink = max(1.0, max(crop.width, crop.height) / MOST_READ_PX)
    size = max(1, round(crop.width / shrink)), max(1, round(crop.height / shrink))

    def encoded() -> Any:
        return model.encode(source.read_region(crop, width=size[0], height=size[1]), Context({}))

    key = f"{source.sha256} {model.weights_sha256} {crop.as_list()} {size}"
    seen = cache.get(key, model, encoded)
    across, down = size[0] / crop.width, size[1] / crop.height
    boxes = [each.box for each in places if each.box is not None]
    points = [each.point for each in places if each.point is not None]
    inside = [box_in(crop, box, across, down) for box in boxes]
    beside = [((x + 0.5 - crop.x0) * across, (y + 0.5 - crop.y0) * down) for x, y in points]
    for masks in (
        model.from_boxes(seen, inside) if inside else (),
        model.from_points(seen, beside) if beside else (),
    ):
        for mask in masks:
            yield _tight(mask, crop)


def _tight(mask: Mask, crop: Box) -> _Drawn | None:
    """The mask at full resolution without its empty margins."""
    if mask.shape != (crop.height, crop.width):
        mask = (
            cv2.resize(mask.astype(np.uint8), (crop.width, crop.height), interpolation=cv2.INTER_NEAREST) > 0
        )
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _Drawn(crop.x0 + int(columns[0]), crop.y0 + int(rows[0]), part)


def _painted(drawn: dict[int, _Drawn], region: Box) -> Labels:
    """[H, W] of the region; numbers follow the order in which places were given, without gaps."""
    canvas = np.zeros((region.height, region.width), np.int32)
    for number, each in sorted(drawn.items(), key=lambda item: -int(item[1].mask.sum())):
        top, left = max(each.y, region.y0), max(each.x, region.x0)
        bottom = min(each.y + each.mask.shape[0], region.y1)
        right = min(each.x + each.mask.shape[1], region.x1)
        if bottom > top and right > left:
            part = each.mask[top - each.y : bottom - each.y, left - each.x : right - each.x]
            place = canvas[top - region.y0 : bottom - region.y0, left - region.x0 : right - region.x0]
            place[part] = number + 1
    return renumbered(canvas, np.unique(canvas[canvas > 0]))


def counted(request: Request) -> str:
    parts = [(len(request.boxes), "box", "boxes"), (len(request.points), "point", "points")]
    said = [f"{count} {one if count == 1 else many}" for count, one, many in parts if count]
    return f"the {' and '.join(said)} given"
