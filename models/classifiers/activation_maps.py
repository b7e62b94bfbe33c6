"""Where a slide classifier's logit comes from: shares of patches, of tokens and of objects, and maps painted from them.

PathSegmentor paper (arXiv 2506.20988), class activation maps; spec explain.md, section 6. Shares of every kind and the
classifier's offset (bias) add up to the logit: nothing here is an approximation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tissuetalk.models.classifiers.bags import Mask, PatchBag
from tissuetalk.models.classifiers.networks import AttentionMIL, ObjectAwareModel
from tissuetalk.models.classifiers.objects import OTHER, ObjectBag
from tissuetalk.models.errors import InvalidArgumentError

Overlap = Literal["largest", "mean", "smallest on top"]
"""Whose value a pixel of several objects shows: the largest value, their mean, or that of the object with the least area."""


@dataclass(frozen=True)
class PatchMap:
    """Shares of patches in the logit of one class (standard model).

    values: [N], A_i^c, with sum + bias = logit. attention: [N]. probabilities: [C].
    """

    class_index: int
    values: NDArray[np.float32]
    attention: NDArray[np.float32]
    logit: float
    bias: float
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class ObjectShare:
    """What one object adds to a class.

    activation: A_j^c as the paper defines it. share: A_j^c / L, what it adds to the logit, because the model averages its L
    objects. rank: 1 is the largest. area_fraction: of the patches' area, 0..1. patches: that show it.
    """

    name: str
    activation: float
    share: float
    rank: int
    area_fraction: float
    patches: int


@dataclass(frozen=True)
class ObjectMap:
    """Shares of objects in the logit of one class (object-aware model).

    ranking: best first; the sum of their shares + bias = logit. objects: the model's order.
    fine: [N, L], A_ij^c, the share of each object in each patch, with sum + bias = logit. probabilities: [C].
    """

    class_index: int
    ranking: tuple[ObjectShare, ...]
    objects: tuple[str, ...]
    fine: NDArray[np.float32]
    logit: float
    bias: float
    probabilities: NDArray[np.float32]

    def by_object(self) -> dict[str, float]:
        """The share of each object in the whole slide."""
        return {each.name: each.share for each in self.ranking}

    def in_patch(self, index: int) -> dict[str, float]:
        """The fine shares of one patch by object."""
        return {name: float(value) for name, value in zip(self.objects, self.fine[index], strict=True)}


@torch.no_grad()
def patch_map(model: AttentionMIL, vectors: Tensor, class_index: int | None = None) -> PatchMap:
    """Shares of [N, d] patch vectors for the predicted class, or for ``class_index``."""
    model.eval()
    logits, attention = model.attend(vectors)
    chosen = _class(logits, class_index)
    return PatchMap(
        class_index=chosen,
        values=model.contributions(vectors)[:, chosen].numpy(),
        attention=attention.numpy(),
        logit=float(logits[chosen]),
        bias=float(model.classify.bias[chosen]),
        probabilities=logits.softmax(0).numpy(),
    )


@torch.no_grad()
def object_map(model: ObjectAwareModel, bag: ObjectBag, class_index: int | None = None) -> ObjectMap:
    """Shares of the objects of a slide for the predicted class, or for ``class_index``."""
    model.eval()
    own, _ = model.project(bag)
    output = model.attend(bag)
    chosen = _class(output.logits, class_index)
    weight = model.classify.weight[chosen]
    activations = (output.slide @ weight).tolist()
    # over L, because the model averages the features of its L objects: an object's fine shares add up to its share
    fine = output.attention * (own @ weight) / len(bag.objects)
    # sorted is stable: objects of equal activation keep the model's order
    order = sorted(range(len(bag.objects)), key=lambda row: -activations[row])
    ranking = []
    for rank, row in enumerate(order, 1):
        area, patches = float(bag.coverage[:, row].mean()), int(bag.present[:, row].sum())
        share = activations[row] / len(bag.objects)
        ranking.append(ObjectShare(bag.objects[row], activations[row], share, rank, area, patches))
    return ObjectMap(
        class_index=chosen,
        ranking=tuple(ranking),
        objects=bag.objects,
        fine=fine.T.contiguous().numpy(),
        logit=float(output.logits[chosen]),
        bias=float(model.classify.bias[chosen]),
        probabilities=output.logits.softmax(0).numpy(),
    )


def _class(logits: Tensor, wanted: int | None) -> int:
    if wanted is None:
        return int(logits.argmax())
    if not 0 <= wanted < len(logits):
        raise InvalidArgumentError(
            f"class {wanted} does not exist; this classifier has 0 to {len(logits) - 1}"
        )
    return wanted


def paint_objects(
    masks: Mapping[str, Mask], values: Mapping[str, float], *, overlap: Overlap = "largest"
) -> NDArray[np.float32]:
    """[H, W] map of one patch or view: every pixel shows the value of its object, ``other`` where it is in none.

    masks: [H, W] bool each, all of one size. values: one per object, and ``other`` where the model has it.
    """
    names = [name for name in masks if name in values and name != OTHER]
    if not names:
        raise InvalidArgumentError("nothing to paint: no mask belongs to an object with a value")
    canvas = np.full(masks[names[0]].shape, values.get(OTHER, 0.0), np.float32)
    if overlap == "mean":
        count = sum(masks[name].astype(np.float32) for name in names)
        total = sum(masks[name] * np.float32(values[name]) for name in names)
        return np.where(count > 0, total / np.maximum(count, 1), canvas).astype(np.float32)
    # what is painted last is on top; by area the largest first, so that a gland does not hide the mitosis in it
    names.sort(key=lambda name: values[name] if overlap == "largest" else -int(masks[name].sum()))
    for name in names:
        canvas[masks[name]] = values[name]
    return canvas


def paint_patch(
    shares: ObjectMap,
    bag: PatchBag,
    index: int,
    size: tuple[int, int],
    *,
    fine: bool = False,
    overlap: Overlap = "largest",
) -> NDArray[np.float32]:
    """[h, w] object map of one patch; ``fine`` shows what each object adds in this patch alone."""
    masks = {name: mask_at(bag, index, name, size) for name in shares.objects if name != OTHER}
    return paint_objects(masks, shares.in_patch(index) if fine else shares.by_object(), overlap=overlap)


def mask_at(bag: PatchBag, index: int, name: str, size: tuple[int, int]) -> Mask:
    """[h, w] of an object in a patch, at the size it is shown in; all False where it is not in the patch."""
    found = bag.mask(index, name)
    if found is None:
        return np.zeros(size, bool)
    share = cv2.resize(found.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    # a shown pixel belongs to the object that covers at least half of it
    return np.asarray(share >= 0.5, bool)
