"""Where: points choose objects, boxes restrict them, relations combine the masks of two targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.images import Box
from tissuetalk.prompts.relations import box_mask, combine, combine_objects, renumbered
from tissuetalk.prompts.target import RelationOp, Request, Target
from tissuetalk.tools.engine import Found

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


def apply(request: Request, targets: Sequence[Target], found: Sequence[Found], region: Box) -> list[Found]:
    """Points, then relations, then boxes; nothing here looks at pixels of the image.

    A point on the reference of inside or outside picks the reference's object; any other point picks the target's own.
    """
    related = any(target.relation is not None and target.relation.op != "selected" for target in targets)
    references = {reference_of(target, targets) for target in targets} - {None}
    chosen = list(found)
    if request.points:
        for index, maps in enumerate(found):
            if not related or index in references:
                chosen[index] = _at_points(maps, request.points, region)
    answers: list[Found] = []
    for target, maps in zip(targets, chosen, strict=True):
        at = reference_of(target, targets)
        answers.append(
            maps if at is None or target.relation is None else _related(target.relation.op, maps, chosen[at])
        )
    return [_in_boxes(maps, request.boxes, region) for maps in answers] if request.boxes else answers


def _objects(maps: Found) -> NDArray[np.int32]:
    if maps.instances is not None:
        return maps.instances
    labels: NDArray[np.int32] = ndimage.label(maps.mask, np.ones((3, 3)))[0].astype(np.int32)
    return labels


def _only(maps: Found, mask: NDArray[np.bool_]) -> Found:
    """The pixels of ``mask``; objects keep their pixels in it and are numbered afresh, 1..N."""
    instances = None
    if maps.instances is not None:
        cut = np.where(mask, maps.instances, 0).astype(np.int32)
        instances = renumbered(cut, np.unique(cut[cut > 0]))
    return replace(maps, mask=mask, instances=instances)


def _at_points(maps: Found, points: Sequence[tuple[float, float]], region: Box) -> Found:
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
    return _only(maps, np.isin(objects, sorted(numbers)) if numbers else np.zeros(objects.shape, bool))


def _in_boxes(maps: Found, boxes: Sequence[tuple[float, float, float, float]], region: Box) -> Found:
    """Objects whose centre lies in a box; of a region, the pixels in the boxes."""
    x, y = region.x0, region.y0
    inside = np.zeros(maps.mask.shape, bool)
    for x0, y0, x1, y1 in boxes:
        inside |= box_mask((region.height, region.width), (x0 - x, y0 - y, x1 - x, y1 - y))
    if maps.instances is None:
        return _only(maps, maps.mask & inside)
    instances = combine_objects("inside", maps.instances, inside)
    return replace(maps, mask=instances > 0, instances=instances)


def _related(op: RelationOp, subject: Found, reference: Found) -> Found:
    """Pixel algebra of the PFPs tasks 3-5, 8 and 9 (spec pfps.md, section 3): objects on the border are cut."""
    mask = combine(op, subject.mask, reference.mask)
    return replace(subject, mask=mask, instances=None) if op == "union" else _only(subject, mask)
