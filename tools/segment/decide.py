"""From blended maps to objects: what counts, which window an object belongs to, and its outline at full resolution.

Every step gives the same pixels whatever window it is computed in: a model decides objects on a view that reaches far
beyond what is asked for, and everything after that looks at a pixel's neighbours only.

Every window sees more than its core. An object whose sides are all shorter than ``SMALL_PX`` is seen whole by each window
it reaches, and belongs to the one whose core holds its first pixel in reading order: it is never cut and never counted
twice. A larger one is cut along the cores into fragments, which are put together again where windows meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.models.masks.characteristics import largest
from tissuetalk.models.segmenter import TAUGHT, Capability, Context, Decoded, Prompt, Segmenter
from tissuetalk.tools.masks.rasters import Tissue
from tissuetalk.tools.segment.grid import Grid, Window
from tissuetalk.tools.segment.unsure import Unsure, least_sure

Labels = NDArray[np.int32]

SMALL_PX = 128
"""Objects with a side of at least this, in working pixels, are put together from fragments."""
PAD_PX = 160
"""How far beyond its core a window looks: an object smaller than SMALL_PX is decided at least 32 px from the edge."""
STRIP_PX = 8
"""How far fragments reach beyond the core, so that those of one object are recognised where windows meet."""
STRONGEST_SIDE = 32
"""The strongest pixels of a view that speak for presence, as a square picture of this side."""
STRIP_AT_ONCE = 4_000_000
"""Full-resolution pixels enlarged at once."""


@dataclass(frozen=True)
class ScaledPrompt:
    """One prompt to one model at one scale."""

    model: Segmenter
    prompt: Prompt
    capability: Capability
    context: Context

    @property
    def is_taught(self) -> bool:
        """Whether it means what examples showed."""
        return (self.prompt.concept or "").startswith(TAUGHT)


@dataclass(frozen=True)
class RegionEvidence:
    """What a piece of the region says about a prompt; pieces are added up.

    said: highest presence logit of any tile. strongest: the largest logits, falling. both, share, painted: sums over every
    other working pixel of p*m, p and m, of the pixels' probabilities p and the mask m.
    """

    said: float | None
    strongest: NDArray[np.float32]
    both: float = 0.0
    share: float = 0.0
    painted: float = 0.0
    unsure: Unsure | None = None
    """How much the pixels around a working pixel x, y hang in the balance, where they do most; of a taught target only."""

    def __add__(self, other: RegionEvidence) -> RegionEvidence:
        said = [each for each in (self.said, other.said) if each is not None]
        strongest = np.sort(np.concatenate([self.strongest, other.strongest]))[::-1][: STRONGEST_SIDE**2]
        return RegionEvidence(
            max(said) if said else None,
            strongest,
            self.both + other.both,
            self.share + other.share,
            self.painted + other.painted,
            max((each for each in (self.unsure, other.unsure) if each is not None), default=None),
        )

    @property
    def expected_dice(self) -> float:
        """Overlap to expect if the model's own pixel probabilities were right, 2 sum(p m) / sum(p + m)."""
        return round(2 * self.both / max(1e-6, self.share + self.painted), 9)

    def presence(self, question: ScaledPrompt) -> float:
        """0..1: what the model makes of the strongest pixels of all pieces, put together to one small picture.

        So a region that was worked on in a thousand windows is judged as if it had been seen at once.
        """
        if not self.strongest.size:
            return 0.0
        side = STRONGEST_SIDE if self.strongest.size == STRONGEST_SIDE**2 else 1
        picture = np.ascontiguousarray(self.strongest.reshape(side, -1))
        finished = question.model.finish(Decoded(picture, self.said), question.prompt, question.context)
        return float(finished.presence)


NOTHING = RegionEvidence(None, np.zeros(0, np.float32))


