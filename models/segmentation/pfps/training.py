"""What the PFPs network is trained with: kidney patches, questions about them, the loss, and one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.errors import InvalidArgumentError, UnreadableImageError
from tissuetalk.models.masks.characteristics import Labels, Mask
from tissuetalk.models.reading import table_of
from tissuetalk.models.segmentation.layers import soft_dice
from tissuetalk.models.segmentation.pfps.card import UNIT_WORDS
from tissuetalk.models.segmentation.pfps.efficient_sam import (
    BOTTOM_RIGHT,
    INVALID,
    POINT,
    TOP_LEFT,
    prepared,
)
from tissuetalk.models.segmentation.pfps.network import UNITS, Pfps, foreground
from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.segmenter import RGB, BoxXYXY, PointXY

ERODED_PX: Final = 2
COLUMNS: Final = ("image", "units", "nuclei", "unit", "split")
_LOOK: Final = {
    "pt": ((190, 120, 170), 0.16),
    "dt": ((215, 165, 205), 0.12),
    "tuft": ((170, 110, 190), 0.22),
    "capsule": ((225, 190, 215), 0.26),
}
"""Colour and half axis (share of the side) of a drawn unit."""


@dataclass(frozen=True)
class KidneyPatch:
    """One patch is annotated for exactly one kind of unit, and for nuclei.

    image: [H, W, 3]. units, nuclei: [H, W] int32, 0 background. unit: a key of UNIT_WORDS.
    """

    image: RGB
    units: Labels
    nuclei: Labels
    unit: str


def drawn_patch(seed: int, unit: str, side_px: int = 1024) -> KidneyPatch:
    """Ellipses in the colour of the unit with dark discs inside, across the border and outside."""
    random = np.random.default_rng(seed)
    image = np.full((side_px, side_px, 3), (238, 205, 220), np.float32)
    units = np.zeros((side_px, side_px), np.int32)
    nuclei = np.zeros((side_px, side_px), np.int32)
    colour, size = _LOOK[unit]
    for number in range(1, 3 + int(random.integers(0, 2))):
        centre = random.uniform(0.2, 0.8, 2) * side_px
        axes = random.uniform(0.7, 1.1, 2) * size * side_px
        shape = np.zeros(units.shape, np.uint8)
        place = tuple(int(value) for value in centre), tuple(int(value) for value in axes)
        cv2.ellipse(shape, *place, float(random.uniform(0, 180)), 0.0, 360.0, 1, -1)
        free = (shape > 0) & (units == 0)
        units[free], image[free] = number, colour
    radius = max(2, round(0.02 * side_px))
    wanted, number = 24, 0
    for x, y in random.integers(radius, side_px - radius, (20 * wanted, 2)).tolist():
        if number == wanted:
            break
        disc = np.zeros(nuclei.shape, np.uint8)
        cv2.circle(disc, (x, y), radius, 1, -1)
        if not nuclei[disc > 0].any():
            number += 1
            nuclei[disc > 0], image[disc > 0] = number, (85, 60, 140)
    image += random.normal(0, 6, image.shape)
    return KidneyPatch(image.clip(0, 255).astype(np.uint8), units, nuclei, unit)


@dataclass(frozen=True)
class PatchPlace:
    """A patch that is read, or drawn, when it is needed: a whole study does not fit into memory."""

    unit: str
    read: Callable[[], KidneyPatch]


def read_patches(folder: Path, split: str | None = None) -> list[PatchPlace]:
    """The patches ``patches.csv`` lists: columns image, units, nuclei (label images), unit (pt, dt, tuft, capsule), split.

    Raises InvalidArgumentError for a wrong table; reading a place raises UnreadableImageError for a damaged file.
    """
    table = folder / "patches.csv"
    if not table.is_file():
        raise InvalidArgumentError(
            f"{folder} has no patches.csv; list the files in columns {', '.join(COLUMNS)}."
        )
    columns, rows = table_of(table)
    if not rows or set(COLUMNS) - set(columns):
        raise InvalidArgumentError(
            f"{table.name} needs the columns {', '.join(COLUMNS)} and at least one row."
        )
    if wrong := {row["unit"] for row in rows} - set(UNIT_WORDS):
        raise InvalidArgumentError(f"{table.name}: {min(wrong)!r} is no unit; write {', '.join(UNIT_WORDS)}.")
    return [
        PatchPlace(row["unit"], partial(_patch, folder, row))
        for row in rows
        if split is None or row["split"] == split
    ]


def _patch(folder: Path, row: Mapping[str, str]) -> KidneyPatch:
    image = _read(folder / row["image"], cv2.IMREAD_COLOR_RGB).astype(np.uint8)
    units, nuclei = (
        _read(folder / row[name], cv2.IMREAD_UNCHANGED).astype(np.int32) for name in ("units", "nuclei")
    )
    if units.shape != image.shape[:2] or nuclei.shape != image.shape[:2]:
        raise UnreadableImageError(
            f"the label images of {row['image']} have another size; correct patches.csv."
        )
    return KidneyPatch(image, units, nuclei, row["unit"])


def _read(path: Path, mode: int) -> NDArray[np.uint8]:
    pixels = cv2.imread(str(path), mode)
    if pixels is None:
        raise UnreadableImageError(f"{path} cannot be read as an image; correct patches.csv.")
    return np.asarray(pixels)


def valid_point(instances: Labels, random: np.random.Generator) -> PointXY | None:
    """x, y inside one object, drawn uniformly over objects and then over its pixels 2 px from the border.

    An object too thin for that offers all its pixels. None when there is no object.
    """
    ids = np.unique(instances[instances > 0])
    if not len(ids):
        return None
    chosen = (instances == random.choice(ids)).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * ERODED_PX + 1, 2 * ERODED_PX + 1))
    inner = cv2.erode(chosen, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    rows, columns = np.nonzero(inner if inner.any() else chosen)
    at = int(random.integers(len(rows)))
    return float(columns[at]), float(rows[at])


@dataclass(frozen=True)
class KidneyQuestion:
    """One request about one image, in both forms it can be said in.

    truth: [H, W]. unit: key of UNIT_WORDS. task: 1 to 9. sentence: the task in words. point_xy, box_xyxy: pixels of the
    image, at most one of them.
    """

    image: RGB
    truth: Mask
    unit: str
    task: int
    sentence: str
    point_xy: PointXY | None = None
    box_xyxy: BoxXYXY | None = None


def pfps_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Sigmoid Dice plus cross-entropy over both channels of [B, 2, H, W]; truth [B, H, W] in 0..1.

    The paper names no loss; this is that of its ancestor (spec pfps.md, section 7).
    """
    both = torch.stack([1 - truth, truth], dim=1)
    cross = functional.binary_cross_entropy_with_logits(logits, both)
    return soft_dice(logits.sigmoid(), both).mean() + cross


