"""Sets that tell kinds of nuclei apart: mitotic figures in crops, lymphocytes among outlined nuclei."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.datasets.example import (
    BACKGROUND,
    FOREGROUND,
    UNKNOWN,
    Example,
    Instances,
    Labelled,
    Pixels,
    core_distance,
    from_instances,
)
from tissuetalk.models.datasets.manifest import Record, read_manifest, read_mask, read_rgb, rows_by_file
from tissuetalk.models.datasets.splits import each_row, held_out

MIDOG_MPP: Final = 0.24
FIGURE_RADIUS_PX: Final = 22
"""No figure reaches further from its point; a disc of this size in a crop holds it."""
DISC_PX: Final = 10
"""Radius of the disc drawn where no dark body stands out: 2.5 µm."""
FIGURE_AREA_PX: Final = (40, 1100)
WINDOW_PX: Final = 104
"""Side of a crop's window in a mosaic of three by three; smaller than a crop, so that windows shift."""
EMPTY_SHARE: Final = 0.7
"""Share of windows whose figure is taken out: in tissue most fields have none."""
PATCHED_SHARE: Final = 0.5
"""Share of the other windows that get such a patch beside their figure, so that a patch says nothing."""
DOUBT_PX: Final = 12
"""Around a centre that somebody marked and nobody outlined nothing is known."""


def figure_mask(image: Pixels, x: float, y: float) -> NDArray[np.bool_]:
    """[H, W] the dark body nearest to the point of a mitotic figure; a disc where none stands out."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    away = np.hypot(rows - y, columns - x)
    near = away <= FIGURE_RADIUS_PX
    dark = cv2.GaussianBlur(image.astype(np.float32).mean(2), (0, 0), 1.2)
    cut, _ = cv2.threshold(dark[near].astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    bodies, count = ndimage.label((dark <= cut) & near)
    disc = away <= DISC_PX
    scores = []
    for number in range(1, count + 1):
        inside = bodies == number
        # Near, and not small: a large body may begin a little further out than a grain beside the point.
        if inside.sum() >= 30:
            scores.append((float(away[inside].min()) + 40 / float(inside.sum()) ** 0.5, number))
    if not scores:
        return np.asarray(disc)
    # Plates and rings of one figure lie close together.
    body = (bodies == min(scores)[1]) | ((bodies > 0) & (away <= DISC_PX - 1))
    body = ndimage.binary_closing(body, iterations=2)
    return np.asarray(body if FIGURE_AREA_PX[0] <= body.sum() <= FIGURE_AREA_PX[1] else disc)


class FigureCrop(NamedTuple):
    """One crop [H, W, 3] with its label map, object numbers and the points (x, y) of everything boxed on it."""

    image: Pixels
    label: Pixels
    objects: Instances
    points: tuple[tuple[float, float], ...]


def midog(folder: Path) -> Iterator[Example]:
    """MIDOG's crops laid side by side, case by case, shifted and turned, so that no figure sits in the middle of anything."""
    records = read_manifest(folder)
    away = held_out(folder.name, records)
    boxes = rows_by_file(folder / "boxes.csv")
    cases: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        cases[record.group].append(record)
    for group, found in sorted(cases.items()):
        rng = np.random.default_rng((12, sum(map(ord, group))))
        crops = [_figure_crop(read_rgb(each.image), boxes[f"images/{each.image.name}"]) for each in found]
        for number in range(max(1, round(len(crops) / 6))):
            order = rng.permutation(len(crops)) if len(crops) >= 9 else rng.integers(0, len(crops), 9)
            image, label, objects = _figure_mosaic([crops[int(index)] for index in order[:9]], rng)
            labelled = Labelled(label, core_distance(objects), objects=objects.astype(np.uint16))
            yield Example(
                folder.name,
                f"{group}-{number}",
                group,
                away(found[0]),
                image,
                MIDOG_MPP,
                targets={"mitosis": labelled},
                absent=("glomerulus",),
            )


def _figure_crop(image: Pixels, boxes: Sequence[Mapping[str, str]]) -> FigureCrop:
    label = np.zeros(image.shape[:2], np.uint8)
    objects = np.zeros(image.shape[:2], np.int32)
    points = tuple(_middle(box) for box in boxes)
    for number, (box, (x, y)) in enumerate(zip(boxes, points, strict=True), 1):
        if "mito" in box["type"]:
            figure = figure_mask(image, x, y)
            label[figure], objects[figure] = FOREGROUND, number
    label[image.max(2) < 12] = UNKNOWN  # beyond the field
    return FigureCrop(image, label, objects, points)


def _middle(row: Mapping[str, str]) -> tuple[float, float]:
    return float(row["x_center"]), float(row["y_center"])


