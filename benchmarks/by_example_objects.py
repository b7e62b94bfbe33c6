"""Objects in ``python -m benchmarks by_example``: nuclei of one type among all, and boxes around whole objects.

Typed nuclei: boxes around nuclei of the type and of others are shown; F1 over the nuclei that the default model detects and
that somebody typed, without those shown. Against the same random forest, which says for each nucleus what most of its pixels are.

Boxed objects: LiteMedSAM outlines what each box holds and looks for nothing else. Dice of those outlines alone, and of them
against all objects of the image; what is taught by the same boxes' middles answers for the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.by_example_sets import Mask, Teachable
from tissuetalk.models.by_example import Learned, Place, prompt_for, with_examples
from tissuetalk.models.by_example.objects import NUCLEI
from tissuetalk.models.datasets.manifest import Record, read_manifest, read_mask, read_rgb, rows_by_file
from tissuetalk.models.images import Box
from tissuetalk.models.segmentation.pretrained import resized
from tissuetalk.models.segmenter import RGB, Segmenter

LEAST_OF_A_TYPE = 8
"""Nuclei of the type, and of others, that an image must have."""
SURROUNDINGS = 1.5
"""Times the longer side of a box that its crop reaches beyond it: LiteMedSAM wants about four times the box."""


@dataclass(frozen=True)
class Nucleus:
    box: Box
    kind: str

    @property
    def middle(self) -> tuple[int, int]:
        """Column and row."""
        return (self.box.x0 + self.box.x1) // 2, (self.box.y0 + self.box.y1) // 2


@dataclass(frozen=True)
class TypedTask:
    """kind: of the nuclei that are shown as the target. others: the kinds that count as others."""

    title: str
    folder: str
    kind: str
    others: tuple[str, ...]
    mpp: float
    has_groups: bool = True


TYPED_TASKS: Sequence[TypedTask] = (
    TypedTask(
        "melanoma, lymphocytes (PUMA)",
        "puma-melanoma-sample",
        "lymphocyte",
        ("tumor", "histiocyte", "endothelium", "apoptosis"),
        0.23,
    ),
    TypedTask(
        "melanoma, tumour nuclei (PUMA)",
        "puma-melanoma-sample",
        "tumor",
        ("lymphocyte", "histiocyte", "endothelium", "plasma_cell", "apoptosis"),
        0.23,
    ),
    TypedTask(
        "breast, lymphocytes (NuCLS)",
        "nucls-typed",
        "sTIL",
        ("non-TIL stromal", "tumour", "other"),
        0.25,
        False,
    ),
    TypedTask(
        "breast, other than tumour (BreCaHAD)",
        "brecahad-typed-nuclei",
        "non_tumor_nuclei",
        ("tumor_nuclei", "mitosis"),
        0.25,
    ),
)


@dataclass(frozen=True)
class TypedImage:
    """Nuclei of the task's kinds on one image; those of the target first in the order of ``wanted``."""

    image: Teachable
    nuclei: Sequence[Nucleus]
    wanted: NDArray[np.bool_]


def typed_images(task: TypedTask, data: Path) -> Iterator[TypedImage]:
    """Those with enough nuclei of both kinds."""
    listed = data / task.folder / "types.csv"
    rows = rows_by_file(listed if listed.is_file() else listed.with_name("boxes.csv"))
    for record in read_manifest(data / task.folder):
        here = rows[record.image.relative_to(data / task.folder).as_posix()] or rows[""]
        nuclei = [each for each in _nuclei(record, here) if each.kind in (task.kind, *task.others)]
        wanted = np.array([each.kind == task.kind for each in nuclei], bool)
        if min(wanted.sum(), (~wanted).sum()) < LEAST_OF_A_TYPE:
            continue
        pixels = read_rgb(record.image)
        everywhere = np.ones(pixels.shape[:2], bool)
        group = record.group if task.has_groups else None
        image = Teachable(record.image.stem, pixels, ~everywhere, everywhere, task.mpp, group)
        yield TypedImage(image, nuclei, wanted)


def _nuclei(record: Record, rows: Sequence[dict[str, str]]) -> Iterator[Nucleus]:
    """By their outlines and the types of those, or as typed boxes."""
    if record.mask is not None:
        labels = read_mask(record)
        at = ndimage.find_objects(labels)
        for row in rows:
            number = int(row["label"])
            if number <= len(at) and at[number - 1] is not None:
                down, across = at[number - 1]
                yield Nucleus(Box(across.start, down.start, across.stop, down.stop), row["type"])
        return
    for row in rows:
        x, y, width, height = (float(row[key]) for key in ("x_center", "y_center", "width", "height"))
        box = Box(round(x - width / 2), round(y - height / 2), round(x + width / 2), round(y + height / 2))
        yield Nucleus(box, row["type"].lower())


