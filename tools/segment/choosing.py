"""Points, boxes and relations on a slide: whole objects are chosen, by where they lie, never cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.segment import rows
from tissuetalk.tools.segment.grid import inside, intersection
from tissuetalk.tools.segment.spatial import SLACK_UM, chosen_by_places, reference_of
from tissuetalk.tools.segment.stitching import Group, Place, Stitched, WindowStore


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
    stays = cache(lambda place: _stays(reference, chosen, place))

    def within(points: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(_marked(reference, points, stays) == wants_inside, bool)

    return Choice(
        lambda place: within(centres(mapped, place)),
        lambda index: bool(within(np.array([group_centre(mapped, mapped.stitched.groups[index])]))[0]),
    )


def _stays(mapped: Mapped, chosen: Choice, place: Place) -> NDArray[np.bool_]:
    """[1 + objects]: which numbers of a window belong to chosen objects; 0 is background."""
    small = mapped.stitched.small[place]
    table = np.zeros(1 + len(small) + mapped.store.summary(place).large, bool)
    table[1 : 1 + len(small)] = small & chosen.small(place)
    for number in range(1 + len(small), len(table)):
        index = mapped.stitched.piece_of[place, number]
        table[number] = mapped.stitched.groups[index].on_tissue and chosen.group(index)
    return table


def _marked(
    mapped: Mapped, points: NDArray[np.float64], stays: Callable[[Place], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """Whether a chosen object lies at each [n, 2] full-resolution place."""
    grid, store = mapped.store.grid, mapped.store
    columns, rows_ = np.floor(points / mapped.step).astype(np.int64).T
    home_x, home_y = (columns - grid.x0) // grid.window_px, (rows_ - grid.y0) // grid.window_px
    found = np.zeros(len(points), bool)
    for home in set(zip(home_x.tolist(), home_y.tolist(), strict=True)):
        here = (home_x == home[0]) & (home_y == home[1])
        for place in ((home[0] + dx, home[1] + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
            if place not in store.windows:
                continue
            frame = store.frame(place)
            at = np.flatnonzero(
                here & (columns >= frame.x0) & (columns < frame.x1) & (rows_ >= frame.y0) & (rows_ < frame.y1)
            )
            found[at] |= stays(place)[store.labels(place)[rows_[at] - frame.y0, columns[at] - frame.x0]]
    return found


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
        stays, small = _stays(mapped, chosen, place), len(mapped.stitched.small[place])
        for y, x in np.argwhere(stays[labels]).tolist():
            number = int(labels[y, x])
            each = (place, number) if number <= small else mapped.stitched.piece_of[place, number]
            found.append((each, shared.x0 + x, shared.y0 + y))
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
