"""Where: points choose objects, boxes restrict them, relations combine two masks. Written once, over label images.

Nothing here looks at pixels of the image, and nothing is computed before it is read: a slide stays on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.by_example import Place
from tissuetalk.models.images import Box
from tissuetalk.prompts.target import Relation, RelationOp, Request, Target
from tissuetalk.tools.segment.decide import Labels
from tissuetalk.tools.segment.request import chosen_by_places, reference_of


class LabelImage(Protocol):
    """Numbers 1..count of objects, or of the parts of a region, over ``region`` in full-resolution pixels."""

    @property
    def region(self) -> Box: ...

    @property
    def objects(self) -> bool:
        """Whether the numbers are objects; else they are the parts of one region."""
        ...

    @property
    def count(self) -> int: ...

    def read(self, box: Box) -> Labels:
        """[box.height, box.width] of a box in the region, 0 background."""
        ...

    def parts(self) -> Iterable[Box]:
        """Boxes to read it in, from top left on, that do not overlap and cover all of it."""
        ...


@dataclass(frozen=True)
class HeldLabels:
    """In memory: [region.height, region.width]."""

    labels: Labels
    region: Box
    objects: bool

    @cached_property
    def count(self) -> int:
        return int(self.labels.max(initial=0))

    def read(self, box: Box) -> Labels:
        return self.labels[box.inside(self.region)]

    def parts(self) -> list[Box]:
        return [self.region]


BoxXYXY = tuple[float, float, float, float]
SLACK_UM = 3.0
"""How far beside an object a point may lie and still mean it: a pointing hand is not exact to a pixel."""


@dataclass(frozen=True)
class DerivedLabels:
    """What is read from another mask; by itself nothing but that one."""

    base: LabelImage

    @property
    def region(self) -> Box:
        return self.base.region

    @property
    def objects(self) -> bool:
        return self.base.objects

    @property
    def count(self) -> int:
        return self.base.count

    def parts(self) -> Iterable[Box]:
        return self.base.parts()


@dataclass(frozen=True)
class Chosen(DerivedLabels):
    """Some of the objects of a mask, whole, under the numbers they had. keep: [count + 1] bool. where: they are."""

    keep: NDArray[np.bool_]
    where: str

    def read(self, box: Box) -> Labels:
        labels = self.base.read(box)
        return np.where(self.keep[labels], labels, 0)


@dataclass(frozen=True)
class CutByBoxes(DerivedLabels):
    """The pixels of a region in boxes."""

    boxes: Sequence[BoxXYXY]
    where: str

    @property
    def objects(self) -> bool:
        return False

    def read(self, box: Box) -> Labels:
        labels = self.base.read(box)
        inside = np.zeros(labels.shape, bool)
        for each in self.boxes:
            if (at := _rounded(each, self.region).intersection(box)) is not None:
                inside[at.inside(box)] = True
        return np.where(inside, labels, 0)


@dataclass(frozen=True)
class Combined(DerivedLabels):
    """Pixel algebra of two masks (spec pfps.md, section 3, tasks 3-5, 8 and 9): objects on the border are cut.

    A union is a region; parts of the reference go on numbering where the subject's end.
    """

    op: RelationOp
    reference: LabelImage
    where: str

    @property
    def objects(self) -> bool:
        return self.base.objects and self.op != "union"

    @property
    def count(self) -> int:
        return self.base.count + (self.reference.count if self.op == "union" else 0)

    def read(self, box: Box) -> Labels:
        labels, other = self.base.read(box), self.reference.read(box)
        if self.op == "union":
            return np.where(labels > 0, labels, np.where(other > 0, other + self.base.count, 0))
        return np.where((other == 0) if self.op == "outside" else (other > 0), labels, 0)


@dataclass(frozen=True)
class Corrected(DerivedLabels):
    """A mask to which places were added and from which others were taken away, in the order they were shown.

    keep: [base.count + 1] bool, objects that are left. numbers: by place, of the object its new pixels belong to; numbers
    beyond those of the base are new objects. mpp: µm per full-resolution pixel.
    """

    places: Sequence[Place]
    keep: NDArray[np.bool_]
    numbers: Sequence[int]
    mpp: float
    where: str = "left after the correction"

    @property
    def count(self) -> int:
        return max(self.base.count, *self.numbers)

    @property
    def grown(self) -> dict[int, Box]:
        """By number, where objects have new pixels."""
        boxes: dict[int, Box] = {}
        for place, number in zip(self.places, self.numbers, strict=True):
            if place.is_positive and (box := place.extent(self.mpp).intersection(self.region)) is not None:
                boxes[number] = boxes[number].hull(box) if number in boxes else box
        return boxes

    def read(self, box: Box) -> Labels:
        labels = self.base.read(box)
        labels = np.where(self.keep[labels], labels, 0).astype(np.int32)
        for place, number in zip(self.places, self.numbers, strict=True):
            # a point that takes an object away spares the one beside it
            if self.objects and place.point is not None and not place.is_positive:
                continue
            if (at := place.extent(self.mpp).intersection(box)) is None:
                continue
            part, marked = labels[at.inside(box)], place.drawn(at, 1.0, self.mpp)
            part[marked & (part == 0) if place.is_positive else marked] = number
        return labels


Derived = Chosen | CutByBoxes | Combined | Corrected


def related(
    request: Request, targets: Sequence[Target], masks: Sequence[LabelImage], mpp: float
) -> list[LabelImage]:
    """Points, then relations, then boxes. A mask that nothing is done to comes back as it is."""
    at_points, in_boxes = chosen_by_places(targets)
    chosen = list(masks)
    if request.points:
        for index in at_points:
            chosen[index] = _at_points(masks[index], request.points, mpp)
    answers: list[LabelImage] = []
    for index, target in enumerate(targets):
        at, mask = reference_of(target, targets), chosen[index]
        if at is not None and target.relation is not None:
            mask = Combined(mask, target.relation.op, chosen[at], _beside(target.relation))
        if request.boxes and index in in_boxes:
            mask = _in_boxes(mask, request.boxes)
        answers.append(mask)
    return answers


def corrected(mask: LabelImage, places: Sequence[Place], mpp: float) -> LabelImage:
    """The mask with every place that is shown as it and without those that are not; the same mask where there are none.

    Of objects, one under a point that is not it goes as a whole, as does one that lies half or more in a box, polygon or
    mask that is not; new pixels join the object that covers half of their place, else they are one of their own.
    """
    places = [place for place in places if place.extent(mpp).intersection(mask.region) is not None]
    if not places:
        return mask
    keep, numbers, last = np.ones(mask.count + 1, bool), [], mask.count
    areas = areas_of(mask) if mask.objects and not all(place.is_positive for place in places) else None
    for place in places:
        box = place.extent(mpp).intersection(mask.region)
        assert box is not None, "others were left out"
        labels, marked = mask.read(box), place.drawn(box, 1.0, mpp)
        covered = np.bincount(labels[marked], minlength=mask.count + 1)
        covered[0] = 0
        best = int(covered.argmax())
        if not place.is_positive:
            if areas is not None and place.point is not None:
                keep &= ~_at_points(mask, [place.point], mpp).keep
            elif areas is not None:
                keep &= (covered == 0) | (2 * covered < areas)
            numbers.append(0)
        elif covered[best] and 2 * covered[best] >= marked.sum() and keep[best]:
            numbers.append(best)
        else:
            last += 1
            numbers.append(last)
    return Corrected(mask, places, keep, numbers, mpp)


def why_empty(mask: LabelImage, presence: float) -> str:
    """What to tell a reader when nothing is left of something that was found; "" when there was nothing before."""
    stages: list[Derived] = []
    while isinstance(mask, Derived):
        stages.append(mask)
        mask = mask.base
    for stage in reversed(stages):
        if not _anything(stage.base):
            return ""
        if not _anything(stage):
            return f"it is in the region (presence {presence:.2f}), but not {stage.where}"
    return ""


def areas_of(mask: LabelImage) -> NDArray[np.int64]:
    """[count + 1] full-resolution pixels of every number; those of 0 are left out."""
    areas = np.zeros(mask.count + 1, np.int64)
    for box in mask.parts():
        areas += np.bincount(mask.read(box).ravel(), minlength=mask.count + 1)
    areas[0] = 0
    return areas


def numbering(areas: NDArray[np.int64]) -> Labels:
    """[count + 1] to 1..N in the old order, 0 for what has no pixel."""
    shown = areas > 0
    return np.where(shown, np.cumsum(shown), 0).astype(np.int32)


def _anything(mask: LabelImage) -> bool:
    return mask.count > 0 and any(mask.read(box).any() for box in mask.parts())


def _beside(relation: Relation) -> str:
    place = "outside" if relation.op == "outside" else "inside"
    return f"{place} the {relation.reference.rsplit('-', 1)[-1]}"


def _at_points(mask: LabelImage, points: Sequence[tuple[float, float]], mpp: float) -> Chosen:
    """The objects under the points; beside an object, the nearest one within SLACK_UM."""
    keep = np.zeros(mask.count + 1, bool)
    reach_px = SLACK_UM / mpp
    reach = int(reach_px) + 1
    for x, y in points:
        column, row = int(x), int(y)
        if Box(column, row, column + 1, row + 1).intersection(mask.region) is None:
            continue
        around = Box(column, row, column + 1, row + 1).grown(reach).intersection(mask.region) or mask.region
        near = mask.read(around)
        rows, columns = np.nonzero(near)
        if not len(rows):
            continue
        distance = np.hypot(rows + around.y0 - row, columns + around.x0 - column)
        if distance.min() <= reach_px:
            best = int(distance.argmin())
            keep[near[rows[best], columns[best]]] = True
    return Chosen(mask, keep, "at the points given")


def _in_boxes(mask: LabelImage, boxes: Sequence[BoxXYXY]) -> LabelImage:
    """Whole objects whose centre lies in a box, else the one that fills half of the box; of a region, the pixels."""
    where = "in the boxes given"
    if not mask.objects:
        return CutByBoxes(mask, boxes, where)
    centres = _Centres.of(mask)
    keep = np.zeros(mask.count + 1, bool)
    for each in boxes:
        box = _rounded(each, mask.region)
        centred = centres.inside(box)
        if centred.any():
            keep |= centred
        elif (clipped := box.intersection(mask.region)) is not None:
            keep[_filling(mask, clipped)] = True
    return Chosen(mask, keep, where)


@dataclass(frozen=True)
class _Centres:
    """Mean places of all objects, in whole full-resolution pixels from the region's corner. there: which exist."""

    region: Box
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    there: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: LabelImage) -> _Centres:
        count = mask.count + 1
        area, sum_x, sum_y = np.zeros(count), np.zeros(count), np.zeros(count)
        for box in mask.parts():
            labels = mask.read(box)
            rows, columns = np.nonzero(labels)
            numbers = labels[rows, columns]
            area += np.bincount(numbers, minlength=count)
            sum_x += np.bincount(numbers, columns + float(box.x0 - mask.region.x0), count)
            sum_y += np.bincount(numbers, rows + float(box.y0 - mask.region.y0), count)
        least = np.maximum(area, 1)
        return cls(mask.region, np.rint(sum_x / least), np.rint(sum_y / least), area > 0)

    def inside(self, box: Box) -> NDArray[np.bool_]:
        x, y = self.x + self.region.x0, self.y + self.region.y0
        return np.asarray(self.there & (x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1), bool)


def _filling(mask: LabelImage, box: Box) -> list[int]:
    """The object that covers at least half of the pixels of a box, if there is one."""
    counts = np.zeros(mask.count + 1, np.int64)
    for part in mask.parts():
        if (shared := part.intersection(box)) is not None:
            counts += np.bincount(mask.read(shared).ravel(), minlength=mask.count + 1)
    counts[0] = 0
    best = int(counts.argmax())
    return [best] if counts[best] and 2 * counts[best] >= box.width * box.height else []


def _rounded(box: BoxXYXY, region: Box) -> Box:
    """A box of the caller in whole pixels: rounded from the region's corner, at least one pixel."""
    x0, y0, x1, y1 = (
        round(at - start) + start for at, start in zip(box, (region.x0, region.y0) * 2, strict=True)
    )
    return Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))


@dataclass(frozen=True)
class Renumbered(DerivedLabels):
    """A mask under new numbers without gaps. table: [base.count + 1]."""

    table: Labels

    @cached_property
    def count(self) -> int:
        return int(self.table.max(initial=0))

    def read(self, box: Box) -> Labels:
        return self.table[self.base.read(box)]