@dataclass(frozen=True)
class Decided:
    """Objects, or connected parts of a region, of one view at the model's scale.

    view: working pixels. labels: [view.height, view.width], 0 background. logits: likewise. sizes: [n + 1] working pixels
    of each number. first: [n + 1, 2] x, y of the first pixel in reading order, working pixels. boxes: [n + 1, 4] x0, y0,
    x1, y1 of each number, working pixels; empty where there is none. on_tissue, speck: [n + 1], whether it touches tissue and whether
    it is too small to count. covered: where any tile was.
    """

    view: Box
    labels: Labels
    logits: NDArray[np.float32]
    covered: NDArray[np.bool_]
    said: float | None
    boxes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    first: NDArray[np.int64]
    on_tissue: NDArray[np.bool_]
    speck: NDArray[np.bool_]

    @property
    def marked(self) -> Box | None:
        """What of the view holds any object, in working pixels."""
        found = self.boxes[self.sizes > 0]
        found = found[found[:, 2] > 0]
        if not len(found):
            return None
        return Box(*found[:, :2].min(axis=0).tolist(), *found[:, 2:].max(axis=0).tolist())

    @property
    def counted(self) -> NDArray[np.bool_]:
        """[n + 1]."""
        found = self.on_tissue & ~self.speck & (self.sizes > 0)
        found[0] = False
        return found

    def first_in(self, core: Box) -> NDArray[np.bool_]:
        """[n + 1]: whose first pixel lies in a box of working pixels."""
        x, y = self.first.T
        return np.asarray((x >= core.x0) & (x < core.x1) & (y >= core.y0) & (y < core.y1), bool)

    def evidence(self, core: Box, *, taught: bool = False) -> RegionEvidence:
        """Of a box in the view. taught: examples showed it, so where one more would help is looked for."""
        at = core.inside(self.view)
        logits, covered = self.logits[at], self.covered[at]
        strongest = largest(logits[covered], STRONGEST_SIDE**2)
        # every other pixel, counted from the image's corner, whichever window it is in
        every = slice(core.y0 % 2, None, 2), slice(core.x0 % 2, None, 2)
        seen = covered[every]
        logit = np.clip(logits[every][seen], -30, 30)
        share = 1 / (1 + np.exp(-logit.astype(np.float64)))
        mask = self.counted[self.labels[at][every][seen]]
        return RegionEvidence(
            self.said,
            np.sort(strongest)[::-1],
            float(share[mask].sum()),
            float(share.sum()),
            float(mask.sum()),
            least_sure(logits, covered, core) if taught else None,
        )


def decide(
    question: ScaledPrompt,
    blended: tuple[Decoded, NDArray[np.bool_]] | None,
    view: Box,
    tissue: NDArray[np.bool_],
) -> Decided | None:
    """Let the model decide objects. tissue: [view.height, view.width] or whatever broadcasts; None without any maps."""
    if blended is None:
        return None
    maps, covered = blended
    finished = question.model.finish(_even(maps), question.prompt, question.context)
    mask = finished.mask[: view.height, : view.width]
    if finished.instances is None:
        labels = connected(mask)
    else:
        labels = np.ascontiguousarray(finished.instances[: view.height, : view.width])
    marked = Box.around(labels, view.x0, view.y0) or Box(view.x0, view.y0, view.x0 + 1, view.y0 + 1)
    here = labels[marked.inside(view)]
    at = np.flatnonzero(here > 0)
    numbers = here.ravel()[at]
    y, x = np.divmod(at, marked.width)
    x, y = x + marked.x0, y + marked.y0
    sizes = np.bincount(numbers, minlength=1)
    on_tissue = np.zeros(len(sizes), bool)
    near = np.broadcast_to(tissue, labels.shape)[marked.inside(view)].ravel()[at]
    on_tissue[numbers[near]] = True
    boxes, first = np.zeros((len(sizes), 4), np.int64), np.zeros((len(sizes), 2), np.int64)
    low = np.full(len(sizes), view.x1)
    np.minimum.at(low, numbers, x)
    np.maximum.at(boxes[:, 2], numbers, x + 1)
    boxes[sizes > 0, 0] = low[sizes > 0]
    # the pixel written last stays: backwards it is the first in reading order
    first[numbers[::-1]] = np.stack([x[::-1], y[::-1]], axis=1)
    boxes[:, 1] = first[:, 1]
    boxes[numbers, 3] = y + 1
    speck = sizes < question.capability.least_px
    return Decided(view, labels, maps.logits, covered, maps.presence, boxes, sizes, first, on_tissue, speck)


def tissue_in(tissue: Tissue, box: Box, step: float) -> NDArray[np.bool_]:
    """[box.height, box.width] of working pixels, or [1, 1] where all is: where there is tissue or it is near."""
    if tissue.near.all():
        return np.ones((1, 1), bool)
    x, y = (
        (start + np.arange(count, dtype=np.float64) + 0.5) * step
        for start, count in ((box.x0, box.width), (box.y0, box.height))
    )
    return tissue.near_at(x, y)


def _even(maps: Decoded) -> Decoded:
    """Sides of an even number of pixels: models that halve their maps then pair the same pixels in every view."""
    bottom, right = (side % 2 for side in maps.logits.shape)
    if not (bottom or right):
        return maps
    edge = ((0, bottom), (0, right))
    extra = None if maps.object_maps is None else np.pad(maps.object_maps, ((0, 0), *edge), mode="edge")
    return Decoded(np.pad(maps.logits, edge, mode="edge"), maps.presence, extra)


def connected(mask: NDArray[np.bool_]) -> Labels:
    """[H, W]: the connected parts of a region, touching at corners included."""
    return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1], np.int32)


