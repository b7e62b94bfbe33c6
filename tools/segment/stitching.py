"""One numbering of the objects of all windows: fragments joined, doubles dropped, ids in reading order of first pixels.

Runs over the files the windows wrote, always in the same order, so the numbers do not depend on who finished first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.images import Box
from tissuetalk.tools.segment.decide import (
    NOTHING,
    Labels,
    RegionEvidence,
    frame_of,
    in_reading_order,
    strip_of,
)
from tissuetalk.tools.segment.grid import Grid, Window
from tissuetalk.tools.segment.windows import Numbers, WindowFiles, WindowSummary

SAME_SHARE = 0.5
"""Two windows mean one object when they share more than this of the smaller of the two."""
_NEIGHBOURS = ((1, 0), (-1, 1), (0, 1), (1, 1))
"""Windows that come later in reading order."""
Address = tuple[int, int]
"""Column and row of a window."""
Piece = tuple[Address, int]
"""A window and the number of a fragment in it."""


@dataclass
class Group:
    """A large object: its fragments in reading order of windows; full-resolution pixels; x, y of its first working one."""

    pieces: list[Piece] = field(default_factory=list)
    area: int = 0
    box: Box | None = None
    first: tuple[int, int] = (2**62, 2**62)
    on_tissue: bool = False


class WindowStore:
    """The finished windows of one grid and one prompt, read from their files a few at a time."""

    def __init__(self, folder: Path, grid: Grid, windows: Sequence[Window], prompt: int) -> None:
        self.grid, self.prompt = grid, prompt
        self.windows = {(window.column, window.row): window for window in windows}
        self.files = {at: WindowFiles(folder / window.name) for at, window in self.windows.items()}
        self._labels = lru_cache(maxsize=9)(self._read_labels)

    def order(self) -> list[Address]:
        """Reading order."""
        return sorted(self.windows, key=lambda at: (at[1], at[0]))

    def frame(self, at: Address) -> Box:
        return frame_of(self.windows[at], self.grid)

    def labels(self, at: Address) -> Numbers:
        """[frame.height, frame.width] numbers of this window."""
        return self._labels(at)

    def forget(self) -> None:
        """Give back the memory of the labels read last."""
        self._labels.cache_clear()

    def summary(self, at: Address) -> WindowSummary:
        return self.files[at].read_summaries()[self.prompt]

    def _read_labels(self, at: Address) -> Numbers:
        frame = self.frame(at)
        return self.files[at].read_labels(self.prompt, (frame.height, frame.width))


@dataclass
class Stitched:
    """All objects of a mask. small[at]: which whole objects of a window are kept. first[at]: their first pixels.

    groups: large objects. piece_of: fragment to group. evidence: of the whole region. specks: too small to count.
    """

    small: dict[Address, NDArray[np.bool_]]
    first: dict[Address, NDArray[np.int64]]
    groups: list[Group]
    piece_of: dict[Piece, int]
    evidence: RegionEvidence
    specks: int
    area: int
    """Full-resolution pixels of all objects on tissue."""


def stitch(store: WindowStore, *, objects: bool, control: Control = Control()) -> Stitched:
    """Join and drop. objects: touching neighbours are different things; else all that touches is one."""
    summaries = {at: store.summary(at) for at in store.order()}
    kept = {at: summary.areas[: summary.small] > 0 for at, summary in summaries.items()}
    parent: dict[Piece, Piece] = {
        (at, summary.small + 1 + index): (at, summary.small + 1 + index)
        for at, summary in summaries.items()
        for index in range(summary.large)
    }
    for at in summaries:
        for dx, dy in _NEIGHBOURS:
            other = (at[0] + dx, at[1] + dy)
            if other in summaries:
                control.check()
                _compare(store, at, other, summaries, kept, parent, objects)
    groups, piece_of = _grouped(summaries, parent)
    evidence = NOTHING
    for summary in summaries.values():
        evidence = evidence + summary.evidence
    area = sum(group.area for group in groups if group.on_tissue)
    area += sum(int(summary.areas[: summary.small][kept[at]].sum()) for at, summary in summaries.items())
    return Stitched(
        kept,
        {at: summary.first for at, summary in summaries.items()},
        groups,
        piece_of,
        evidence,
        sum(summary.specks for summary in summaries.values()),
        area,
    )


def _compare(
    store: WindowStore,
    one: Address,
    other: Address,
    summaries: dict[Address, WindowSummary],
    kept: dict[Address, NDArray[np.bool_]],
    parent: dict[Piece, Piece],
    objects: bool,
) -> None:
    first, second = summaries[one], summaries[other]
    if not (first.areas.size and second.areas.size):
        return
    frames = store.frame(one), store.frame(other)
    shared = frames[0].intersection(frames[1])
    if shared is None:
        return
    labels = [store.labels(at)[shared.inside(frame)] for at, frame in zip((one, other), frames, strict=True)]
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
    one: Address,
    other: Address,
    summaries: dict[Address, WindowSummary],
    parent: dict[Piece, Piece],
    objects: bool,
) -> None:
    """Fragments that both windows see at the same pixels near their border are one object."""
    near = strip_of(store.windows[one], store.grid).intersection(strip_of(store.windows[other], store.grid))
    if near is None:
        return
    a_labels, b_labels = (
        np.where(part > summaries[at].small, part, 0)
        for at in (one, other)
        for part in [store.labels(at)[near.inside(store.frame(at))]]
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
    summaries: dict[Address, WindowSummary], parent: dict[Piece, Piece]
) -> tuple[list[Group], dict[Piece, int]]:
    groups: dict[Piece, Group] = {}
    for piece in sorted(parent, key=_reading):
        at, number = piece
        part = summaries[at].fragments[number - 1 - summaries[at].small]
        group = groups.setdefault(_root(parent, piece), Group())
        group.pieces.append(piece)
        group.area += part.area
        old, new = group.box or part.box, part.box
        group.box = Box(min(old.x0, new.x0), min(old.y0, new.y0), max(old.x1, new.x1), max(old.y1, new.y1))
        group.first = min(group.first, part.first, key=lambda xy: (xy[1], xy[0]))
        group.on_tissue |= part.on_tissue
    piece_of = {piece: index for index, group in enumerate(groups.values()) for piece in group.pieces}
    return list(groups.values()), piece_of


@dataclass(frozen=True)
class StitchedLabels:
    """The label image of one mask of a slide, over the files of its windows.

    numbers[at][k]: final id of object k of that window, 0 for one that is left out. group_ids: of large objects.
    """

    store: WindowStore
    stitched: Stitched
    numbers: dict[Address, Labels]
    group_ids: dict[int, int]
    objects: bool
    count: int

    @property
    def region(self) -> Box:
        return self.store.grid.region

    def parts(self) -> list[Box]:
        """Of windows without anything nothing is read."""
        return [self.store.windows[at].full for at in self.store.order()]

    def read(self, box: Box) -> Labels:
        """Where two objects claim a pixel the lower id has it."""
        canvas = np.zeros((box.height, box.width), np.int32)
        for at, window in self.store.windows.items():
            if (core := window.full.intersection(box)) is not None:
                self._add(canvas[core.inside(box)], core, at)
        return canvas

    def _add(self, canvas: Labels, core: Box, at: Address) -> None:
        """All that lies on a part of a window's core, also what belongs to a neighbour."""
        for other in ((at[0] + dx, at[1] + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
            if other not in self.numbers or not self.numbers[other].any():
                continue
            frame = self.store.frame(other)
            shared = core.intersection(frame)
            if shared is None:
                continue
            labels = self.store.labels(other)[shared.inside(frame)]
            if other != at:  # fragments end where their own core ends
                labels = np.where(labels <= len(self.stitched.small[other]), labels, 0)
            ids = self.numbers[other][labels]
            here = canvas[shared.inside(core)]
            free = (ids > 0) & ((here == 0) | (ids < here))
            here[free] = ids[free]


def number(store: WindowStore, stitched: Stitched, *, objects: bool, present: bool) -> StitchedLabels:
    """Ids 1..N in reading order of the objects' first working pixels; without any when the target is not present."""
    order = store.order()
    whole = [stitched.first[at][stitched.small[at]] for at in order]
    groups = [index for index, group in enumerate(stitched.groups) if group.on_tissue and group.area]
    firsts = np.concatenate(
        [*whole, np.array([stitched.groups[index].first for index in groups], np.int64).reshape(-1, 2)]
    )
    ids = np.zeros(len(firsts), np.int32)
    if present:
        ids[in_reading_order(firsts)] = np.arange(1, len(firsts) + 1)
    group_ids = dict(zip(groups, ids[len(firsts) - len(groups) :].tolist(), strict=True)) if present else {}
    numbers: dict[Address, Labels] = {}
    pieces_in: dict[Address, list[int]] = {}
    for at, piece in sorted(stitched.piece_of, key=_reading):
        pieces_in.setdefault(at, []).append(piece)
    given = 0
    for at in order:
        kept, pieces = stitched.small[at], pieces_in.get(at, [])
        table = np.zeros(1 + len(kept) + len(pieces), np.int32)
        mine = int(kept.sum())
        table[1 : 1 + len(kept)][kept] = ids[given : given + mine]
        given += mine
        for piece in pieces:
            table[piece] = group_ids.get(stitched.piece_of[at, piece], 0)
        numbers[at] = table
    return StitchedLabels(store, stitched, numbers, group_ids, objects, len(ids) if present else 0)
