"""Points, boxes and relations on a slide: whole objects are chosen, by where they lie, never cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.slides import rows
from tissuetalk.tools.slides.grid import inside, intersection
from tissuetalk.tools.slides.stitching import Group, Place, Stitched, WindowStore
from tissuetalk.tools.spatial import SLACK_UM, chosen_by_places, reference_of


@dataclass(frozen=True)
class Choice:
    """Which objects of one mask stay. small: per window and whole object. group: per large object."""

    small: Callable[[Place], NDArray[np.bool_]]
    group: Callable[[int], bool]


@dataclass(frozen=True)
class Mapped:
    """All objects of one mask before any choice. step: full-resolution pixels per working pixel."""

    target: Target
    store: WindowStore
    stitched: Stitched
    step: float
    objects: bool
    present: bool


def everything(mapped: Mapped) -> Choice:
    return Choice(lambda place: np.ones(len(mapped.stitched.small[place]), bool), lambda index: True)


def nothing(mapped: Mapped) -> Choice:
    return Choice(lambda place: np.zeros(len(mapped.stitched.small[place]), bool), lambda index: False)


def both(one: Choice, other: Choice) -> Choice:
    return Choice(
        lambda place: one.small(place) & other.small(place), lambda i: one.group(i) and other.group(i)
    )


def refused(target: Target, objects: bool, request: Request) -> str | None:
    """What of the request cannot be done to this target on a slide, and what to do instead; None if nothing."""
    relation = target.relation
    if relation is not None and relation.op in ("union", "intersection"):
        return (
            f"the {relation.op} with {relation.reference!r} needs pixel algebra, which is not done on whole slides; "
            "pass a smaller region, or measure both masks"
        )
    if relation is not None and relation.op in ("inside", "outside") and not objects:
        return (
            f"cutting this region by {relation.reference!r} is not done on whole slides; pass a smaller region, "
            "or segment both and measure their overlap"
        )
    if request.boxes and not objects and not request.points:
        return "a region is not cut by boxes on whole slides; pass region=[x0, y0, x1, y1] instead of a box"
    return None


def choose(request: Request, among: Sequence[Mapped], mpp: float) -> list[Choice]:
    """Points first, then relations, then boxes, as on small images, but for whole objects by their centres."""
    targets = [mapped.target for mapped in among]
    at_points, in_boxes = chosen_by_places(targets)
    chosen = [everything(mapped) if mapped.present else nothing(mapped) for mapped in among]
    if request.points:
        for index in at_points:
            chosen[index] = both(chosen[index], _at_points(among[index], request.points, SLACK_UM / mpp))
    before_relations = list(chosen)
    for index, mapped in enumerate(among):
        at = reference_of(mapped.target, targets)
        if at is not None and mapped.target.relation is not None:
            lies = _lying(mapped, mapped.target.relation.op == "inside", among[at], before_relations[at])
            chosen[index] = both(chosen[index], lies)
    if request.boxes:
        for index in in_boxes:
            chosen[index] = both(chosen[index], _in_boxes(among[index], request.boxes))
    return chosen


def centres(mapped: Mapped, place: Place) -> NDArray[np.float64]:
    """[n, 2] x, y of the whole objects of a window, in full-resolution pixels, edges at whole numbers."""
    table = rows.read_rows(mapped.store.files[place].rows(mapped.store.prompt))
    return np.column_stack([table["centroid_x"].to_numpy(), table["centroid_y"].to_numpy()]) + 0.5


def group_centre(mapped: Mapped, group: Group) -> tuple[float, float]:
    x, y = group.centre
    return x * mapped.step, y * mapped.step


def _in_boxes(mapped: Mapped, boxes: Sequence[tuple[float, float, float, float]]) -> Choice:
    def within(points: NDArray[np.float64]) -> NDArray[np.bool_]:
        found = np.zeros(len(points), bool)
        for x0, y0, x1, y1 in boxes:
            x, y = points[:, 0], points[:, 1]
            found |= (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        return found

    return Choice(
        lambda place: within(centres(mapped, place)),
        lambda index: bool(within(np.array([group_centre(mapped, mapped.stitched.groups[index])]))[0]),
    )


def _lying(mapped: Mapped, wants_inside: bool, reference: Mapped, chosen: Choice) -> Choice:
    """Objects whose centre lies in (or outside) the reference's chosen objects."""

    def within(points: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.array([_object_at(reference, x, y, chosen) is not None for x, y in points.tolist()], bool)

    return Choice(
        lambda place: within(centres(mapped, place)) == wants_inside,
        lambda index: bool(
            within(np.array([group_centre(mapped, mapped.stitched.groups[index])]))[0] == wants_inside
        ),
    )


def _object_at(mapped: Mapped, x: float, y: float, chosen: Choice) -> tuple[Place, int] | int | None:
    """The chosen object under a full-resolution place: (window, number) of a whole one, the index of a large one."""
    column, row = int(x // mapped.step), int(y // mapped.step)
    found = _numbers_near(mapped, Box(column, row, column + 1, row + 1), chosen)
    return found[0][0] if found else None


Object = tuple[Place, int] | int


def _numbers_near(mapped: Mapped, box: Box, chosen: Choice) -> list[tuple[Object, int, int]]:
    """(object, x, y) of every marked working pixel in a small box."""
    grid, store = mapped.store.grid, mapped.store
    near = intersection(box, grid.box)
    if near is None:
        return []
    found: list[tuple[Object, int, int]] = []
    column, row = (near.x0 - grid.x0) // grid.window_px, (near.y0 - grid.y0) // grid.window_px
    for place in [(column + dx, row + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
        if place not in store.windows or (shared := intersection(near, store.frame(place))) is None:
            continue
        labels = store.labels(place)[inside(shared, store.frame(place))]
        small = mapped.stitched.small[place]
        for y, x in np.argwhere(labels > 0).tolist():
            number = int(labels[y, x])
            if number <= len(small):
                if small[number - 1] and chosen.small(place)[number - 1]:
                    found.append(((place, number), shared.x0 + x, shared.y0 + y))
                continue
            index = mapped.stitched.piece_of[place, number]
            if mapped.stitched.groups[index].on_tissue and chosen.group(index):
                found.append((index, shared.x0 + x, shared.y0 + y))
    return found


def _at_points(mapped: Mapped, points: Sequence[tuple[float, float]], reach_px: float) -> Choice:
    """The objects under the points; beside an object, the nearest one within ``reach_px`` full-resolution pixels."""
    reach = reach_px / mapped.step
    picked: set[Object] = set()
    for x, y in points:
        column, row = int(x // mapped.step), int(y // mapped.step)
        side = int(reach) + 1
        around = Box(column - side, row - side, column + side + 1, row + side + 1)
        near = [
            (float(np.hypot(at_x - column, at_y - row)), at_y, at_x, each)
            for each, at_x, at_y in _numbers_near(mapped, around, everything(mapped))
        ]
        if near and min(near, key=lambda entry: entry[:3])[0] <= reach:
            picked.add(min(near, key=lambda entry: entry[:3])[3])

    def small(place: Place) -> NDArray[np.bool_]:
        kept = np.zeros(len(mapped.stitched.small[place]), bool)
        for each in picked:
            if isinstance(each, tuple) and each[0] == place:
                kept[each[1] - 1] = True
        return kept

    return Choice(small, lambda index: index in picked)
