"""Which of the objects that a model finds: examples sort them by what is in them, what is around them, and their shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.by_example.features import SeenTile, channel_shares, densities, gathered, maps_of
from tissuetalk.models.by_example.head import Axes, LinearHead, Scaling
from tissuetalk.models.by_example.places import Glimpse
from tissuetalk.models.by_example.sampling import BRIGHT_OD
from tissuetalk.models.segmenter import Decoded, Finished, Prompt, Segmenter

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]

NUCLEI: Final = Prompt(None, "nuclei", "nuclei", concept="nuclei")
REDUCTIONS: Final = (1, 2)
RING_PX: Final = 8
"""How far around an object its surroundings reach, in working pixels."""
POOLED: Final = 3.0
"""Means over objects vary less than pixels do; this brings them to the same size."""
SHAPE_SHARE: Final = 0.5
MOST_PIXELS: Final = 64


@dataclass(frozen=True)
class ObjectRows:
    """Of n shown objects. inside, around: [n, D] means over each and its ring. shape: [n, 3]. place: [n]. stained: see Samples."""

    inside: Floats
    around: Floats
    shape: Floats
    positive: NDArray[np.bool_]
    place: NDArray[np.int64]
    stained: Floats


def found_in(model: Segmenter, piece: Glimpse) -> tuple[Labels, SeenTile]:
    """The nuclei of a piece, and the maps of the same pass."""
    context = model.prepare(piece.pixels)
    seen = maps_of(model, piece.pixels, context, REDUCTIONS)
    base = model.encode(piece.pixels, context) if seen.base is None else seen.base
    (decoded,) = model.decode(base, [NUCLEI])
    instances = model.finish(decoded, NUCLEI, context).instances
    assert instances is not None, "nuclei are objects"
    return instances, seen


def shapes_of(labels: Labels, count: int) -> Floats:
    """[count, 3] of objects 1..count: log of the area, elongation, and how far the outline is from an ellipse's."""
    rows, columns = np.nonzero(labels)
    at = labels[rows, columns] - 1
    area = np.maximum(np.bincount(at, minlength=count), 1).astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(at, values, count) / area, np.float64)

    x, y = columns.astype(np.float64), rows.astype(np.float64)
    dx, dy = x - mean(x)[at], y - mean(y)[at]
    xx, yy, xy = mean(dx * dx) + 1 / 12, mean(dy * dy) + 1 / 12, mean(dx * dy)
    half, turn = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    long, short = np.sqrt(half + turn), np.sqrt(np.maximum(half - turn, 1 / 12))
    spread = np.log(4 * np.pi * long * short / area)
    return np.stack([np.log(area), np.log(long / short), spread], axis=1).astype(np.float32)


def rings(labels: Labels) -> Labels:
    """[H, W]: the surroundings of each object, as far as they are nearer to it than to another."""
    from skimage.segmentation import expand_labels  # slow to import

    grown = np.asarray(expand_labels(labels, RING_PX), np.int32)
    return np.where(labels > 0, 0, grown)


def _chosen(labels: Labels, piece: Glimpse) -> NDArray[np.int64]:
    """[n + 1]: the place that each object belongs to, by most of its area or by the place's middle; -1 for none."""
    count = int(labels.max())
    area = np.bincount(labels.ravel(), minlength=count + 1)
    place = np.full(count + 1, -1, np.int64)
    for number, _, marked in piece.marks:
        inside = np.bincount(labels[marked], minlength=count + 1)
        place[inside * 2 >= np.maximum(area, 1)] = number
        rows, columns = np.nonzero(marked)
        nearest = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
        place[labels[rows[nearest], columns[nearest]]] = number
    place[0] = -1
    return place


