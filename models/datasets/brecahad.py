"""BreCaHAD: typed nuclei as boxes, turned into partial label maps."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed

from tissuetalk.models.datasets.example import BACKGROUND, FOREGROUND, UNKNOWN, Example, Labelled, Pixels
from tissuetalk.models.datasets.manifest import read_rgb
from tissuetalk.models.datasets.objects import core_distance

NUCLEI = ("tumor_nuclei", "non_tumor_nuclei", "mitosis", "apoptosis")
PALE_QUANTILE = 0.35
"""The palest third of a field (by haematoxylin) is certainly no nucleus."""
RING_PX = 4


def brecahad(folder: Path, *, held_out: set[str]) -> Iterator[Example]:
    """Each box becomes its LiteMedSAM outline where there is one, else the ellipse inside it.

    Not every nucleus is boxed: outside the boxes only pale pixels and a thin ring around each object are background; the
    rest is unknown. Mitoses were searched for everywhere, so what is not boxed as one is background.
    """
    boxes: dict[str, list[tuple[str, list[float]]]] = defaultdict(list)
    with (folder / "boxes.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            values = [float(row[key]) for key in ("x_center", "y_center", "width", "height")]
            boxes[row["file"]].append((row["type"].lower(), values))
    with (folder / "manifest.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            pixels = read_rgb(folder / row["file"])
            pseudo = folder / "pseudo_masks" / f"{Path(row['file']).stem}.png"
            drawn = (
                np.asarray(cv2.imread(str(pseudo), cv2.IMREAD_UNCHANGED), np.int32)
                if pseudo.is_file()
                else None
            )
            instances, kinds = _objects(boxes[row["file"]], drawn, pixels.shape[:2])
            yield Example(
                folder.name,
                Path(row["file"]).name,
                row["group"],
                row["group"] in held_out,
                pixels,
                0.25,
                True,
                _targets(pixels, instances, kinds),
                ("glomerulus",),
            )


def _objects(
    boxes: list[tuple[str, list[float]]], drawn: NDArray[np.int32] | None, shape: tuple[int, ...]
) -> tuple[NDArray[np.int32], list[str]]:
    instances = np.zeros(shape, np.int32)
    kinds = [""]
    for kind, (x, y, width, height) in boxes:
        if kind not in NUCLEI:
            continue
        ellipse = np.zeros(shape, np.uint8)
        axes = (max(1, round(width / 2)), max(1, round(height / 2)))
        cv2.ellipse(ellipse, (round(x), round(y)), axes, 0, 0, 360, 1, -1)
        area = ellipse > 0
        if drawn is not None and (inside := drawn[area][drawn[area] > 0]).size > 0.5 * area.sum():
            area = drawn == np.bincount(inside).argmax()
        kinds.append(kind)
        instances[area] = len(kinds) - 1
    return instances, kinds


def _targets(image: Pixels, instances: NDArray[np.int32], kinds: list[str]) -> dict[str, Labelled]:
    haematoxylin = cv2.GaussianBlur(rgb2hed(image)[..., 0].astype(np.float32), (0, 0), 2)
    pale = haematoxylin < np.quantile(haematoxylin, PALE_QUANTILE)
    ring = cv2.dilate((instances > 0).astype(np.uint8), np.ones((2 * RING_PX + 1,) * 2, np.uint8)) > 0
    partial = np.where(pale | ring, BACKGROUND, UNKNOWN).astype(np.uint8)
    kind = np.array(kinds)[instances]

    def labelled(wanted: tuple[str, ...], unsure: tuple[str, ...], elsewhere: Pixels) -> Labelled:
        label = elsewhere.copy()
        label[instances > 0] = BACKGROUND
        label[np.isin(kind, unsure)] = UNKNOWN
        chosen = np.isin(kind, wanted)
        label[chosen] = FOREGROUND
        return Labelled(label, core_distance(np.where(chosen, instances, 0).astype(np.int32)))

    return {
        "nuclei": labelled(NUCLEI, (), partial),
        "tumour nuclei": labelled(("tumor_nuclei",), ("mitosis",), partial),
        "non-tumour nuclei": labelled(("non_tumor_nuclei",), (), partial),
        "mitosis": labelled(("mitosis",), (), np.zeros_like(partial)),
    }
