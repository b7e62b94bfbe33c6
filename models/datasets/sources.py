"""The open data sets the mini model is trained on, each read into what it really says.

One function per set: ``folder -> examples``. Scales that a set does not give are stated here, where they are assumed.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from scipy import ndimage

from tissuetalk.models.datasets.brecahad import brecahad
from tissuetalk.models.datasets.example import BACKGROUND, FOREGROUND, UNKNOWN, Example, Labelled
from tissuetalk.models.datasets.manifest import Record, read_manifest, read_mask, read_rgb
from tissuetalk.models.datasets.objects import from_instances, split_touching
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.pathsegmentor.targets import TARGET_MPP

EBHI_MPP = 1.2
"""Assumed: crypts are about 60 px wide, which is 70 µm."""
DSB_MPP = 0.3
"""Assumed: nuclei are about 22 px wide, which is 7 µm."""
BREAKHIS_MPP = 0.35
REGION_STORE_MPP = 0.8
"""Regions are kept a little finer than they are read, so that enlarging them stays sharp."""

TYPED = ("tumour nuclei", "non-tumour nuclei", "mitosis")


@lru_cache(maxsize=1)
def _holdout() -> dict[str, dict[str, Any]]:
    text = resources.files("tissuetalk.models.datasets").joinpath("holdout.yaml").read_text(encoding="utf-8")
    rules: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return rules


def _held_out(dataset: str, records: list[Record]) -> Callable[[Record], bool]:
    """The stored split of a set as a question about one record."""
    rule = _holdout()[dataset]
    groups, files = set(rule.get("groups", ())), tuple(rule.get("files", ()))
    if "groups_fraction" in rule:
        known = sorted({record.group for record in records})
        groups = set(random.Random(rule["seed"]).sample(known, round(rule["groups_fraction"] * len(known))))
    if "files_fraction" in rule:
        stems = sorted({record.image.stem[:4] for record in records})
        files = tuple(random.Random(rule["seed"]).sample(stems, round(rule["files_fraction"] * len(stems))))
        return lambda record: record.image.stem[:4] in files
    return lambda record: record.group in groups or any(part in record.image.name for part in files)


def _each(folder: Path) -> Iterator[tuple[Record, bool]]:
    records = read_manifest(folder)
    held_out = _held_out(folder.name, records)
    for record in records:
        yield record, held_out(record)


def glands(folder: Path) -> Iterator[Example]:
    """EBHI-Seg: epithelium of six diagnoses; carcinoma is also tumour, normal mucosa has none."""
    for record, held_out in _each(folder):
        instances, _ = ndimage.label(read_mask(record) > 0)
        gland = from_instances(np.asarray(instances, np.int32))
        targets = {"gland": gland}
        absent: tuple[str, ...] = ("glomerulus",)
        if "Adenocarcinoma" in record.note:
            targets["tumour"] = Labelled(gland.label)
        elif "Normal" in record.note:
            absent += ("tumour", *TYPED)
        yield Example(
            folder.name,
            record.image.name,
            record.group,
            held_out,
            read_rgb(record.image),
            EBHI_MPP,
            True,
            targets,
            absent,
        )


def _nuclei(folder: Path, *, absent: tuple[str, ...], mpp: float | None = None) -> Iterator[Example]:
    for record, held_out in _each(folder):
        mask = read_mask(record)
        instances = mask if record.kind == "instance" else split_touching(mask > 0, smallest_px=9)
        scale = mpp or record.mpp or TARGET_MPP["nuclei"]
        yield Example(
            folder.name,
            record.image.name,
            record.group,
            held_out,
            read_rgb(record.image),
            scale,
            mpp is None,
            {"nuclei": from_instances(instances, parted=record.kind == "instance")},
            absent,
        )


def dsb(folder: Path) -> Iterator[Example]:
    """DSB 2018, purple-stained fields: all nuclei, scale unknown."""
    yield from _nuclei(folder, absent=("glomerulus", "gland", "mitosis"), mpp=DSB_MPP)


def tnbc(folder: Path) -> Iterator[Example]:
    """TNBC: all nuclei of breast carcinoma, touching ones merged."""
    yield from _nuclei(folder, absent=("glomerulus",))


def nuinsseg(folder: Path) -> Iterator[Example]:
    """NuInsSeg oesophagus: all nuclei of tissue without tumour, touching ones merged."""
    yield from _nuclei(folder, absent=("glomerulus", "tumour nuclei", "tumour"))


def puma(folder: Path) -> Iterator[Example]:
    """PUMA: one field of melanoma, every nucleus outlined and typed."""
    (record, _), *_ = _each(folder)
    instances = read_mask(record)
    with (folder / "types.csv").open(encoding="utf-8") as lines:
        types = {int(row["label"]): row["type"] for row in csv.DictReader(lines)}
    tumour = np.isin(instances, [label for label, kind in types.items() if kind == "tumor"])
    image = read_rgb(record.image)
    cut = round(image.shape[1] * (1 - _holdout()[folder.name]["right_part"]))
    for held_out, part in ((False, np.s_[:, :cut]), (True, np.s_[:, cut:])):
        inside = instances[part]
        targets = {
            "nuclei": from_instances(inside, parted=True),
            "tumour nuclei": from_instances(np.where(tumour[part], inside, 0)),
            "non-tumour nuclei": from_instances(np.where(tumour[part], 0, inside)),
        }
        yield Example(
            folder.name,
            record.image.name,
            record.group,
            held_out,
            image[part],
            0.23,
            True,
            targets,
            ("glomerulus", "gland"),
        )


def tumour_regions(folder: Path) -> Iterator[Example]:
    """BCSS, CAMELYON and OCDC: the tumour against everything else."""
    split = _holdout()[folder.name].get("right_part")
    default = {"camelyon-node-tumour": 1.0}.get(folder.name)
    for record, held_out in _each(folder):
        scale = default or record.mpp or TARGET_MPP["tumour"]
        image, label = (
            read_rgb(record.image),
            np.where(read_mask(record) > 0, FOREGROUND, BACKGROUND).astype(np.uint8),
        )
        if (shrink := scale / REGION_STORE_MPP) < 1:
            size = (round(image.shape[1] * shrink), round(image.shape[0] * shrink))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            label = np.asarray(cv2.resize(label, size, interpolation=cv2.INTER_NEAREST), np.uint8)
            scale = REGION_STORE_MPP
        cut = round(image.shape[1] * (1 - split)) if split else 0
        parts = ((False, np.s_[:, :cut]), (True, np.s_[:, cut:])) if split else ((held_out, np.s_[:, :]),)
        for out, part in parts:
            yield Example(
                folder.name,
                record.image.name,
                record.group,
                out,
                image[part],
                scale,
                True,
                {"tumour": Labelled(label[part])},
                ("glomerulus",),
            )


def glomeruli(folder: Path) -> Iterator[Example]:
    """AIDPATH: glomeruli in PAS-stained kidney biopsies; one mask on blank glass is left out."""
    for record, held_out in _each(folder):
        if record.image.stem == "10179":
            continue
        size = (512, 512)
        image = np.asarray(cv2.resize(read_rgb(record.image), size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = cv2.resize((read_mask(record) > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        instances, _ = ndimage.label(mask)
        yield Example(
            folder.name,
            record.image.name,
            record.group,
            held_out,
            image,
            1.0,
            True,
            {"glomerulus": from_instances(np.asarray(instances, np.int32))},
            ("tumour", "gland", *TYPED),
        )


_PATCHES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
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
    for record, held_out in _each(folder):
        if "lc25000" in record.note or record.mask_class not in _PATCHES:
            continue
        present, absent = _PATCHES[record.mask_class]
        image = read_rgb(record.image)
        scale = record.mpp or BREAKHIS_MPP
        unknown = np.full(image.shape[:2], UNKNOWN, np.uint8)
        targets = {target: Labelled(unknown, present=True) for target in present}
        yield Example(
            folder.name,
            record.image.name,
            record.group,
            held_out,
            image,
            scale,
            record.mpp is not None,
            targets,
            absent,
        )


SOURCES: dict[str, Callable[[Path], Iterator[Example]]] = {
    "ebhi-seg-glands": glands,
    "dsb2018-histology": dsb,
    "tnbc-nuclei": tnbc,
    "nuinsseg-oesophagus": nuinsseg,
    "puma-melanoma-sample": puma,
    "brecahad-typed-nuclei": lambda folder: brecahad(folder, held_out=set(_holdout()[folder.name]["groups"])),
    "bcss-breast-tumour": tumour_regions,
    "camelyon-node-tumour": tumour_regions,
    "ocdc-oral-tumour": tumour_regions,
    "glomeruli-pas": glomeruli,
    "patch-classes": patches,
}
"""Every set that may feed shipped weights (CC0, CC-BY). Sets for evaluation only are not here on purpose."""


def load(root: Path, dataset: str) -> list[Example]:
    """All examples of one set below ``root``. Raises InvalidArgumentError for a set that may not be trained on."""
    if dataset not in SOURCES:
        raise InvalidArgumentError(f"{dataset!r} is not a training set; choose from: {', '.join(SOURCES)}.")
    return list(SOURCES[dataset](root / dataset))
