"""Which window an object belongs to.

Every window sees more than its core. An object whose sides are all shorter than ``SMALL_PX`` is seen whole by each window
it reaches, and belongs to the one whose core holds its first pixel in reading order: it is never cut and never counted
twice. A larger one is cut along the cores into fragments, which are put together again where windows meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.images import Box
from tissuetalk.tools.segment.grid import Window, grown, inside, intersection

SMALL_PX = 128
"""Objects with a side of at least this are put together from fragments."""
PAD_PX = 160
"""How far beyond its core a window looks: an object smaller than SMALL_PX is decided at least 32 px from the edge."""
STRIP_PX = 8
"""How far fragments reach beyond the core, so that those of one object are recognised where windows meet."""


@dataclass(frozen=True)
class Cut:
    """What one window contributes.

    frame: the working pixels that ``labels`` covers: core and SMALL_PX around it. labels: 1..small are whole objects,
    small+1..small+large fragments. areas: [small + large] px; of a fragment, those in the core.
    """

    frame: Box
    labels: NDArray[np.int32]
    small: int
    large: int
    areas: NDArray[np.int64]
    anchors: NDArray[np.int64]
    """[small, 2] x, y of each whole object's first pixel in reading order, in working pixels."""
    fragments: list[Fragment]


@dataclass(frozen=True)
class Fragment:
    """The part of a large object in one core. Sums of x and y are over pixels, in working pixels."""

    area: int
    sum_x: int
    sum_y: int
    box: Box
    on_tissue: bool


def view_of(window: Window, region: Box) -> Box:
    """What a window looks at, in working pixels."""
    return intersection(grown(window.core, PAD_PX), region) or window.core


def frame_of(window: Window, region: Box) -> Box:
    """What a window writes labels for."""
    return intersection(grown(window.core, SMALL_PX), region) or window.core


def connected(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """[H, W]: the connected parts of a region, touching at corners included."""
    return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1], np.int32)


def cut(labels: NDArray[np.int32], seen: Box, window: Window, region: Box, tissue: NDArray[np.bool_]) -> Cut:
    """Sort the objects of a view. labels, tissue: [seen.height, seen.width]; ``seen`` is all of the view that holds any."""
    frame = frame_of(window, region)
    boxes = ndimage.find_objects(labels)
    numbers = np.array([number for number, at in enumerate(boxes, start=1) if at is not None], np.int64)
    sides = np.array([max(s.stop - s.start for s in boxes[number - 1]) for number in numbers], np.int64)
    first = _first_pixels(labels, len(boxes))[numbers] if len(numbers) else np.zeros((0, 2), np.int64)
    in_core = _within(first, inside(window.core, seen))
    touched = _present(labels[tissue], len(boxes))
    whole = numbers[(sides < SMALL_PX) & in_core & touched[numbers]]
    large = numbers[sides >= SMALL_PX]
    core = intersection(window.core, seen)
    if core is None:
        large = large[:0]
    elif len(large):
        large = large[_present(labels[inside(core, seen)].ravel(), len(boxes))[large]]

    whole, large = _in_reading_order(whole, numbers, first), _in_reading_order(large, numbers, first)
    kept = np.zeros((frame.height, frame.width), np.int32)
    strip = intersection(grown(window.core, STRIP_PX), region) or window.core
    _put(kept, frame, labels, seen, frame, _renaming(len(boxes), whole, 0))
    areas = np.bincount(kept[kept > 0], minlength=len(whole) + 1)[1:]
    fragments = []
    if len(large):
        _put(kept, frame, labels, seen, strip, _renaming(len(boxes), large, len(whole)))
        for index, number in enumerate(large.tolist(), start=len(whole) + 1):
            rows, columns = boxes[number - 1]
            box = Box(
                seen.x0 + columns.start, seen.y0 + rows.start, seen.x0 + columns.stop, seen.y0 + rows.stop
            )
            part = intersection(box, window.core) or window.core
            fragments.append(_fragment(kept[inside(part, frame)] == index, part, bool(touched[number])))
    areas = np.concatenate([areas, [each.area for each in fragments]]).astype(np.int64)
    by_number = first[np.searchsorted(numbers, whole)] if len(whole) else np.zeros((0, 2), np.int64)
    anchors = by_number[:, ::-1] + np.array([seen.x0, seen.y0])
    return Cut(frame, kept, len(whole), len(large), areas, anchors, fragments)


def _renaming(count: int, chosen: NDArray[np.int64], after: int) -> NDArray[np.int32]:
    """[count + 1]: the chosen numbers become after + 1, after + 2 and so on, all others 0."""
    rename = np.zeros(count + 1, np.int32)
    rename[chosen] = np.arange(after + 1, after + 1 + len(chosen))
    return rename


def _put(
    kept: NDArray[np.int32],
    frame: Box,
    labels: NDArray[np.int32],
    seen: Box,
    within: Box,
    rename: NDArray[np.int32],
) -> None:
    """Renamed labels of the box ``within`` over what ``kept`` holds there."""
    shared = intersection(within, seen)
    if shared is not None:
        new = rename[labels[inside(shared, seen)]]
        np.copyto(kept[inside(shared, frame)], new, where=new > 0)


def _present(values: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """[count + 1]: which numbers occur."""
    found = np.zeros(count + 1, bool)
    found[values] = True
    return found


def _first_pixels(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """[count + 1, 2] row, column of each label's first pixel in reading order."""
    flat = labels.ravel()
    at = np.flatnonzero(flat)[::-1]
    first = np.zeros(count + 1, np.int64)
    first[flat[at]] = at
    return np.stack(np.divmod(first, labels.shape[1]), axis=1)


def _within(places: NDArray[np.int64], at: tuple[slice, slice]) -> NDArray[np.bool_]:
    rows, columns = places[:, 0], places[:, 1]
    down = (rows >= at[0].start) & (rows < at[0].stop)
    return np.asarray(down & (columns >= at[1].start) & (columns < at[1].stop), bool)


def _in_reading_order(
    chosen: NDArray[np.int64], numbers: NDArray[np.int64], first: NDArray[np.int64]
) -> NDArray[np.int64]:
    places = first[np.searchsorted(numbers, chosen)] if len(chosen) else np.zeros((0, 2), np.int64)
    return chosen[np.lexsort((places[:, 1], places[:, 0]))]


def _fragment(mask: NDArray[np.bool_], core: Box, on_tissue: bool) -> Fragment:
    """mask: [core.height, core.width], or of any box in the core that holds all of it."""
    rows, columns = np.nonzero(mask)
    box = Box(
        core.x0 + int(columns.min()),
        core.y0 + int(rows.min()),
        core.x0 + int(columns.max()) + 1,
        core.y0 + int(rows.max()) + 1,
    )
    sum_x, sum_y = int(columns.sum()) + len(rows) * core.x0, int(rows.sum()) + len(rows) * core.y0
    return Fragment(len(rows), sum_x, sum_y, box, on_tissue)
