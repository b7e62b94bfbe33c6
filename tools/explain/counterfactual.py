"""The same crop with one kind of object blurred, and with it painted over by what surrounds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB
from tissuetalk.tools.answers.explained import Counterfactual, ScoreChange
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.explain import windows
from tissuetalk.tools.storage.result_folder import ResultFolder

BLUR_UM = 5.0
"""Sigma of the blur: 20 px of a patch at 0.25 µm/px (spec explain.md, section 4)."""
CROP_PX = 1024
"""Largest side of the crop, in full-resolution pixels."""
WINDOW_PX = 48
"""Side of the windows in which fine structure is copied."""
GRAIN_PX = 4.0
"""Scale below which structure is texture, which the painted-over part gets from its surroundings."""

Painted = NDArray[np.bool_]
Colours = NDArray[np.float32]
Change = Callable[[RGB, Painted], RGB]
Scores = tuple[dict[str, float], dict[str, float]]
Score = Callable[[Mask, Change], Scores | None]
"""A classifier's probabilities for the whole region, before and after one object is changed everywhere in it."""


@dataclass(frozen=True)
class Views:
    """[H, W, 3] of the crop as it is, blurred and painted over, with where the object was."""

    mask: Mask
    crop: Box
    painted: Painted
    before: RGB
    blurred: RGB
    removed: RGB
    answers: list[Counterfactual]


def without(folder: ResultFolder, mask: Mask, source: ImageSource, score: Score | None = None) -> Views:
    """Both views of the part of the region with most of the object, and the scores of a classifier when one is given."""
    region, mpp = Box.from_sequence(mask.provenance.region), mask.provenance.mpp
    layer = windows.layer_of(folder, mask)
    crop = windows.busiest(windows.looked_over(layer).astype(np.float32), region, CROP_PX, CROP_PX)
    painted = layer.labels.sample(crop, crop.width, crop.height) > 0
    before = source.read_region(crop, width=crop.width, height=crop.height)
    ways: dict[str, Change] = {
        "blurred": lambda pixels, there: blurred(pixels, there, BLUR_UM / mpp),
        "removed": removed,
    }
    told = {name: None if score is None else score(mask, change) for name, change in ways.items()}
    answers = [_answer(mask, name, crop, painted, scores) for name, scores in told.items()]
    soft, gone = (change(before, painted) for change in ways.values())
    return Views(mask, crop, painted, before, soft, gone, answers)


def blurred(pixels: RGB, painted: Painted, sigma_px: float) -> RGB:
    """Only the painted pixels change, with a hard edge."""
    soft = cv2.GaussianBlur(pixels, (0, 0), max(1.0, sigma_px))
    return np.asarray(np.where(painted[..., None], soft, pixels), np.uint8)


