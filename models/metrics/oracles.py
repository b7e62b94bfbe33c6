"""What a box-prompted model would reach with boxes taken from the annotation, and at how many prompts.

Boxes are [N, 4] int64 rows of x0, y0, x1, y1, half-open pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.masks.characteristics import Labels, Mask, components
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmenter import RGB

Boxes = NDArray[np.int64]
Oracle = Literal["union box", "instance box", "box as mask"]


class BoxModel(Protocol):
    """Anything that turns boxes on one image into one mask per box."""

    def segment_boxes(
        self, image: RGB, boxes_xyxy: Sequence[tuple[float, float, float, float]]
    ) -> Iterable[Mask]: ...


def union_box(truth: Mask) -> Boxes:
    """Smallest rectangle around everything, [1, 4]; [0, 4] for an empty mask."""
    return instance_boxes(truth.astype(np.int32))


def instance_boxes(instances: Labels) -> Boxes:
    """Smallest rectangle around every object, in order of label."""
    y, x = np.nonzero(instances)
    ids, rank = np.unique(instances[y, x], return_inverse=True)
    boxes = np.empty((ids.size, 4), dtype=np.int64)
    boxes[:, :2] = np.iinfo(np.int64).max
    boxes[:, 2:] = 0
    for column, values in ((0, x), (1, y)):
        np.minimum.at(boxes[:, column], rank, values)
        np.maximum.at(boxes[:, column + 2], rank, values + 1)
    return boxes


def boxes_as_mask(boxes: Boxes, shape: tuple[int, int]) -> Mask:
    """Paint the boxes themselves."""
    mask = np.zeros(shape, dtype=np.bool_)
    for x0, y0, x1, y1 in boxes.tolist():
        mask[y0:y1, x0:x1] = True
    return mask


@dataclass(frozen=True)
class OracleAnswer:
    """The united mask, and how many prompts it took."""

    mask: Mask
    prompts: int


def ask_oracle(
    kind: Oracle,
    truth: Mask,
    *,
    instances: Labels | None = None,
    image: RGB | None = None,
    model: BoxModel | None = None,
) -> OracleAnswer:
    """Prompt a model with boxes from the annotation and unite its masks.

    ``instances`` default to the 8-connected components of the annotation of at least 36 px. ``image`` and ``model``
    are needed for every kind but ``box as mask``.
    """
    objects = components(truth) if instances is None else instances
    boxes = union_box(truth) if kind == "union box" else instance_boxes(objects)
    if kind == "box as mask":
        height, width = truth.shape
        return OracleAnswer(boxes_as_mask(boxes, (height, width)), len(boxes))
    if image is None or model is None:
        raise ValueError(f"the {kind} oracle needs an image and a model")
    united = np.zeros(truth.shape, dtype=np.bool_)
    asked = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in boxes.tolist()]
    for mask in model.segment_boxes(image, asked) if asked else []:
        united |= mask
    return OracleAnswer(united, len(boxes))


@dataclass(frozen=True)
class Efficiency:
    """What a method reaches for what it is told."""

    method: str
    prompts_per_mask: float
    dice: float


def efficiency(method: str, answers: Iterable[tuple[OracleAnswer, Mask]]) -> Efficiency:
    """Mean prompts and mean Dice over pairs of answer and annotation."""
    pairs = [(answer.prompts, dice(answer.mask, truth)) for answer, truth in answers]
    prompts, scores = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return Efficiency(method, float(prompts.mean()), float(scores.mean()))


PUBLISHED_EFFICIENCY: Final = (
    Efficiency("MedSAM, union box", 1.0, 0.526),
    Efficiency("MedSAM, instance box", 14.7, 0.774),
    Efficiency("box as mask", 14.7, 0.795),
    Efficiency("PathSegmentor, text", 1.0, 0.671),
)
"""Over all 45,018 internal test masks of PathSeg (arXiv 2506.20988)."""