def shown_nuclei(typed: TypedImage, each: int, seed: int) -> NDArray[np.int64]:
    """Which nuclei: up to so many of the target and of others; half of a kind at least are kept back."""
    rng = np.random.default_rng(seed)
    kinds = [rng.permutation(np.flatnonzero(typed.wanted == is_it)) for is_it in (True, False)]
    return np.concatenate([kind[: min(each, len(kind) // 2)] for kind in kinds])


def boxes_of(typed: TypedImage, chosen: Sequence[int] | NDArray[np.int64]) -> list[Place]:
    height, width = typed.image.gold.shape
    clipped = [typed.nuclei[at].box.clipped_to(width, height) for at in chosen]
    return [
        Place(bool(typed.wanted[at]), box=(box.x0, box.y0, box.x1, box.y1))
        for at, box in zip(chosen, clipped, strict=True)
    ]


@dataclass(frozen=True)
class Detected:
    """labels: the model's nuclei on the image. number: by typed nucleus the one that covers its middle, 0 for none or one taken."""

    labels: NDArray[np.int32]
    number: NDArray[np.int64]

    @classmethod
    def of(cls, labels: NDArray[np.int32], nuclei: Sequence[Nucleus]) -> Detected:
        height, width = labels.shape
        number, taken = np.zeros(len(nuclei), np.int64), set[int]()
        for at, nucleus in enumerate(nuclei):
            x, y = nucleus.middle
            found = int(labels[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])
            if found not in taken:
                number[at] = found
                taken.add(found)
        return cls(labels, number)

    def f1(self, mask: Mask, typed: TypedImage, without: NDArray[np.int64]) -> float:
        """Of a mask, over detected typed nuclei: one is found when most of it is in the mask."""
        judged = self.number > 0
        judged[without] = False
        count = int(self.labels.max()) + 1
        flat = self.labels.ravel()
        share = np.bincount(flat, mask.ravel(), count) / np.maximum(np.bincount(flat, minlength=count), 1)
        said, wanted = share[self.number[judged]] > 0.5, typed.wanted[judged]
        total = int(said.sum()) + int(wanted.sum())
        return float(2 * (said & wanted).sum() / total) if total else 1.0


def looked_at(
    model: Segmenter, image: Teachable, learned: Sequence[Learned]
) -> tuple[NDArray[np.int32], list[Mask]]:
    """All nuclei, and what each learned target finds, of one pass over the image at its own scale."""
    able = model.capability(NUCLEI)
    assert able is not None, "the default model knows nuclei"
    height, width = image.gold.shape
    scale = image.mpp / able.mpp
    size = round(width * scale), round(height * scale)
    tile: RGB = resized(image.pixels, *size)
    knows, prompts = with_examples(model, learned), [NUCLEI, *map(prompt_for, learned)]
    context = knows.prepare(image.pixels)
    decoded = knows.decode(knows.encode(tile, context), prompts)
    done = [knows.finish(one, prompt, context) for one, prompt in zip(decoded, prompts, strict=True)]
    assert done[0].instances is not None, "nuclei are objects"

    def enlarged(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST))

    masks = [enlarged(each.mask.astype(np.uint8)) > 0 for each in done[1:]]
    return enlarged(done[0].instances).astype(np.int32), masks


def objects_in(gold: Mask, least_px: int = 100) -> list[tuple[Box, Mask]]:
    """Parts of a mask that lie wholly inside the image: their boxes, and each in its box."""
    labels, _ = ndimage.label(gold)
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        down, across = place
        part = labels[place] == number
        inside = down.start > 0 and across.start > 0
        inside = inside and down.stop < gold.shape[0] and across.stop < gold.shape[1]
        if inside and part.sum() >= least_px:
            found.append((Box(across.start, down.start, across.stop, down.stop), part))
    return found


def outlined(sam: Any, image: Teachable, boxes: Sequence[Box]) -> Mask:
    """What LiteMedSAM draws in the boxes, each seen in a crop of its own."""
    height, width = image.gold.shape
    drawn = np.zeros((height, width), bool)
    for box in boxes:
        reach = round(SURROUNDINGS * max(box.width, box.height))
        crop = Box(box.x0 - reach, box.y0 - reach, box.x1 + reach, box.y1 + reach).clipped_to(width, height)
        within = (box.x0 - crop.x0, box.y0 - crop.y0, box.x1 - crop.x0, box.y1 - crop.y0)
        pixels = np.ascontiguousarray(image.pixels[crop.y0 : crop.y1, crop.x0 : crop.x1])
        (mask,) = sam.segment_boxes(pixels, [within])
        drawn[crop.y0 : crop.y1, crop.x0 : crop.x1] |= mask
    return drawn
