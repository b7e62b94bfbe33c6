"""Where: points choose objects, boxes restrict them, relations combine the masks of two targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.images import Box
from tissuetalk.prompts.relations import box_mask, centroids, combine, renumbered
from tissuetalk.prompts.target import Relation, Request, Target
from tissuetalk.tools.segment.engine import FoundMask

BoxXYXY = tuple[float, float, float, float]
SLACK_UM = 3.0
"""How far beside an object a point may lie and still mean it: a pointing hand is not exact to a pixel."""


def plan(targets: Sequence[Target]) -> list[Target]:
    """The targets to look for, with every relation's reference among them exactly once."""
    wanted = list(targets)
    for target in targets:
        if target.relation is None or target.relation.op == "selected":
            continue
        if reference_of(target, wanted) is None:
            words = target.relation.reference
            label = words if words.count("-") >= 2 else None
            wanted.append(
                replace(
                    target,
                    label=label,
                    words=words.rsplit("-", 1)[-1],
                    relation=None,
                    reason="named as the reference",
                )
            )
    return wanted


def reference_of(target: Target, among: Sequence[Target]) -> int | None:
    """Index of the target that ``target.relation`` refers to, by label or by words."""
    if target.relation is None:
        return None
    named = target.relation.reference.casefold()
    for index, other in enumerate(among):
        if other is not target and named in (
            (other.label or "").casefold(),
            other.words.casefold(),
            other.evidence.casefold(),
        ):
            return index
    return None


def apply(
    request: Request, targets: Sequence[Target], found: Sequence[FoundMask], region: Box
) -> list[FoundMask]:
    """Points, then relations, then boxes; nothing here looks at pixels of the image."""
    at_points, in_boxes = chosen_by_places(targets)
    chosen = list(found)
    if request.points:
        for index in at_points:
            chosen[index] = _at_points(found[index], request.points, region)
    answers: list[FoundMask] = []
    for index, target in enumerate(targets):
        at = reference_of(target, targets)
        maps = chosen[index]
        if at is not None and target.relation is not None:
            maps = _related(target.relation, maps, chosen[at])
        if request.boxes and index in in_boxes:
            maps = _in_boxes(maps, request.boxes, region)
        answers.append(maps)
    return answers


def chosen_by_places(targets: Sequence[Target]) -> tuple[set[int], set[int]]:
    """Indices of the targets that points choose among, and of those that boxes do.

    Both belong to the targets whose words tie them to it. If there is none, a point on the reference of a relation picks
    the reference's object, and otherwise points and boxes hold for every target.
    """
    references = {at for target in targets if (at := reference_of(target, targets)) is not None}
    everything = set(range(len(targets)))
    return _selected(targets, "point") or references or everything, _selected(targets, "box") or everything


def _selected(targets: Sequence[Target], by: str) -> set[int]:
    """Indices of the targets whose words tie them to the points (or boxes)."""
    wanted = Relation("selected", by)
    return {index for index, target in enumerate(targets) if target.relation == wanted}


def _objects(maps: FoundMask) -> NDArray[np.int32]:
    if maps.instances is not None:
        return maps.instances
    labels: NDArray[np.int32] = ndimage.label(maps.mask, np.ones((3, 3)))[0].astype(np.int32)
    return labels


def _only(maps: FoundMask, mask: NDArray[np.bool_], where: str) -> FoundMask:
    """The pixels of ``mask``; objects keep their pixels in it and are numbered afresh, 1..N.

    where: what to tell a reader when nothing is left of something that was found.
    """
    instances = None
    if maps.instances is not None:
        cut = np.where(mask, maps.instances, 0).astype(np.int32)
        instances = renumbered(cut, np.unique(cut[cut > 0]))
    note = maps.note
    if maps.mask.any() and not mask.any():
        note = f"it is in the region (presence {maps.presence:.2f}), but not {where}"
    return replace(maps, mask=mask, instances=instances, note=note)


def _at_points(maps: FoundMask, points: Sequence[tuple[float, float]], region: Box) -> FoundMask:
    """The objects under the points; beside an object, the nearest one within SLACK_UM."""
    objects = _objects(maps)
    reach_px = SLACK_UM / maps.source_mpp
    numbers: set[int] = set()
    for x, y in points:
        column, row = int(x) - region.x0, int(y) - region.y0
        if not (0 <= column < region.width and 0 <= row < region.height):
            continue
        reach = int(reach_px) + 1
        top, left = max(0, row - reach), max(0, column - reach)
        near = objects[top : row + reach + 1, left : column + reach + 1]
        rows, columns = np.nonzero(near)
        if not len(rows):
            continue
        distance = np.hypot(rows + top - row, columns + left - column)
        if distance.min() <= reach_px:
            best = int(distance.argmin())
            numbers.add(int(near[rows[best], columns[best]]))
    kept = np.isin(objects, sorted(numbers)) if numbers else np.zeros(objects.shape, bool)
    return _only(maps, kept, "at the points given")


def _in_boxes(maps: FoundMask, boxes: Sequence[BoxXYXY], region: Box) -> FoundMask:
    """Whole objects whose centre lies in a box, else the one that fills half of the box; of a region, the pixels."""
    x, y = region.x0, region.y0
    shape = (region.height, region.width)
    places = [box_mask(shape, (x0 - x, y0 - y, x1 - x, y1 - y)) for x0, y0, x1, y1 in boxes]
    where = "in the boxes given"
    if maps.instances is None:
        return _only(maps, maps.mask & np.any(places, axis=0), where)
    ids, rows, columns = centroids(maps.instances)
    rows, columns = np.rint(rows).astype(int), np.rint(columns).astype(int)
    kept: set[int] = set()
    for place in places:
        centred = ids[place[rows, columns]]
        kept.update(centred.tolist() if len(centred) else _filling(maps.instances[place]))
    return _only(maps, np.isin(maps.instances, sorted(kept)) & maps.mask, where)


def _filling(inside: NDArray[np.int32]) -> list[int]:
    """The object that covers at least half of the pixels of a box, if there is one."""
    counts = np.bincount(inside, minlength=1)
    counts[0] = 0
    best = int(counts.argmax())
    return [best] if counts[best] and 2 * counts[best] >= len(inside) else []


def _related(relation: Relation, subject: FoundMask, reference: FoundMask) -> FoundMask:
    """Pixel algebra of the PFPs tasks 3-5, 8 and 9 (spec pfps.md, section 3): objects on the border are cut."""
    mask = combine(relation.op, subject.mask, reference.mask)
    if relation.op == "union":
        return replace(subject, mask=mask, instances=None)
    where = "outside" if relation.op == "outside" else "inside"
    return _only(subject, mask, f"{where} the {relation.reference.rsplit('-', 1)[-1]}")
