"""The open data sets the mini model is trained on, each read into what it really says.

One function per set: ``folder -> examples``. Scales that a set does not give are stated here, where they are assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from scipy import ndimage
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
    core_distance,
    from_instances,
    region,
    split_touching,
)
from tissuetalk.models.datasets.manifest import read_mask, rows_by_file
from tissuetalk.models.datasets.splits import each_row, holdout
from tissuetalk.models.datasets.tissues import bcss_tissues, boxed_tumour, fat, mosaics
from tissuetalk.models.datasets.typed import hgsc, midog, no_figures, nucls
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.pathsegmentor.card import TARGET_MPP

EBHI_MPP: Final = 1.2
"""Assumed: crypts are about 60 px wide, which is 70 µm."""
DSB_MPP: Final = 0.3
"""Assumed: nuclei are about 22 px wide, which is 7 µm."""
CAMELYON_MPP: Final = 1.0
PUMA_MPP: Final = 0.23
BREAKHIS_MPP: Final = 0.35
BRECAHAD_MPP: Final = 0.25

TYPED: Final = ("tumour nuclei", "non-tumour nuclei", "mitosis")


def glands(folder: Path) -> Iterator[Example]:
    """EBHI-Seg: epithelium of six diagnoses; carcinoma is also tumour, normal mucosa has none."""
    for record, example in each_row(folder, EBHI_MPP):
        instances, _ = ndimage.label(read_mask(record) > 0)
        gland = from_instances(np.asarray(instances, np.int32))
        targets = {"gland": gland}
        absent: tuple[str, ...] = ("glomerulus",)
        if "Adenocarcinoma" in record.note:
            targets["tumour"] = Labelled(gland.label)
        elif "Normal" in record.note:
            absent += ("tumour", *TYPED)
        yield replace(example, targets=targets, absent=absent)


def _nuclei(folder: Path, absent: tuple[str, ...], mpp: float | None = None) -> Iterator[Example]:
    """Sets that outline all nuclei. mpp: assumed, where the set does not say."""
    for record, example in each_row(folder, mpp):
        mask, parted = read_mask(record), record.kind == "instance"
        # Merged masks are cut at their waists: wrong now and then, but better than teaching that clumps are one core.
        instances = mask if parted else split_touching(mask > 0, smallest_px=9)
        targets = {"nuclei": from_instances(instances, parted=parted)}
        yield replace(example, scale_known=mpp is None, targets=targets, absent=absent)


def puma(folder: Path) -> Iterator[Example]:
    """PUMA: one field of melanoma, every nucleus outlined and typed."""
    (record, example), *_ = each_row(folder, PUMA_MPP)
    instances = read_mask(record)
    types = {int(row["label"]): row["type"] for row in rows_by_file(folder / "types.csv")[""]}
    tumour = np.isin(instances, [label for label, kind in types.items() if kind == "tumor"])
    lymphocyte = np.isin(instances, [label for label, kind in types.items() if "lymphocyte" in kind])
    cut = round(instances.shape[1] * (1 - holdout()[folder.name]["right_part"]))
    for held_out, part in ((False, np.s_[:, :cut]), (True, np.s_[:, cut:])):
        inside = instances[part]
        targets = {
            "nuclei": from_instances(inside, parted=True),
            "tumour nuclei": from_instances(np.where(tumour[part], inside, 0)),
            "non-tumour nuclei": from_instances(np.where(tumour[part], 0, inside)),
            "lymphocytes": from_instances(np.where(lymphocyte[part], inside, 0)),
        }
        targets["mitosis"] = no_figures(targets["nuclei"], targets["lymphocytes"])
        absent = ("glomerulus", "gland")
        yield replace(example, held_out=held_out, image=example.image[part], targets=targets, absent=absent)


def tumour_regions(folder: Path) -> Iterator[Example]:
    """BCSS, CAMELYON and OCDC: the tumour against everything else."""
    split = holdout()[folder.name].get("right_part")
    for record, example in each_row(folder, CAMELYON_MPP if folder.name.startswith("camelyon") else None):
        scale = example.mpp if record.mpp else TARGET_MPP["tumour"]
        image, mask = example.image, (read_mask(record) > 0).astype(np.uint8)
        if (shrink := scale / REGION_STORE_MPP) < 1:
            size = (round(image.shape[1] * shrink), round(image.shape[0] * shrink))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
            scale = REGION_STORE_MPP
        targets = {"tumour": region(mask)}
        whole = replace(example, image=image, mpp=scale, targets=targets, absent=("glomerulus",))
        if not split:
            yield whole
            continue
        cut = round(image.shape[1] * (1 - split))
        for held_out, part in ((False, np.s_[:, :cut]), (True, np.s_[:, cut:])):
            targets = {"tumour": region(mask[part])}
            yield replace(whole, held_out=held_out, image=image[part], targets=targets)


def glomeruli(folder: Path) -> Iterator[Example]:
    """AIDPATH: glomeruli in PAS-stained kidney biopsies; one mask on blank glass is left out."""
    for record, example in each_row(folder):
        if record.image.stem == "10179":
            continue
        size = (512, 512)
        image = np.asarray(cv2.resize(example.image, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = cv2.resize((read_mask(record) > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        targets = {"glomerulus": from_instances(np.asarray(ndimage.label(mask)[0], np.int32))}
        yield replace(example, image=image, mpp=1.0, targets=targets, absent=("tumour", "gland", *TYPED))


_PATCHES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "ADI": ((), ("tumour", "gland", "glomerulus")),
    "LYM": ((), ("tumour", "gland", "glomerulus")),
    "MUS": ((), ("tumour", "gland", "glomerulus")),
    "STR": ((), ("gland", "glomerulus")),
    "MUC": ((), ("glomerulus",)),
    "NORM": (("gland",), ("tumour", "glomerulus")),
    "TUM": (("tumour",), ("glomerulus",)),
    "benign": ((), ("tumour", "glomerulus")),
    "malignant": (("tumour",), ("glomerulus",)),
    "Viable": (("tumour",), ("glomerulus", "gland")),
    "Non-Tumor": ((), ("tumour", "glomerulus", "gland")),
}
"""What a patch class says: (certainly present, certainly absent). Where it is present is unknown."""


def patches(folder: Path) -> Iterator[Example]:
    """Patch classes without outlines: they teach presence and absence. LC25000 has no licence and is left out."""
    for record, example in each_row(folder):
        if "lc25000" in record.note or record.mask_class not in _PATCHES:
            continue
        present, absent = _PATCHES[record.mask_class]
        unknown = np.full(example.image.shape[:2], UNKNOWN, np.uint8)
        targets = {target: Labelled(unknown, present=True) for target in present}
        known, mpp = record.mpp is not None, record.mpp or BREAKHIS_MPP
        yield replace(example, mpp=mpp, scale_known=known, targets=targets, absent=absent)


BOXED_NUCLEI: Final = ("tumor_nuclei", "non_tumor_nuclei", "mitosis", "apoptosis")
PALE_QUANTILE: Final = 0.35
"""The palest third of a field (by haematoxylin) is certainly no nucleus."""
RING_PX: Final = 4


def brecahad(folder: Path) -> Iterator[Example]:
    """BreCaHAD: each box becomes its LiteMedSAM outline where there is one, else the ellipse inside it.

    Not every nucleus is boxed: outside the boxes only pale pixels and a thin ring around each object are background; the
    rest is unknown. Mitoses were searched for everywhere, so what is not boxed as one is background. The tumour's regions are
    coarse ones around its boxed nuclei.
    """
    boxes = rows_by_file(folder / "boxes.csv")
    for record, example in each_row(folder, BRECAHAD_MPP):
        pseudo = folder / "pseudo_masks" / f"{record.image.stem}.png"
        drawn = cv2.imread(str(pseudo), cv2.IMREAD_UNCHANGED) if pseudo.is_file() else None
        rows = boxes[record.image.relative_to(folder).as_posix()]
        here = [
            (row["type"].lower(), [float(row[key]) for key in ("x_center", "y_center", "width", "height")])
            for row in rows
        ]
        instances, kinds = _objects(here, drawn, example.image.shape[:2])
        targets = _boxed_targets(example.image, instances, kinds)
        yield replace(example, targets=targets, absent=("glomerulus",))
        yield boxed_tumour(example, [(kind, x, y) for kind, (x, y, *_) in here])


def _objects(
    boxes: list[tuple[str, list[float]]], drawn: Any, shape: tuple[int, ...]
) -> tuple[Instances, list[str]]:
    instances = np.zeros(shape, np.int32)
    kinds = [""]
    for kind, (x, y, width, height) in boxes:
        if kind not in BOXED_NUCLEI:
            continue
        axes = (max(1, round(width / 2)), max(1, round(height / 2)))
        # An outline drawn inside a box may reach a little beyond it.
        top, left = max(0, round(y - height)), max(0, round(x - width))
        part = np.s_[top : round(y + height) + 1, left : round(x + width) + 1]
        ellipse = np.zeros(instances[part].shape, np.uint8)
        cv2.ellipse(ellipse, (round(x) - left, round(y) - top), axes, 0, 0, 360, 1, -1)
        area = ellipse > 0
        here = None if drawn is None else drawn[part]
        if here is not None and (inside := here[area][here[area] > 0]).size > 0.5 * area.sum():
            area = here == np.bincount(inside).argmax()
        kinds.append(kind)
        instances[part][area] = len(kinds) - 1
    return instances, kinds


def _boxed_targets(image: Pixels, instances: Instances, kinds: list[str]) -> dict[str, Labelled]:
    haematoxylin = cv2.GaussianBlur(rgb2hed(image)[..., 0].astype(np.float32), (0, 0), 2)
    pale = haematoxylin < np.quantile(haematoxylin, PALE_QUANTILE)
    # The ring tells the network where an object ends, which unknown ground around it would not.
    ring = cv2.dilate((instances > 0).astype(np.uint8), np.ones((2 * RING_PX + 1,) * 2, np.uint8)) > 0
    partly = np.where(pale | ring, BACKGROUND, UNKNOWN).astype(np.uint8)
    kind = np.array(kinds)[instances]

    def labelled(wanted: tuple[str, ...], unsure: tuple[str, ...], elsewhere: Pixels) -> Labelled:
        label = elsewhere.copy()
        label[instances > 0] = BACKGROUND
        label[np.isin(kind, unsure)] = UNKNOWN
        chosen = np.isin(kind, wanted)
        label[chosen] = FOREGROUND
        return Labelled(label, core_distance(np.where(chosen, instances, 0).astype(np.int32)))

    return {
        "nuclei": labelled(BOXED_NUCLEI, (), partly),
        "tumour nuclei": labelled(("tumor_nuclei",), ("mitosis",), partly),
        "non-tumour nuclei": labelled(("non_tumor_nuclei",), (), partly),
        "mitosis": labelled(("mitosis",), (), np.zeros_like(partly)),
    }


SOURCES: Final[Mapping[str, Callable[[Path], Iterator[Example]]]] = {
    "ebhi-seg-glands": glands,
    "dsb2018-histology": partial(_nuclei, absent=("glomerulus", "gland", "mitosis"), mpp=DSB_MPP),
    "tnbc-nuclei": partial(_nuclei, absent=("glomerulus",)),
    "nuinsseg-oesophagus": partial(_nuclei, absent=("glomerulus", "tumour nuclei", "tumour")),
    "puma-melanoma-sample": puma,
    "brecahad-typed-nuclei": brecahad,
    "bcss-breast-tumour": tumour_regions,
    "camelyon-node-tumour": tumour_regions,
    "ocdc-oral-tumour": tumour_regions,
    "glomeruli-pas": glomeruli,
    "patch-classes": patches,
    "patch-mosaics": mosaics,
    "midog-mitosis": midog,
    "nucls-typed": nucls,
    "hgsc-typed-nuclei": hgsc,
    "bcss-tissues": bcss_tissues,
    "adipose-gtex": fat,
}
"""Every set that may feed shipped weights (CC0, CC-BY, open repositories). Sets for evaluation only are not here on purpose."""


def folder_of(root: Path, dataset: str) -> Path:
    """Where a set lies: the mosaics are made of the patches."""
    return root / ("patch-classes" if dataset == "patch-mosaics" else dataset)


def load(root: Path, dataset: str) -> list[Example]:
    """All examples of one set below ``root``. Raises InvalidArgumentError for a set that may not be trained on."""
    if dataset not in SOURCES:
        raise InvalidArgumentError(f"{dataset!r} is not a training set; choose from: {', '.join(SOURCES)}.")
    return list(SOURCES[dataset](folder_of(root, dataset)))
