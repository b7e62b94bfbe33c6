"""What is read to learn from: pixels of the examples, and pixels that nobody said anything about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.by_example.features import (
    SeenTile,
    channel_shares,
    densities,
    fine_colour,
    gathered,
    maps_of,
    sampled,
)
from tissuetalk.models.by_example.places import Glimpse, Shown, glimpses
from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmenter import RGB, Context, FeatureMap, Prompt, Segmenter

Floats = NDArray[np.float32]

MOST_SAMPLES: Final = 720
LEAST_PER_PLACE: Final = 4
UNLABELLED_PX: Final = 2000
"""Pixels of all images together that say what is usual there."""
BRIGHT_OD: Final = 0.06
"""Mean optical density below which a pixel is glass."""
UNSTAINED_OD: Final = 0.1
"""Optical density that four fifths of the examples' pixels stay below when the target is something unstained: fat, a droplet, a lumen."""
UNSTAINED_COLOUR: Final = 10.0
"""Median difference of the strongest and weakest channel, of 255, below which they have no colour. Pale tissue has 15 and more."""


@dataclass(frozen=True)
class Samples:
    """Pixels of the examples. features: [n, D]. positive: [n]. place: [n], its number over all images.

    fine: [n, F] of fine colour. unlabelled, unlabelled_fine: [m, D] and [m, F] of pixels all over the images. share: [D], see ``channel_shares``.
    stained: [k, 3] optical densities of tissue. answer, unlabelled_answer: [n] and [m], the model's own logits where it knows
    what was asked for, else zeros. is_present: whether it finds that wherever positive places are.
    """

    features: Floats
    positive: NDArray[np.bool_]
    place: NDArray[np.int64]
    fine: Floats
    unlabelled: Floats
    unlabelled_fine: Floats
    share: Floats
    stained: Floats
    answer: Floats
    unlabelled_answer: Floats
    is_present: bool


def samples_of(
    model: Segmenter,
    shown: Sequence[Shown],
    mpp: float,
    reductions: Sequence[int],
    finest: int,
    control: Control,
    like: Prompt | None = None,
) -> Samples:
    """like: what the model's own answer is to be read of, too. Raises InvalidArgumentError where two examples contradict each other, or one lies outside its image."""
    count = sum(len(each.places) for each in shown)
    per_place = max(LEAST_PER_PLACE, MOST_SAMPLES // count)
    pieces = list(glimpses(shown, mpp))
    parts: list[Samples] = []
    for number, piece in enumerate(pieces):
        control.check()
        parts.append(
            _sampled(model, piece, reductions, finest, per_place, UNLABELLED_PX // len(pieces), like)
        )
        control.report((number + 1) / len(pieces), "looking at the examples")
    return Samples(
        np.concatenate([each.features for each in parts]),
        np.concatenate([each.positive for each in parts]),
        np.concatenate([each.place for each in parts]),
        np.concatenate([each.fine for each in parts]),
        np.concatenate([each.unlabelled for each in parts]),
        np.concatenate([each.unlabelled_fine for each in parts]),
        parts[0].share,
        np.concatenate([each.stained for each in parts]),
        np.concatenate([each.answer for each in parts]),
        np.concatenate([each.unlabelled_answer for each in parts]),
        all(each.is_present for each in parts if each.positive.any()),
    )


def _sampled(
    model: Segmenter,
    piece: Glimpse,
    reductions: Sequence[int],
    finest: int,
    per_place: int,
    spread_px: int,
    like: Prompt | None,
) -> Samples:
    seen = maps_of(model, piece.pixels, Context({}), reductions, finest)
    maps = seen.maps
    x, y, positive, place = labelled(piece, per_place)
    height, width = piece.pixels.shape[:2]
    every = max(1, int(np.sqrt(height * width / max(spread_px, 1))))
    rows, columns = np.mgrid[every // 2 : height : every, every // 2 : width : every]
    density = densities(piece.pixels[::4, ::4].reshape(-1, 3))
    stained = density[density.mean(1) > BRIGHT_OD]
    all_x, all_y = columns.ravel().astype(np.float64), rows.ravel().astype(np.float64)
    fine = fine_colour(piece.pixels)
    said, is_present = _answer(model, piece.pixels, seen, like)
    return Samples(
        gathered(maps, x, y),
        positive,
        place,
        gathered(fine, x, y),
        gathered(maps, all_x, all_y),
        gathered(fine, all_x, all_y),
        channel_shares(maps),
        stained if len(stained) > 16 else density,
        sampled(said, x, y)[:, 0],
        sampled(said, all_x, all_y)[:, 0],
        is_present,
    )


def _answer(model: Segmenter, pixels: RGB, seen: SeenTile, like: Prompt | None) -> tuple[FeatureMap, bool]:
    """What the model answers by itself, and whether it finds that here."""
    if like is None or (able := model.capability(like)) is None:
        return FeatureMap(np.zeros((1, *pixels.shape[:2]), np.float32), 1), True
    context = model.prepare(pixels)
    base = model.encode(pixels, context) if seen.base is None else seen.base
    (decoded,) = model.decode(base, [like])
    present = model.finish(decoded, like, context).presence >= able.present_from
    return FeatureMap(decoded.logits[None], 1), present


def labelled(
    piece: Glimpse, per_place: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """x, y in the piece, whether it is the target, and the place: pixels of every place, spread evenly at random."""
    taken = np.zeros(piece.pixels.shape[:2], np.int8)
    xs, ys, positive, place = [], [], [], []
    for number, is_positive, marked in piece.marks:
        sign = 1 if is_positive else -1
        if (taken[marked] == -sign).any():
            raise InvalidArgumentError(
                "two examples contradict each other: a place that is shown as the target overlaps one that is shown as not."
            )
        taken[marked] = sign
        rows, columns = np.nonzero(marked)
        if len(rows) > per_place:
            chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:per_place])
            rows, columns = rows[chosen], columns[chosen]
        xs.append(columns.astype(np.float64))
        ys.append(rows.astype(np.float64))
        positive.append(np.full(len(rows), is_positive))
        place.append(np.full(len(rows), number, np.int64))
    return np.concatenate(xs), np.concatenate(ys), np.concatenate(positive), np.concatenate(place)


def is_unstained(shown: Sequence[Shown], mpp: float) -> bool:
    """Whether the positive examples are bright and without colour: then the target ends where the white ends."""
    bright, colour = [], []
    for each in shown:
        for place in each.places:
            if not place.is_positive:
                continue
            box = place.extent(each.mpp).clipped_to(each.pixels_from.width, each.pixels_from.height)
            scale = min(each.mpp / mpp, 256 / max(box.width, box.height))
            pixels = each.pixels_from.read_scaled(box, scale)
            bright.append(float(np.quantile(densities(pixels).mean(2), 0.8)))
            colour.append(float(np.median(np.ptp(pixels.astype(np.int16), axis=2))))
    return bool(np.median(bright) < UNSTAINED_OD and np.median(colour) < UNSTAINED_COLOUR)