def _figure_mosaic(crops: list[FigureCrop], rng: np.random.Generator) -> tuple[Pixels, Pixels, Instances]:
    side = 3 * WINDOW_PX
    image = np.zeros((side, side, 3), np.uint8)
    label, objects = np.zeros((side, side), np.uint8), np.zeros((side, side), np.int32)
    for cell, crop in enumerate(crops):
        empty = rng.random() < EMPTY_SHARE
        shown = _patched(crop, rng, empty=empty) if empty or rng.random() < PATCHED_SHARE else crop
        room = min(shown.image.shape[:2]) - WINDOW_PX
        turns, y, x = int(rng.integers(4)), *(int(value) for value in rng.integers(0, room + 1, 2))
        place = np.s_[cell // 3 * WINDOW_PX :, cell % 3 * WINDOW_PX :]
        numbers = shown.objects + 50 * (cell + 1) * (shown.objects > 0)
        for whole, plane in ((image, shown.image), (label, shown.label), (objects, numbers)):
            window = np.rot90(plane[y : y + WINDOW_PX, x : x + WINDOW_PX], turns)
            whole[place][:WINDOW_PX, :WINDOW_PX] = window
    return image, label, objects


def _patched(crop: FigureCrop, rng: np.random.Generator, *, empty: bool) -> FigureCrop:
    """Another part of the crop blended over its figure (empty), or over a part without one; the crop itself where that fails."""
    height, width = crop.label.shape
    reach = FIGURE_RADIUS_PX + 2
    free = []
    for _ in range(40):
        x, y = (int(rng.integers(reach, size - reach)) for size in (width, height))
        clear = all(np.hypot(x - px, y - py) > 2 * reach for px, py in crop.points)
        part = crop.label[y - reach : y + reach, x - reach : x + reach]
        if clear and (part == BACKGROUND).all():
            free.append((x, y))
    if not free or (len(free) < 2 and not empty):
        return crop
    targets = [(round(x), round(y)) for x, y in crop.points] if empty else free[1:2]
    image, label, objects = crop.image, crop.label.copy(), crop.objects.copy()
    (x, y), disc = free[0], np.zeros((2 * reach, 2 * reach), np.float32)
    cv2.circle(disc, (reach, reach), FIGURE_RADIUS_PX - 2, (1,), -1)
    share = cv2.GaussianBlur(disc, (0, 0), 1.5)[..., None]
    source = crop.image[y - reach : y + reach, x - reach : x + reach].astype(np.float32)
    for px, py in targets:
        if not (reach < px < width - reach and reach < py < height - reach):
            return crop
        image = image.copy()
        below = image[py - reach : py + reach, px - reach : px + reach]
        below[:] = (below * (1 - share) + source * share).astype(np.uint8)
        over = np.zeros(label.shape, np.uint8)
        cv2.circle(over, (px, py), FIGURE_RADIUS_PX, 1, -1)
        # What of a figure still shows beside the patch is neither one nor none.
        label[over > 0] = np.where(label[over > 0] == UNKNOWN, UNKNOWN, BACKGROUND)
        label[(over == 0) & (label == FOREGROUND) & empty] = UNKNOWN
        objects[(over > 0) | empty] = 0
    return FigureCrop(image, label, objects, crop.points)


def nucls(folder: Path) -> Iterator[Example]:
    """NuCLS: nuclei and lymphocytes; a human centre without an outline is unknown ground."""
    types, points = rows_by_file(folder / "types.csv"), rows_by_file(folder / "points.csv")
    for record, example in each_row(folder, 0.25):
        name, instances = f"images/{record.image.name}", read_mask(record)
        doubt = np.zeros(instances.shape, np.uint8)
        for x, y in map(_middle, points[name]):
            row, column = (min(int(at), size - 1) for at, size in zip((y, x), instances.shape, strict=True))
            if instances[row, column] == 0:
                cv2.circle(doubt, (column, row), DOUBT_PX, 1, -1)
        targets = _typed_targets(instances, types[name], doubt > 0)
        yield replace(example, targets=targets, absent=("glomerulus",))


def hgsc(folder: Path) -> Iterator[Example]:
    """HGSC, one field at 20x, outlines and types drawn by a model."""
    types = rows_by_file(folder / "types.csv")
    for record, example in each_row(folder, 0.5):
        instances = read_mask(record)
        nowhere = np.zeros(instances.shape, np.bool_)
        targets = _typed_targets(instances, types[f"images/{record.image.name}"], nowhere)
        yield replace(example, targets=targets, absent=("glomerulus",))


def _typed_targets(
    instances: Instances, rows: Sequence[Mapping[str, str]], doubt: NDArray[np.bool_]
) -> dict[str, Labelled]:
    types = {int(row["label"]): row["type"].casefold() for row in rows}
    lymphocytes = [label for label, kind in types.items() if kind in ("stil", "til") or "inflam" in kind]
    unsure = [label for label, kind in types.items() if kind in ("unknown", "other")]
    unknown = (instances == 0) & doubt
    every, chosen = (
        from_instances(np.where(kept, instances, 0).astype(np.int32), parted=True)
        for kept in (instances > 0, np.isin(instances, lymphocytes))
    )
    nuclei = replace(every, label=np.where(unknown, UNKNOWN, every.label).astype(np.uint8))
    label = np.where(unknown | np.isin(instances, unsure), UNKNOWN, chosen.label).astype(np.uint8)
    found = replace(chosen, label=label)
    return {"nuclei": nuclei, "lymphocytes": found, "mitosis": no_figures(nuclei, found)}


def no_figures(nuclei: Labelled, lymphocytes: Labelled) -> Labelled:
    """Mitotic figures where nobody looked for them: a lymphocyte, and what is no nucleus, is none; the rest is unknown."""
    none = (lymphocytes.label == FOREGROUND) | (nuclei.label == BACKGROUND)
    label = np.where(none, BACKGROUND, UNKNOWN).astype(np.uint8)
    return Labelled(label, np.zeros_like(label))