def ask(model: Pfps, questions: Sequence[KidneyQuestion]) -> Tensor:
    """[B, 2, S, S] logits at the model's input size, by sentence or ID as the model was built."""
    side = model.sizes.sam.image_px
    images = torch.cat([pixels_of(question.image, side) for question in questions])
    places = [placed(each.image, side, each.point_xy, each.box_xyxy) for each in questions]
    places_xy, kinds = (torch.cat(each).to(images.device) for each in zip(*places, strict=True))
    if model.sizes.strategy == "text":
        request = model.request([question.sentence for question in questions])
    else:
        units = torch.tensor([UNITS.index(question.unit) for question in questions], device=images.device)
        tasks = torch.tensor([question.task for question in questions], device=images.device)
        request = model.request(units, tasks)
    logits: Tensor = model(images, request, places_xy, kinds)
    return logits


def placed(
    image: RGB, side: int, point: PointXY | None = None, box: BoxXYXY | None = None
) -> tuple[Tensor, Tensor]:
    """A point or a box in pixels of an image, or neither, as a network of this input side takes it: [1, 2, 2] and [1, 2]."""
    across, down = side / image.shape[1], side / image.shape[0]
    if box is not None:
        x0, y0, x1, y1 = box
        corners = [[x0 * across, y0 * down], [x1 * across, y1 * down]]
        return torch.tensor([corners]), torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]])
    x, y = point or (0.0, 0.0)
    kind = INVALID if point is None else POINT
    return torch.tensor([[[x * across, y * down], [0.0, 0.0]]]), torch.tensor([[kind, INVALID]])


def pixels_of(image: RGB, side: int) -> Tensor:
    """[1, 3, side, side], normalised."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device())
    return prepared(pixels[None].float() / 255, side)


def optimiser_of(model: Pfps, *, learning_rate: float = 1e-3) -> torch.optim.Adam:
    return torch.optim.Adam((each for each in model.parameters() if each.requires_grad), learning_rate)


def loss_of(model: Pfps, questions: Sequence[KidneyQuestion]) -> Tensor:
    """The loss of a batch in training."""
    model.train()
    logits = ask(model, questions)
    truth = torch.from_numpy(np.stack([question.truth for question in questions])).float().to(logits.device)
    if truth.shape[-2:] != logits.shape[-2:]:
        truth = functional.interpolate(truth[:, None], logits.shape[-2:], mode="nearest")[:, 0]
    return pfps_loss(logits, truth)


@torch.inference_mode()
def answer(model: Pfps, question: KidneyQuestion) -> Mask:
    """[H, W] mask at the image's own size."""
    model.eval()
    logits, size = ask(model, [question]), question.image.shape[:2]
    logits = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
    return np.asarray(foreground(logits)[0].cpu().numpy())
