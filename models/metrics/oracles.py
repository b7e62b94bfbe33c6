"""What a box-prompted model would reach with boxes taken from the annotation, and at how many prompts.

Boxes are [N, 4] int64 rows of x0, y0, x1, y1, half-open pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.masks.characteristics import Labels, Mask, components
from tissuetalk.models.segmenter import RGB

Boxes = NDArray[np.int64]
Oracle = Literal["union box", "instance box", "box as mask"]


class BoxModel(Protocol):
    """Anything that turns boxes on one image [H, W, 3] into one mask [H, W] per box."""

    def segment_boxes(
        self, image: RGB, boxes_xyxy: Sequence[tuple[float, float, float, float]]
    ) -> Iterable[Mask]: ...


def instance_boxes(instances: Labels) -> Boxes:
    """[N, 4]: the smallest rectangle around every object of [H, W] labels, in order of label; a mask is one object."""
    # None: a number that no pixel has
    found = [place for place in ndimage.find_objects(instances) if place is not None]
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in found]
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def boxes_as_mask(boxes: Boxes, shape: tuple[int, int]) -> Mask:
    """[H, W] with the boxes themselves painted."""
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
    boxes = instance_boxes(truth.astype(np.int32)) if kind == "union box" else instance_boxes(objects)
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


PUBLISHED_EFFICIENCY: Final = (
    Efficiency("MedSAM, union box", 1.0, 0.526),
    Efficiency("MedSAM, instance box", 14.7, 0.774),
    Efficiency("box as mask", 14.7, 0.795),
    Efficiency("PathSegmentor, text", 1.0, 0.671),
)
"""Over all 45,018 internal test masks of PathSeg (arXiv 2506.20988)."""