def object_rows(model: Segmenter, piece: Glimpse, scaling: Scaling | None) -> tuple[ObjectRows, Scaling]:
    """The shown objects of a piece. scaling: of the first piece, for all."""
    labels, seen = found_in(model, piece)
    place = _chosen(labels, piece)[1:]
    sign = {number: is_positive for number, is_positive, _ in piece.marks}
    kept = np.flatnonzero(place >= 0)
    if scaling is None:
        rows, columns = np.nonzero(labels) if labels.any() else np.nonzero(labels == 0)
        every = max(1, len(rows) // 2000)
        scaling = Scaling.of(_at(seen, rows[::every], columns[::every]), channel_shares(seen.maps))
    numbers = kept + 1
    around = rings(labels)
    density = densities(piece.pixels[::4, ::4].reshape(-1, 3))
    stained = density[density.mean(1) > BRIGHT_OD]
    return ObjectRows(
        _pooled(labels, numbers, seen, scaling),
        _pooled(around, numbers, seen, scaling),
        shapes_of(labels, int(labels.max()))[kept],
        np.array([sign[int(each)] for each in place[kept]], bool),
        place[kept],
        stained if len(stained) > 16 else density,
    ), scaling


def _at(seen: SeenTile, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    return gathered(seen.maps, columns.astype(np.float64), rows.astype(np.float64))


def _pooled(of: Labels, numbers: NDArray[np.int64], seen: SeenTile, scaling: Scaling) -> Floats:
    """[n, D]: mean of scaled features over up to MOST_PIXELS evenly spread pixels of each numbered part."""
    width = len(scaling.share)
    means = np.zeros((len(numbers), width), np.float32)
    for row, number in enumerate(numbers):
        rows, columns = np.nonzero(of == number)
        every = max(1, len(rows) // MOST_PIXELS)
        if len(rows):
            means[row] = scaling(_at(seen, rows[::every], columns[::every])).mean(0) * POOLED
    return means


def fit_sorter(rows: ObjectRows, scaling: Scaling) -> tuple[dict[str, Floats], Axes]:
    """Arrays of a learned target, and the axes along which examples can be left out."""
    middle, spread = rows.shape.mean(0), rows.shape.std(0) + 0.1
    shape = (rows.shape - middle) / spread * SHAPE_SHARE
    axes = Axes.of(np.concatenate([rows.inside, rows.around, shape], axis=1).astype(np.float64))
    fitted = axes.fit(rows.positive, rows.place, np.ones(len(rows.place), bool))
    weights, width = axes.basis @ fitted[:-1], len(scaling.share)
    middles, spreads = scaling.middle.astype(np.float32), scaling.spread.astype(np.float32)
    inside, around = (
        (weights[part] * scaling.share * POOLED).astype(np.float32)
        for part in (slice(0, width), slice(width, 2 * width))
    )
    form = (weights[2 * width :] * SHAPE_SHARE).astype(np.float32)
    return {
        **LinearHead(inside, float(fitted[-1]), middles, spreads).arrays("head"),
        **LinearHead(around, 0.0, middles, spreads).arrays("ring"),
        **LinearHead(form, 0.0, middle.astype(np.float32), spread.astype(np.float32)).arrays("shape"),
    }, axes


def sorted_out(finished: Finished, inside: Floats, around: Floats, shape: LinearHead) -> Finished:
    """Of the objects found, those whose mean read-outs and shape speak for the target. inside, around: [H, W] read-outs."""
    labels = finished.instances
    if labels is None or not labels.any():
        return finished
    count = int(labels.max())
    height, width = labels.shape

    def mean(of: Labels, values: Floats) -> NDArray[np.float64]:
        flat = of.ravel()
        sums = np.bincount(flat, values[:height, :width].ravel(), count + 1)
        return np.asarray(sums / np.maximum(np.bincount(flat, minlength=count + 1), 1), np.float64)

    said = mean(labels, inside) + mean(rings(labels), around)
    said[1:] += shape.logits(shapes_of(labels, count))
    kept = said > 0
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    instances = numbers[labels]
    return Finished(instances > 0, instances, finished.presence)


def read_objects(
    arrays: Mapping[str, Floats], seen: SeenTile, nuclei: Decoded, height: int, width: int
) -> Decoded:
    """The answer about nuclei, with both read-outs as the last two object maps."""
    said = [LinearHead.from_arrays(part, arrays).read(seen.maps, height, width) for part in ("head", "ring")]
    maps = [] if nuclei.object_maps is None else list(nuclei.object_maps)
    return Decoded(nuclei.logits, nuclei.presence, np.stack([*maps, *said]))


def nuclei_of(stitched: Decoded) -> tuple[Decoded, Floats, Floats]:
    """The answer about nuclei as the base gave it, and the two read-outs."""
    maps = stitched.object_maps
    assert maps is not None and len(maps) >= 2, "decode put them there"
    own = maps[:-2] if len(maps) > 2 else None
    return Decoded(stitched.logits, stitched.presence, own), maps[-2], maps[-1]


def are_nuclei(model: Segmenter, pieces: Sequence[Glimpse]) -> bool:
    """Whether nearly every place, of both kinds, is about one nucleus."""
    hits: list[bool] = []
    for piece in pieces:
        context = model.prepare(piece.pixels)
        (decoded,) = model.decode(model.encode(piece.pixels, context), [NUCLEI])
        labels = model.finish(decoded, NUCLEI, context).instances
        if labels is None:
            return False
        for _, _, marked in piece.marks:
            hits.append(len(np.unique(labels[marked])) <= 3 and bool((labels[marked] > 0).mean() > 0.4))
    return bool(hits) and float(np.mean(hits)) >= 0.8
