"""From a source's own files to a manifest of 1024 px patches that `evaluate` and `train` read.

PathSeg's four rules hold for every image and mask: magnification, patches, size, split (A5 to A8).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import cv2
import numpy as np

from tissuetalk.models.control import Control
from tissuetalk.models.datasets.example import Instances, Pixels
from tissuetalk.models.datasets.pathseg.formats import READERS
from tissuetalk.models.datasets.pathseg.source import PathSegSource, Picture, Split, source_named
from tissuetalk.models.errors import WorkspaceUnwritableError
from tissuetalk.models.writing import CsvWriter

COMMON_MAGNIFICATION: Final = 40.0
COMMON_MPP: Final = 0.25
"""µm per pixel at 40x."""
KEPT_WHOLE_PX: Final = 1500
SIDE_PX: Final = 1024
TEST_SHARE: Final = 0.2
SPLIT_SEED: Final = 2025

COLUMNS: Final = (
    "file", "mask", "mask_kind", "mask_class", "n_instances", "split", "group", "organ", "stain", "magnification",
    "mpp_um", "width", "height", "source", "absent", "note",
)  # fmt: skip
Plane = TypeVar("Plane", Pixels, Instances)


@dataclass(frozen=True)
class SourcePatch:
    """A square of 1024 px cut from an image at 40x.

    x, y: where it begins, and width, height: how large it was, in pixels at 40x. labels: only those with a pixel here, [H, W] object
    numbers; a region is the one object 1.
    """

    x: int
    y: int
    width: int
    height: int
    image: Pixels
    labels: Mapping[str, Instances]

    @property
    def mpp_xy(self) -> tuple[float, float]:
        """µm per pixel across and down, after the resize."""
        return COMMON_MPP * self.width / SIDE_PX, COMMON_MPP * self.height / SIDE_PX


def windows(length: int) -> list[tuple[int, int]]:
    """Start and length of the patches along one side: whole up to 1500 px, else 1024 px with equal overlaps."""
    if length <= KEPT_WHOLE_PX:
        return [(0, length)]
    count = math.ceil(length / SIDE_PX)
    return [(round(k * (length - SIDE_PX) / (count - 1)), SIDE_PX) for k in range(count)]


def patches(image: Pixels, labels: Mapping[str, Instances], magnification: float) -> Iterator[SourcePatch]:
    """Every patch of an image [H, W, 3] as scanned at ``magnification``: to 40x, cut, and to 1024 x 1024 px."""
    factor = COMMON_MAGNIFICATION / magnification
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    image = _resized(image, size)
    labels = {label: _resized(plane, size) for label, plane in labels.items()}
    for y, height in windows(image.shape[0]):
        for x, width in windows(image.shape[1]):
            part = np.s_[y : y + height, x : x + width]
            inside = {label: plane[part] for label, plane in labels.items() if plane[part].any()}
            kept = {label: _resized(plane, (SIDE_PX, SIDE_PX)) for label, plane in inside.items()}
            yield SourcePatch(x, y, width, height, _resized(image[part], (SIDE_PX, SIDE_PX)), kept)


def _resized(plane: Plane, size: tuple[int, int]) -> Plane:
    """Images bilinear, object numbers nearest. size: width, height."""
    if plane.shape[:2] == size[::-1]:
        return plane
    if plane.ndim == 3:
        return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), plane.dtype)
    # OpenCV has no nearest-neighbour resize for int32; float32 holds object numbers exactly
    moved: Any = cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(moved, plane.dtype)


def random_split(names: Sequence[str], *, seed: int = SPLIT_SEED) -> dict[str, Split]:
    """Four fifths train, one fifth test, whole source images; the same for the same names in any order."""
    ordered = sorted(set(names))
    chosen = set(random.Random(seed).sample(ordered, round(TEST_SHARE * len(ordered))))
    return {name: "test" if name in chosen else "train" for name in ordered}


@dataclass(frozen=True)
class Prepared:
    """What a run wrote: source images, patches, and (patch, label) pairs, of which so many are for testing."""

    images: int
    patches: int
    masks: int
    test_masks: int
    labels: tuple[str, ...]


def read_source(source: PathSegSource, folder: Path) -> list[Picture]:
    """All images of a source with their split: the published one, else four fifths train, or all for testing."""
    found = list(READERS[source.format](source, folder))
    if source.split == "test":
        return [replace(picture, split="test") for picture in found]
    # Whole images are drawn, never patches: neighbours of one image on both sides would be a leak.
    drawn = random_split([picture.source_image for picture in found])
    return [replace(picture, split=picture.split or drawn[picture.source_image]) for picture in found]


def prepare(
    name: str, folder: Path, out: Path, *, limit: int | None = None, control: Control = Control()
) -> Prepared:
    """Write patches, masks and ``manifest.csv`` (all), ``train.csv`` and ``test.csv`` of one source.

    limit: only so many source images, for a try. A patch without a pixel of any label gives no row.
    Raises InvalidArgumentError or UnreadableImageError naming what is missing, WorkspaceUnwritableError for ``out``.
    """
    source = source_named(name)
    found = list(islice(read_source(source, folder), limit))
    rows: list[dict[str, Any]] = []
    n_patches = 0
    try:
        for part in ("images", "masks"):
            (out / part).mkdir(parents=True, exist_ok=True)
        for done, picture in enumerate(found):
            control.check()
            control.report(done / len(found), picture.name)
            read = picture.read()
            for patch in patches(read.image, read.labels, source.magnification):
                n_patches += 1
                rows += _written(out, source, picture, patch)
        for file, splits in (("manifest", ("train", "test")), ("train", ("train",)), ("test", ("test",))):
            with (out / f"{file}.csv").open("w", encoding="utf-8", newline="") as lines:
                writer = CsvWriter(lines, COLUMNS, line_end="\r\n")
                writer.header()
                writer.rows(row for row in rows if row["split"] in splits)
    except OSError as error:
        raise WorkspaceUnwritableError(
            f"cannot write to {out}: {error.strerror}; choose another folder."
        ) from error
    labels = tuple(sorted({row["mask_class"] for row in rows}))
    n_test = sum(row["split"] == "test" for row in rows)
    return Prepared(len(found), n_patches, len(rows), n_test, labels)


def _written(
    out: Path, source: PathSegSource, picture: Picture, patch: SourcePatch
) -> Iterator[dict[str, Any]]:
    """Write a patch and its masks, and give a row for each label on it."""
    if not patch.labels:
        return
    stem = re.sub(r"[^\w.-]+", "_", f"{source.name}_{picture.name}_x{patch.x}_y{patch.y}")
    _save(out / "images" / f"{stem}.png", cv2.cvtColor(patch.image, cv2.COLOR_RGB2BGR))
    across, down = patch.mpp_xy
    absent = [label for label in picture.known if label not in patch.labels]
    for label, numbers in patch.labels.items():
        mask = f"masks/{stem}_{re.sub(r'[^a-z0-9]+', '-', label)}.png"
        instances = source.objects != "none"
        count = _save_mask(out / mask, numbers, instances=instances)
        yield {
            "file": f"images/{stem}.png",
            "mask": mask,
            "mask_kind": "instance" if instances else "binary",
            "mask_class": label,
            "n_instances": count if instances else "",
            "split": picture.split,
            "group": picture.group,
            "organ": label.split("-", 1)[0],
            "stain": "H&E",
            "magnification": "40x",
            # The resize to a square may stretch; the geometric mean keeps areas right.
            "mpp_um": f"{(across * down) ** 0.5:.5f}",
            "width": SIDE_PX,
            "height": SIDE_PX,
            "source": source.name,
            "absent": ";".join(absent),
            "note": f"{patch.width}x{patch.height} px at 40x; µm per pixel {across:.5f} across, {down:.5f} down",
        }


def _save_mask(path: Path, numbers: Instances, *, instances: bool) -> int:
    """16-bit object numbers from 1, or 0 and 255; returns how many objects there are."""
    if not instances:
        _save(path, np.where(numbers > 0, 255, 0).astype(np.uint8))
        return 0
    # Numbers are made dense, because a patch of a large image may hold objects 40,000 to 40,100 of it, or 70,000.
    values, ranks = np.unique(numbers, return_inverse=True)
    ranks = ranks.reshape(numbers.shape) + (0 if values[0] == 0 else 1)
    _save(path, ranks.astype(np.uint16))
    return int(ranks.max())


def _save(path: Path, pixels: Any) -> None:
    encoded, data = cv2.imencode(".png", pixels)
    if not encoded:
        raise OSError(f"{path.name} could not be written")
    path.write_bytes(data.tobytes())
