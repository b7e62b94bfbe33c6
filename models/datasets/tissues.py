"""Regions of tissue from coarse labels: index masks, whole tiles, patches put together, and tumour around boxed nuclei."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed

from tissuetalk.models.datasets.example import (
    BACKGROUND,
    FOREGROUND,
    REGION_STORE_MPP,
    UNKNOWN,
    Example,
    Instances,
    Labelled,
    Pixels,
)
from tissuetalk.models.datasets.manifest import read_manifest, read_mask, read_rgb
from tissuetalk.models.datasets.splits import each_row, held_out

BCSS_TUMOUR, BCSS_STROMA = 1, 2
BCSS_UNSURE: Final = (0, 7, 15)
"""Nobody looked, or could tell."""
PATCH_MPP: Final = 0.5


def reduced(image: Pixels, mpp: float) -> Pixels:
    """[H, W, 3] at the scale regions are kept at."""
    zoom = mpp / REGION_STORE_MPP
    return np.asarray(cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), np.uint8)


def nearest(plane: Pixels | Instances, like: Pixels) -> Pixels:
    """Codes [H, W] at the size of a picture."""
    size = like.shape[1::-1]
    return np.asarray(cv2.resize(plane.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.uint8)


def bcss_tissues(folder: Path) -> Iterator[Example]:
    """A strip of BCSS: tumour and stroma; what is not labelled is unknown."""
    for record, example in each_row(folder, 0.25):
        image = reduced(example.image, example.mpp)
        index = nearest(read_mask(record), image)
        targets = {}
        for target, number in (("tumour", BCSS_TUMOUR), ("stroma", BCSS_STROMA)):
            label = np.where(index == number, FOREGROUND, BACKGROUND).astype(np.uint8)
            label[np.isin(index, BCSS_UNSURE)] = UNKNOWN
            targets[target] = Labelled(label)
        absent = ("glomerulus", "gland")
        yield replace(example, image=image, mpp=REGION_STORE_MPP, targets=targets, absent=absent)


def fat(folder: Path) -> Iterator[Example]:
    """GTEx tiles: a tile of fat is fat all over; the other tiles still hold fat cells and are left out."""
    for record, example in each_row(folder, PATCH_MPP):
        if record.mask_class == "adipocyte":
            image = reduced(example.image, example.mpp)
            targets = {"adipose tissue": Labelled(np.full(image.shape[:2], FOREGROUND, np.uint8))}
            absent = ("glomerulus", "gland", "tumour", "stroma")
            yield replace(example, image=image, mpp=REGION_STORE_MPP, targets=targets, absent=absent)


MOSAIC_PX: Final = 400
MOSAICS: Final = {False: 70, True: 12}
"""How many are made, of patches to train on and of held-out ones."""
GLASS: Final = 215
"""A pixel this bright in every channel, once blurred, is a gap."""
_MOSAIC: Final[Mapping[str, tuple[set[str], set[str]]]] = {
    "tumour": ({"TUM"}, set()),
    "adipose tissue": ({"ADI"}, set()),
    "stroma": ({"STR"}, {"TUM", "NORM", "MUC", "LYM"}),
}
"""Target to the classes of patches that are it, and those that may hold some of it."""


def mosaics(folder: Path) -> Iterator[Example]:
    """Patches of seven colorectal tissues put together along random borders: coarse region labels from patch labels."""
    records = read_manifest(folder)
    away = held_out(folder.name, records)
    for hidden, count in MOSAICS.items():
        patches: dict[str, list[Pixels]] = defaultdict(list)
        for record in records:
            if "crc-val-he" in record.note and away(record) == hidden:
                patches[record.mask_class].append(reduced(read_rgb(record.image), PATCH_MPP))
        rng = np.random.default_rng((12, hidden))
        for number in range(count):
            image, kinds = _mosaic(patches, rng)
            name = f"mosaic-{number}"
            yield Example(
                "patch-mosaics",
                name,
                name,
                hidden,
                image,
                REGION_STORE_MPP,
                targets=_mosaic_targets(image, kinds),
                absent=("glomerulus",),
            )


def _mosaic(
    patches: Mapping[str, Sequence[Pixels]], rng: np.random.Generator
) -> tuple[Pixels, NDArray[np.str_]]:
    """A picture and the class of every pixel of it, [MOSAIC_PX, MOSAIC_PX]."""
    side, cells = MOSAIC_PX, int(rng.integers(4, 9))
    seeds = rng.uniform(0, side, (cells, 2))
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    noise = rng.normal(0, 1, (2, side, side)).astype(np.float32).transpose(1, 2, 0)
    wave = 300 * cv2.GaussianBlur(noise, (0, 0), 14)  # borders of tissue are not straight
    rows, columns = rows + wave[..., 0], columns + wave[..., 1]
    owner = np.argmin([(rows - y) ** 2 + (columns - x) ** 2 for y, x in seeds], axis=0)
    kinds = [str(kind) for kind in rng.choice(sorted(patches), cells)]
    image = np.zeros((side, side, 3), np.uint8)
    for cell, kind in enumerate(kinds):
        patch = patches[kind][int(rng.integers(len(patches[kind])))]
        turned = np.rot90(patch, int(rng.integers(4))).copy()
        wide = turned
        while min(wide.shape[:2]) < side + max(patch.shape):  # one mirroring cannot more than triple it
            edge = min(wide.shape[:2]) - 1
            wide = np.asarray(cv2.copyMakeBorder(wide, *(4 * (edge,)), cv2.BORDER_REFLECT_101), np.uint8)
        y, x = (int(value) for value in rng.integers(0, patch.shape[0], 2))
        image[owner == cell] = wide[y : y + side, x : x + side][owner == cell]
    return image, np.array(kinds)[owner]


def _mosaic_targets(image: Pixels, kinds: NDArray[np.str_]) -> dict[str, Labelled]:
    gap = cv2.GaussianBlur(image, (0, 0), 3).min(2) > GLASS
    targets = {}
    for target, (there, unsure) in _MOSAIC.items():
        label = np.where(np.isin(kinds, list(there)), FOREGROUND, BACKGROUND).astype(np.uint8)
        label[np.isin(kinds, list(unsure))] = UNKNOWN
        if target != "adipose tissue":  # fat is gaps
            label[gap & np.isin(kinds, list(there))] = UNKNOWN
        targets[target] = Labelled(label)
    return targets


TUMOUR_REACH_UM, OTHER_REACH_UM, PALE_UM = 11.25, 7.5, 2.5
"""How far a tumour nucleus, and another one, speaks for its surroundings, and over what paleness is averaged."""


def boxed_tumour(example: Example, boxes: Sequence[tuple[str, float, float]]) -> Example:
    """A field with boxed nuclei (kind, x, y) at the tumour's scale: near several tumour nuclei it is tumour, near others alone it
    is not, the rest is unknown."""
    image = reduced(example.image, example.mpp)
    zoom, bottom, right = example.mpp / REGION_STORE_MPP, image.shape[0] - 1, image.shape[1] - 1

    def near(kinds: tuple[str, ...], reach_um: float) -> NDArray[np.float32]:
        plane, reach = np.zeros(image.shape[:2], np.float32), reach_um / REGION_STORE_MPP
        for kind, x, y in boxes:
            if kind in kinds:
                plane[min(int(y * zoom), bottom), min(int(x * zoom), right)] += 1
        return np.asarray(cv2.GaussianBlur(plane, (0, 0), reach) * 2 * np.pi * reach**2, np.float32)

    tumour, other = (
        near(("tumor_nuclei", "mitosis"), TUMOUR_REACH_UM),
        near(("non_tumor_nuclei",), OTHER_REACH_UM),
    )
    stained = rgb2hed(image)[..., 0].astype(np.float32)
    pale = cv2.GaussianBlur(stained, (0, 0), PALE_UM / REGION_STORE_MPP)
    label = np.full(image.shape[:2], UNKNOWN, np.uint8)
    label[tumour > 2.2] = FOREGROUND
    label[(tumour < 0.25) & ((other > 0.8) | (pale < np.quantile(pale, 0.15)))] = BACKGROUND
    targets = {"tumour": Labelled(label)}
    # A name of its own: the field's nuclei are another example, at their own scale.
    return replace(
        example,
        name=f"{example.name} (regions)",
        image=image,
        mpp=REGION_STORE_MPP,
        targets=targets,
        absent=("glomerulus",),
    )