def in_reading_order(first: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order that sorts [n, 2] x, y by row, then column."""
    return np.lexsort((first[:, 0], first[:, 1]))


def at_full_resolution(decided: Decided, grid: Grid, out: Box) -> Labels:
    """[out.height, out.width]: the view's labels in full-resolution pixels of a box that the view covers.

    Outlines are drawn where the bilinearly enlarged logits cross zero; where a model filled or claimed pixels below zero,
    these are kept as they are. Objects that touch share the rim between them pixel by pixel.
    """
    view, labels, step = decided.view, decided.labels, grid.step
    if step == 1.0:
        return labels[out.inside(view)]
    canvas = np.zeros((out.height, out.width), np.int32)
    marked = Box.around(labels, view.x0, view.y0)
    here = None if marked is None else grid.full(marked.grown(2)).intersection(out)
    if here is None:
        return canvas
    columns = _Sampling.along(here.x0, here.x1, step, (view.x0, view.x1))
    grown = _grown(labels)
    solid = (labels > 0) & (decided.logits <= 0)
    rows_at_once = max(1, STRIP_AT_ONCE // here.width)
    for top in range(here.y0, here.y1, rows_at_once):
        bottom = min(top + rows_at_once, here.y1)
        rows = _Sampling.along(top, bottom, step, (view.y0, view.y1))
        value = rows.mixed(decided.logits[:, columns.least : columns.most + 1], axis=0)
        outline = columns.mixed(value, axis=1, start=columns.least) > 0
        at = np.ix_(rows.nearest, columns.nearest)
        canvas[top - out.y0 : bottom - out.y0, here.x0 - out.x0 : here.x1 - out.x0] = np.where(
            outline | solid[at], grown[at], 0
        )
    return canvas


@dataclass(frozen=True)
class _Sampling:
    """Which working pixels each of a run of full-resolution pixels lies on and between.

    nearest, before, after: [n] indices in an array of the view. weight: [n] of ``after``.
    """

    nearest: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def along(cls, start: int, end: int, step: float, view: tuple[int, int]) -> _Sampling:
        """From the places in the image, not in the window, so that every window computes the same."""
        middles = (np.arange(start, end, dtype=np.float64) + 0.5) / step
        between = np.floor(middles - 0.5)

        def inside(at: NDArray[np.float64]) -> NDArray[np.int64]:
            return np.clip(at.astype(np.int64), view[0], view[1] - 1) - view[0]

        weight = (middles - 0.5 - between).astype(np.float32)
        return cls(inside(np.floor(middles)), inside(between), inside(between + 1), weight)

    @property
    def least(self) -> int:
        return int(self.before[0])

    @property
    def most(self) -> int:
        return int(self.after[-1])

    def mixed(self, values: NDArray[np.float32], axis: int, start: int = 0) -> NDArray[np.float32]:
        """Linear interpolation along an axis of [H, W], whose first index is ``start``."""
        weight = self.weight[:, None] if axis == 0 else self.weight[None, :]
        before = values.take(self.before - start, axis=axis)
        return np.asarray(before + weight * (values.take(self.after - start, axis=axis) - before), np.float32)


_BESIDE = ((0, -1), (-1, 0), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))


def _grown(labels: Labels) -> Labels:
    """Each object by a pixel, so that smooth outlines stay covered. Whose a pixel becomes does not depend on numbers."""
    grown = labels.copy()
    rim = np.argwhere(
        (labels == 0) & (cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    )
    rows, columns = rim.T
    padded = np.pad(labels, 1)
    taken = np.zeros(len(rim), np.int32)
    for down, across in _BESIDE:
        taken = np.where(taken > 0, taken, padded[rows + 1 + down, columns + 1 + across])
    grown[rows, columns] = taken
    return grown


@dataclass(frozen=True)
class Fragment:
    """The part of a large object in one core, in full-resolution pixels. first: x, y of its first working pixel there."""

    area: int
    sum_x: int
    sum_y: int
    box: Box
    first: tuple[int, int]
    on_tissue: bool


@dataclass(frozen=True)
class Cut:
    """What one window contributes, in full-resolution pixels.

    frame: the pixels that ``labels`` covers: core and SMALL_PX around it. labels: 1..small are whole objects,
    small+1..small+large fragments. areas: [small + large] px; of a fragment, those in the core.
    first: [small, 2] x, y of each whole object's first working pixel in reading order.
    specks: objects of this window that are too small to count.
    """

    frame: Box
    labels: Labels
    small: int
    areas: NDArray[np.int64]
    first: NDArray[np.int64]
    fragments: list[Fragment]
    specks: int

    @property
    def large(self) -> int:
        return len(self.fragments)


def view_of(window: Window, grid: Grid) -> Box:
    """What a window looks at, in working pixels."""
    return window.core.grown(PAD_PX).intersection(grid.box) or window.core


def frame_of(window: Window, grid: Grid) -> Box:
    """What a window writes labels for, in full-resolution pixels."""
    return grid.full(window.core.grown(SMALL_PX).intersection(grid.box) or window.core)


def strip_of(window: Window, grid: Grid) -> Box:
    """How far its fragments reach, in full-resolution pixels."""
    return grid.full(window.core.grown(STRIP_PX).intersection(grid.box) or window.core)


def cut(decided: Decided, window: Window, grid: Grid) -> Cut:
    """Sort the objects of a view: those that belong to the window, and its fragments of large ones."""
    frame = frame_of(window, grid)
    kept = np.zeros((frame.height, frame.width), np.int32)
    core = window.core.intersection(decided.view)
    seen = None if decided.marked is None else grid.full(decided.marked.grown(2)).intersection(frame)
    mine = decided.first_in(window.core)
    small = (decided.boxes[:, 2:] - decided.boxes[:, :2]).max(axis=1) < SMALL_PX
    small[0] = False
    specks = int(np.count_nonzero(mine & small & decided.speck & decided.on_tissue & (decided.sizes > 0)))
    whole = np.flatnonzero(small & mine & decided.counted)
    whole = whole[in_reading_order(decided.first[whole])]
    large = np.flatnonzero(~small)[1:]
    if core is None or seen is None:
        large = large[:0]
    else:
        here = np.zeros(len(small), bool)
        here[decided.labels[core.inside(decided.view)]] = True
        large = large[here[large]]
    large = large[in_reading_order(decided.first[large])]
    if seen is not None and len(whole) + len(large):
        labels = at_full_resolution(decided, grid, seen)
        kept[seen.inside(frame)] = _renaming(len(small), whole, 0)[labels]
        strip = strip_of(window, grid).intersection(seen)
        if len(large) and strip is not None:
            new = _renaming(len(small), large, len(whole))[labels[strip.inside(seen)]]
            np.copyto(kept[strip.inside(frame)], new, where=new > 0)
    shown = np.zeros(0, np.int32) if seen is None else kept[seen.inside(frame)].ravel()
    areas = np.bincount(shown, minlength=len(whole) + 1)[1 : len(whole) + 1]
    fragments = []
    for index, number in enumerate(large.tolist(), start=len(whole) + 1):
        fragments.append(_fragment(decided, number, kept, frame, index, window, grid))
    areas = np.concatenate([areas, [each.area for each in fragments]]).astype(np.int64)
    return Cut(frame, kept, len(whole), areas, decided.first[whole], fragments, specks)


def _renaming(count: int, chosen: NDArray[np.int64], after: int) -> Labels:
    """[count]: the chosen numbers become after + 1, after + 2 and so on, all others 0."""
    rename = np.zeros(count, np.int32)
    rename[chosen] = np.arange(after + 1, after + 1 + len(chosen))
    return rename


def _fragment(
    decided: Decided, number: int, kept: Labels, frame: Box, index: int, window: Window, grid: Grid
) -> Fragment:
    """number: of the object in the view. index: of the fragment in the window's labels."""
    view = decided.view
    part = Box(*decided.boxes[number].tolist()).intersection(window.core) or window.core
    row, column = np.unravel_index(
        (decided.labels[part.inside(view)] == number).argmax(), (part.height, part.width)
    )
    first = (part.x0 + int(column), part.y0 + int(row))
    # smooth outlines reach up to a working pixel beyond the object's own
    near = grid.full(part.grown(1)).intersection(window.full) or window.full
    down, across = np.nonzero(kept[near.inside(frame)] == index)
    x, y = across + near.x0, down + near.y0
    if not len(x):
        return Fragment(0, 0, 0, near, first, bool(decided.on_tissue[number]))
    bounds = Box(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
    return Fragment(len(x), int(x.sum()), int(y.sum()), bounds, first, bool(decided.on_tissue[number]))


def all_of(decided: Decided, grid: Grid) -> tuple[Labels, int]:
    """Every object that counts, 1..N in reading order of its first working pixel, and how many specks do not.

    The labels are [grid.region.height, grid.region.width]; an object that no full-resolution pixel shows has no number.
    """
    numbers = np.flatnonzero(decided.counted)
    numbers = numbers[in_reading_order(decided.first[numbers])]
    labels = _renaming(len(decided.sizes), numbers, 0)[at_full_resolution(decided, grid, grid.region)]
    shown = np.bincount(labels.ravel(), minlength=len(numbers) + 1)[1:] > 0
    if not shown.all():
        labels = _renaming(len(numbers) + 1, np.flatnonzero(shown) + 1, 0)[labels]
    specks = decided.speck & decided.on_tissue & (decided.sizes > 0)
    specks[0] = False
    return labels, int(np.count_nonzero(specks))
