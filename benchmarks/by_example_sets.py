"""What is taught in ``python -m benchmarks by_example``: real masks, and the clicks a user might have made on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.by_example import Place
from tissuetalk.models.datasets.manifest import read_manifest, read_mask, read_rgb
from tissuetalk.models.segmenter import RGB, Prompt

Mask = NDArray[np.bool_]
LARGEST_PX = 1600
"""Of an image, the corner of at most this side is used."""


@dataclass(frozen=True)
class Teachable:
    """One image, where the target is, and where anybody knows. group: patient or slide, None when the set cannot say."""

    name: str
    pixels: RGB
    gold: Mask
    known: Mask
    mpp: float
    group: str | None


@dataclass(frozen=True)
class Task:
    """One target of one set. like: what the default model is asked for. mpp: of its images, None when nobody knows.

    target, known: from an annotation [H, W]. has_groups: whether the groups are patients or slides.
    """

    title: str
    folder: str
    target: Callable[[NDArray[np.int64]], Mask]
    mpp: float | None
    like: Prompt | None = None
    known: Callable[[NDArray[np.int64]], Mask] | None = None
    has_groups: bool = True


def _asked(words: str, concept: str) -> Prompt:
    return Prompt(None, words, words, concept=concept)


def _above(mask: NDArray[np.int64]) -> Mask:
    return mask > 0


TUMOUR = _asked("tumour", "tumor")
TASKS: Sequence[Task] = (
    Task("mouth, tumour", "ocdc-oral-tumour", _above, 0.5, TUMOUR),
    Task("lymph node, tumour", "camelyon-node-tumour", _above, 1.0, TUMOUR),
    Task("breast, tumour", "bcss-breast-tumour", _above, 0.25, TUMOUR),
    Task("kidney, glomeruli", "glomeruli-pas", _above, 0.5, _asked("glomeruli", "glomerulus")),
    Task(
        "breast, stroma",
        "bcss-tissues",
        lambda m: m == 2,
        0.25,
        None,
        lambda m: (m > 0) & (m != 7) & (m != 15),
    ),
    Task("lung, stroma", "eval-only-nc/wsss4luad", lambda m: m == 2, 1.0, None, _above, False),
    Task("lung, tumour", "eval-only-nc/wsss4luad", lambda m: m == 1, 1.0, TUMOUR, _above, False),
    Task("prostate, stroma", "eval-only-nc/gleason-glands", lambda m: m == 5, 0.5, None, _above, False),
    Task("fat cells", "eval-only-nc/adipocytes", _above, None),
    Task("liver, fat droplets", "eval-only-nc/liver-fat", _above, 0.25),
)


def images_of(task: Task, data: Path, assumed: Callable[[RGB], float]) -> Iterator[Teachable]:
    """Those with some of the target and some of anything else."""
    for record in read_manifest(data / task.folder):
        if record.mask is None:
            continue
        pixels, mask = read_rgb(record.image), np.asarray(read_mask(record), np.int64)
        pixels, mask = pixels[:LARGEST_PX, :LARGEST_PX], mask[:LARGEST_PX, :LARGEST_PX]
        known = np.ones(mask.shape, bool) if task.known is None else task.known(mask)
        gold = task.target(mask) & known
        if gold.sum() < 400 or (known & ~gold).sum() < 400:
            continue
        mpp = task.mpp or assumed(pixels)
        yield Teachable(
            record.image.stem, pixels, gold, known, mpp, record.group if task.has_groups else None
        )


def mosaics(data: Path, wanted: str, side: int = 4) -> Iterator[Teachable]:
    """Pictures of ``side`` x ``side`` patches of colorectal tissue, no patient in two of them; a third shows the target."""
    patches: dict[bool, list[RGB]] = {True: [], False: []}
    for record in read_manifest(data / "patch-classes"):
        if "crc-val" in record.image.name:
            patches[record.image.name.split("_")[1].upper() == wanted].append(read_rgb(record.image))
    rng = np.random.default_rng(0)
    for number in range(2):
        yes, no = (patches[is_it][number::2] for is_it in (True, False))
        cells = [(yes[at % len(yes)], True) for at in range(side * side // 3)]
        cells += [(no[at % len(no)], False) for at in range(side * side - len(cells))]
        order = rng.permutation(len(cells))
        rows = [order[at : at + side] for at in range(0, len(cells), side)]
        pixels = np.concatenate([np.concatenate([cells[at][0] for at in row], 1) for row in rows])
        gold = np.concatenate(
            [np.concatenate([np.full(cells[at][0].shape[:2], cells[at][1]) for at in row], 1) for row in rows]
        )
        yield Teachable(
            f"mosaic {number + 1}", pixels, gold, np.ones(gold.shape, bool), 0.5, f"patients {number + 1}"
        )


def clicks(image: Teachable, each: int, seed: int) -> list[Place]:
    """Up to so many boxes wholly inside the target and wholly outside, at least a box apart where there is room."""
    rng = np.random.default_rng(seed)
    side = max(24, min(image.gold.shape) // 12)
    return [
        Place(is_positive, box=box)
        for is_positive, free in ((True, image.gold), (False, ~image.gold))
        for box in _boxes(free & image.known, each, side, rng)
    ]


def _boxes(free: Mask, count: int, side: int, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    found: list[tuple[int, int, int, int]] = []
    for size in (side, side * 3 // 4, side // 2, side // 3, side // 4, 8, 4):
        room = ndimage.minimum_filter(free.astype(np.uint8), size=size, mode="constant", cval=0)
        ys, xs = np.nonzero(room)
        for x, y, x1, y1 in found:
            far = (abs(ys - (y + y1) / 2) > size + y1 - y) | (abs(xs - (x + x1) / 2) > size + x1 - x)
            ys, xs = ys[far], xs[far]
        while len(ys) and len(found) < count:
            at = rng.integers(len(ys))
            y, x = int(ys[at]) - size // 2, int(xs[at]) - size // 2
            found.append((x, y, x + size, y + size))
            far = (abs(ys - y - size // 2) > 2 * size) | (abs(xs - x - size // 2) > 2 * size)
            ys, xs = ys[far], xs[far]
    return found


def scored(image: Teachable, places: Sequence[Place]) -> Mask:
    """Where a method is judged: known, and not shown."""
    left = image.known.copy()
    for place in places:
        x0, y0, x1, y1 = (int(each) for each in place.box or (0, 0, 0, 0))
        left[y0:y1, x0:x1] = False
    return left


def shrunk(image: Teachable, side: int) -> RGB:
    """For a picture in the docs."""
    scale = side / max(image.gold.shape)
    return np.asarray(
        cv2.resize(image.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
    )