def removed(pixels: RGB, painted: Painted) -> RGB:
    """The painted pixels and a rim of 2 get the smooth colours of what surrounds them and its grain.

    Pixels that are all painted stay as they are: there is nothing to take from.
    """
    # the rim takes the halo of the object's edge away, which would betray its place
    hole = cv2.dilate(painted.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if hole.all() or not hole.any():
        return pixels.copy()
    image = pixels.astype(np.float32)
    filled = np.where(hole[..., None], _smooth_fill(image, hole), image)
    grain = _grain(image, hole)
    return np.clip(filled + grain * hole[..., None], 0, 255).astype(np.uint8)


def _smooth_fill(image: Colours, hole: Painted) -> Colours:
    """Known colours spread into the hole from coarse to fine (pull-push on an image pyramid)."""
    known = (~hole).astype(np.float32)[..., None]
    levels: list[tuple[Colours, Colours]] = [(image * known, known)]
    # halved until every pixel knows a colour
    while min(levels[-1][0].shape[:2]) > 1 and levels[-1][1].min() < 1e-3:
        colour, weight = levels[-1]
        smaller, lighter = cv2.pyrDown(colour), cv2.pyrDown(weight)[..., None]
        levels.append((np.asarray(smaller, np.float32), np.asarray(lighter, np.float32)))
    colour, weight = levels.pop()
    answer = np.asarray(colour / np.maximum(weight, 1e-6), np.float32)
    for colour, weight in reversed(levels):
        height, width = colour.shape[:2]
        coarse = cv2.resize(answer, (width, height), interpolation=cv2.INTER_LINEAR)
        here = np.clip(weight, 0, 1)
        mixed = colour / np.maximum(weight, 1e-6) * here + coarse * (1 - here)
        answer = np.asarray(mixed, np.float32)
    return answer


def _grain(image: Colours, hole: Painted) -> Colours:
    """Fine structure for the hole: overlapping soft windows copied from random places outside it.

    Overlapping windows are weighed so that the spread of the copied structure stays what it is.
    """
    known = (~hole).astype(np.float32)
    shares = np.maximum(cv2.GaussianBlur(known, (0, 0), GRAIN_PX), 1e-3)[..., None]
    base = cv2.GaussianBlur(image * known[..., None], (0, 0), GRAIN_PX) / shares
    fine = np.where(hole[..., None], 0, image - base).astype(np.float32)
    side = max(8, min(WINDOW_PX, *hole.shape))
    soft = np.outer(np.hanning(side + 2)[1:-1], np.hanning(side + 2)[1:-1]).astype(np.float32)
    sums = cv2.boxFilter(known, -1, (side, side), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    inside = sums[: known.shape[0] - side + 1, : known.shape[1] - side + 1]
    # top left corners of the windows with least of the hole; where tissue is scarce, the best 3 % have to do
    places = np.argwhere(inside >= min(0.98, float(np.quantile(inside, 0.97))))
    # padded, so that windows at the border overlap as everywhere else
    wide = np.pad(hole, side)
    grain, spread = np.zeros((*wide.shape, 3), np.float32), np.full(wide.shape, 1e-6, np.float32)
    # the same question gives the same picture
    random = np.random.default_rng(0)
    for top, left in _windows_over(wide, side):
        y, x = places[random.integers(len(places))]
        weight = soft * known[y : y + side, x : x + side]
        grain[top : top + side, left : left + side] += fine[y : y + side, x : x + side] * weight[..., None]
        spread[top : top + side, left : left + side] += weight**2
    inner = (slice(side, -side), slice(side, -side))
    return np.asarray(grain[inner] / np.sqrt(spread[inner])[..., None], np.float32)


def _windows_over(hole: Painted, side: int) -> Iterator[tuple[int, int]]:
    """Windows that overlap by two thirds and together cover every pixel of the hole."""
    step = max(1, side // 3)
    for top in (*range(0, hole.shape[0] - side, step), hole.shape[0] - side):
        for left in (*range(0, hole.shape[1] - side, step), hole.shape[1] - side):
            if hole[top : top + side, left : left + side].any():
                yield top, left


def _answer(mask: Mask, change: str, crop: Box, painted: Painted, scores: Scores | None) -> Counterfactual:
    name, share = mask.name, float(painted.mean())
    before, after = scores or ({}, {})
    changes = [
        ScoreChange(label=label, before=round(value, 4), after=round(after[label], 4))
        for label, value in before.items()
    ]
    how = "blurred" if change == "blurred" else "painted over with what surrounds it"
    statement = f"{name} {how} ({share:.0%} of the crop {crop.as_list()})"
    if changes:
        top = max(changes, key=lambda item: item.before)
        statement += f": score of “{top.label}” {top.before:.2f} -> {top.after:.2f}"
        flipped = max(changes, key=lambda item: item.after).label
        statement += "" if flipped == top.label else f", the answer becomes “{flipped}”"
    return Counterfactual.model_validate(
        {
            "mask_id": mask.mask_id,
            "name": name,
            "change": change,
            "region": crop.as_list(),
            "changed_fraction": round(share, 5),
            "scores": changes,
            "statement": statement,
        }
    )
