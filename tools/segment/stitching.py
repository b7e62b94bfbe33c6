"""One numbering of the objects of all windows: fragments joined, doubles dropped, ids in reading order of windows.

Runs over the files the windows wrote, always in the same order, so the numbers do not depend on who finished first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.tools.segment.cutting import STRIP_PX, frame_of
from tissuetalk.tools.segment.grid import Grid, Window, grown, inside, intersection
from tissuetalk.tools.segment.windows import Numbers, WindowFiles, WindowSummary

SAME_SHARE = 0.5
"""Two windows mean one object when they share more than this of the smaller of the two."""
_NEIGHBOURS = ((1, 0), (-1, 1), (0, 1), (1, 1))
"""Windows that come later in reading order."""
Place = tuple[int, int]
"""Column and row of a window."""
Piece = tuple[Place, int]
"""A window and the number of a fragment in it."""


@dataclass
class Group:
    """A large object: the fragments that make it up, in reading order of windows; area and sums in working pixels."""

    pieces: list[Piece] = field(default_factory=list)
    area: int = 0
    sum_x: int = 0
    sum_y: int = 0
    x0: int = 2**62
    y0: int = 2**62
    x1: int = -(2**62)
    y1: int = -(2**62)
    on_tissue: bool = False

    @property
    def centre(self) -> tuple[float, float]:
        """Mean x and y of its pixels, pixel edges at whole numbers."""
        return self.sum_x / self.area + 0.5, self.sum_y / self.area + 0.5


class WindowStore:
    """The finished windows of one grid and one prompt, read from their files a few at a time."""

    def __init__(self, folder: Path, grid: Grid, windows: Sequence[Window], prompt: int) -> None:
        self.grid, self.prompt = grid, prompt
        self.windows = {(window.column, window.row): window for window in windows}
        self.files = {place: WindowFiles(folder / window.name) for place, window in self.windows.items()}
        self._labels = lru_cache(maxsize=9)(self._read_labels)

    def order(self) -> list[Place]:
        """Reading order."""
        return sorted(self.windows, key=lambda place: (place[1], place[0]))

    def frame(self, place: Place) -> Box:
        return frame_of(self.windows[place], self.grid.box)

    def labels(self, place: Place) -> Numbers:
        """[frame.height, frame.width] numbers of this window."""
        return self._labels(place)

    def forget(self) -> None:
        """Give back the memory of the labels read last."""
        self._labels.cache_clear()

    def summary(self, place: Place) -> WindowSummary:
        return self.files[place].read_summaries()[self.prompt]

    def _read_labels(self, place: Place) -> Numbers:
        frame = self.frame(place)
        return self.files[place].read_labels(self.prompt, (frame.height, frame.width))


@dataclass
class Stitched:
    """small[place]: which whole objects of a window are kept. groups: large objects. piece_of: fragment to group."""

    small: dict[Place, NDArray[np.bool_]]
    groups: list[Group]
    piece_of: dict[Piece, int]


def stitch(store: WindowStore, *, objects: bool, stop: Callable[[], None] = lambda: None) -> Stitched:
    """Join and drop. objects: touching neighbours are different things; else all that touches is one."""
    summaries = {place: store.summary(place) for place in store.order()}
    kept = {place: np.ones(summary.small, bool) for place, summary in summaries.items()}
    parent: dict[Piece, Piece] = {
        (place, summary.small + 1 + index): (place, summary.small + 1 + index)
        for place, summary in summaries.items()
        for index in range(summary.large)
    }
    for place in summaries:
        for dx, dy in _NEIGHBOURS:
            other = (place[0] + dx, place[1] + dy)
            if other in summaries:
                stop()
                _compare(store, place, other, summaries, kept, parent, objects)
    return _grouped(summaries, kept, parent)


def _compare(
    store: WindowStore,
    one: Place,
    other: Place,
    summaries: dict[Place, WindowSummary],
    kept: dict[Place, NDArray[np.bool_]],
    parent: dict[Piece, Piece],
    objects: bool,
) -> None:
    first, second = summaries[one], summaries[other]
    if not (first.areas.size and second.areas.size):
        return
    frames = store.frame(one), store.frame(other)
    shared = intersection(*frames)
    if shared is None:
        return
    labels = [
        store.labels(place)[inside(shared, frame)] for place, frame in zip((one, other), frames, strict=True)
    ]
    for a, b, count in _pairs(*labels):
        a_small, b_small = a <= first.small, b <= second.small
        if not (a_small or b_small):
            continue
        if count > SAME_SHARE * min(first.areas[a - 1], second.areas[b - 1]):
            if b_small:
                kept[other][b - 1] = False
            else:
                kept[one][a - 1] = False
    if first.large and second.large:
        _join(store, one, other, summaries, parent, objects)


def _join(
    store: WindowStore,
    one: Place,
    other: Place,
    summaries: dict[Place, WindowSummary],
    parent: dict[Piece, Piece],
    objects: bool,
) -> None:
    """Fragments that both windows see at the same pixels near their border are one object."""
    strips = [grown(store.windows[place].core, STRIP_PX) for place in (one, other)]
    near = intersection(*strips)
    near = None if near is None else intersection(near, store.grid.box)
    if near is None:
        return
    a_labels, b_labels = (
        np.where(part > summaries[place].small, part, 0)
        for place in (one, other)
        for part in [store.labels(place)[inside(near, store.frame(place))]]
    )
    a_sizes, b_sizes = np.bincount(a_labels.ravel()), np.bincount(b_labels.ravel())
    for a, b, count in _pairs(a_labels, b_labels):
        if not objects or count > SAME_SHARE * min(a_sizes[a], b_sizes[b]):
            _unite(parent, (one, a), (other, b))


def _pairs(one: Numbers, other: Numbers) -> Iterator[tuple[int, int, int]]:
    """(number here, number there, shared pixels) of everything that overlaps."""
    both = (one > 0) & (other > 0)
    if not both.any():
        return
    codes, counts = np.unique(
        one[both].astype(np.int64) << 32 | other[both].astype(np.int64), return_counts=True
    )
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        yield code >> 32, code & 0xFFFFFFFF, count


def _root(parent: dict[Piece, Piece], piece: Piece) -> Piece:
    while parent[piece] != piece:
        parent[piece] = parent[parent[piece]]
        piece = parent[piece]
    return piece


def _unite(parent: dict[Piece, Piece], one: Piece, other: Piece) -> None:
    """The piece that comes first in reading order stands for both."""
    first, second = sorted((_root(parent, one), _root(parent, other)), key=_reading)
    parent[second] = first


def _reading(piece: Piece) -> tuple[int, int, int]:
    (column, row), number = piece
    return row, column, number


def _grouped(
    summaries: dict[Place, WindowSummary], kept: dict[Place, NDArray[np.bool_]], parent: dict[Piece, Piece]
) -> Stitched:
    groups: dict[Piece, Group] = {}
    piece_of: dict[Piece, int] = {}
    for piece in sorted(parent, key=_reading):
        place, number = piece
        summary = summaries[place]
        part = summary.fragments[number - 1 - summary.small]
        group = groups.setdefault(_root(parent, piece), Group())
        group.pieces.append(piece)
        group.area += part["area"]
        group.sum_x += part["sum_x"]
        group.sum_y += part["sum_y"]
        x0, y0, x1, y1 = part["box"]
        group.x0, group.y0 = min(group.x0, x0), min(group.y0, y0)
        group.x1, group.y1 = max(group.x1, x1), max(group.y1, y1)
        group.on_tissue |= part["on_tissue"]
    for index, group in enumerate(groups.values()):
        for piece in group.pieces:
            piece_of[piece] = index
    return Stitched(kept, list(groups.values()), piece_of)


@dataclass(frozen=True)
class Numbered:
    """numbers[place][k]: final id of object k of that window, 0 for one that is left out. group_ids: of large objects."""

    numbers: dict[Place, NDArray[np.int32]]
    group_ids: dict[int, int]
    count: int


def number(
    store: WindowStore,
    stitched: Stitched,
    keep_small: Callable[[Place], NDArray[np.bool_]],
    keep_group: Callable[[int], bool],
) -> Numbered:
    """Ids 1..N without gaps: window by window in reading order, a large object where its first fragment lies."""
    numbers: dict[Place, NDArray[np.int32]] = {}
    group_ids: dict[int, int] = {}
    last = 0
    pieces_in: dict[Place, list[Piece]] = {}
    for piece in stitched.piece_of:
        pieces_in.setdefault(piece[0], []).append(piece)
    for place in store.order():
        kept = stitched.small[place] & keep_small(place)
        here = sorted(pieces_in.get(place, []), key=_reading)
        table = np.zeros(1 + len(kept) + len(here), np.int32)
        table[1 : 1 + len(kept)][kept] = np.arange(last + 1, last + 1 + int(kept.sum()))
        last += int(kept.sum())
        for piece in here:
            group = stitched.piece_of[piece]
            if group not in group_ids and stitched.groups[group].on_tissue and keep_group(group):
                last += 1
                group_ids[group] = last
            table[piece[1]] = group_ids.get(group, 0)
        numbers[place] = table
    return Numbered(numbers, group_ids, last)
