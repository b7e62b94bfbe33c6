"""The objects a diagnosis is explained with: which are segmented well enough, and how each looks in each patch.

Lists: a Dice rule over published scores. `object_dice.csv` holds, for every label that was scored, PathSegmentor's Dice
on its internal test (arXiv 2506.20988, Supplementary Table 15) and how many masks were published for it (explain.md,
section 8). Pooling: token features averaged inside an object's mask (section 5). Masks are plain arrays, so that any
segmenter, or an annotation, can provide them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from tissuetalk.models.classifiers.bags import Mask, PatchBag
from tissuetalk.models.classifiers.encoder import BATCH, PatchEncoder, to_batch
from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError

Array = NDArray[np.float32]
_ROUNDING = 1e-6
MINIMUM_DICE: Final = 0.4
FEW_MASKS: Final = 10
"""Below this many published masks a Dice says little."""
OTHER: Final = "other"
"""All tissue that no listed object covers."""


@dataclass(frozen=True)
class SegmentedObject:
    """A label with how well it is segmented (Dice, 0..1) and on how many published masks that rests."""

    label: str
    dice: float
    published_masks: int

    @property
    def organ(self) -> str:
        return self.label.split("-", 1)[0]

    @property
    def rests_on_few(self) -> bool:
        return self.published_masks < FEW_MASKS

    def __str__(self) -> str:
        caution = ", very few" if self.rests_on_few else ""
        return f"{self.label} (Dice {self.dice:.3f}, {self.published_masks} masks{caution})"


@lru_cache(maxsize=1)
def scored_objects() -> tuple[SegmentedObject, ...]:
    """Every label with a published Dice, best first."""
    text = resources.files("tissuetalk.models.classifiers").joinpath("object_dice.csv").read_text("utf-8")
    rows = [
        SegmentedObject(row["label"], float(row["dice"]), int(row["published_masks"]))
        for row in csv.DictReader(text.splitlines())
    ]
    return tuple(sorted(rows, key=lambda row: -row.dice))


def data_objects(organ: str, *, minimum_dice: float = MINIMUM_DICE) -> tuple[SegmentedObject, ...]:
    """The organ's objects with a Dice of at least ``minimum_dice``, best first (breast: 21).

    Raises InvalidArgumentError when the organ has none; the message names those that have.
    """
    kept = tuple(row for row in scored_objects() if row.organ == organ and row.dice >= minimum_dice)
    if not kept:
        known = sorted({row.organ for row in scored_objects() if row.dice >= minimum_dice})
        raise InvalidArgumentError(
            f"no object of {organ!r} is segmented with a Dice of {minimum_dice:g} or more; "
            f"name the objects yourself, or use one of: {', '.join(known)}"
        )
    return kept


def with_other(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels once each, in their order, and ``other`` last."""
    return (*dict.fromkeys(label for label in labels if label != OTHER), OTHER)


@lru_cache(maxsize=1)
def _questions() -> dict[str, dict[str, Any]]:
    text = resources.files("tissuetalk.models.classifiers").joinpath("object_lists.yaml").read_text("utf-8")
    lists: dict[str, dict[str, Any]] = yaml.safe_load(text)["questions"]
    return lists


def importance_objects(question: str = "breast-idc-ilc") -> tuple[SegmentedObject, ...]:
    """The objects relevant for a question among those the Dice rule keeps, best segmented first (IDC or ILC: 12).

    Raises InvalidArgumentError for a question nobody has written a list for.
    """
    if question not in _questions():
        raise InvalidArgumentError(
            f"no list of relevant objects for {question!r}; known: {', '.join(_questions())}. "
            "Name the objects yourself for another question."
        )
    chosen = _questions()[question]
    return tuple(row for row in data_objects(str(chosen["organ"])) if row.label in chosen["relevant"])


def listed_objects(name: str) -> tuple[str, ...]:
    """Labels by the name of a question or an organ. Raises InvalidArgumentError for any other."""
    rows = importance_objects(name) if name in _questions() else data_objects(name)
    return tuple(row.label for row in rows)


@dataclass(frozen=True)
class ObjectBag:
    """One slide as the object-aware model reads it: N patches, L objects.

    objects: L names, ``other`` last. features: [N, L, d], zero where the object is absent.
    coverage: [N, L], share of the patch that the object covers, 0..1; overlapping objects may add up to more than 1.
    """

    objects: tuple[str, ...]
    features: Array
    coverage: Array

    @property
    def present(self) -> NDArray[np.bool_]:
        """[N, L]: which patch shows which object."""
        return self.coverage > 0

    def without(self, name: str) -> ObjectBag:
        """The same slide as if the object had been found nowhere."""
        if name not in self.objects:
            raise InvalidArgumentError(f"no object {name!r} here; there are: {', '.join(self.objects)}")
        keep = np.array([one != name for one in self.objects], np.float32)
        return ObjectBag(self.objects, self.features * keep[:, None], self.coverage * keep)


def on_grid(mask: Mask, height: int, width: int) -> Array:
    """Share of every token that a mask of any size covers: [height, width], 0..1, by area average."""
    # by area, so that an object thinner than a token still has its share of it
    shrunk = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(shrunk, 0.0, 1.0), np.float32)


def token_weights(masks: Mapping[str, Mask], objects: Sequence[str], height: int, width: int) -> Array:
    """[L, height, width] shares of the tokens of one patch; ``other`` is what the union of the rest leaves.

    Raises InvalidArgumentError when an object has no mask (nothing found is a mask that is all False; an object that
    nobody looked for cannot be scored), or when masks differ in size.
    """
    wanted = [name for name in objects if name != OTHER]
    missing = [name for name in wanted if name not in masks]
    if missing:
        raise InvalidArgumentError(
            f"no mask for {', '.join(missing)}: segment them too (an empty mask says that nothing was found)"
        )
    shapes = {masks[name].shape for name in wanted}
    if len(shapes) > 1:
        raise InvalidArgumentError(
            f"masks of one patch differ in size: {sorted(shapes)}; give them all the patch's own"
        )
    union = np.zeros(next(iter(shapes), (height, width)), bool)
    weights = np.zeros((len(objects), height, width), np.float32)
    for row, name in enumerate(objects):
        if name != OTHER:
            found = masks[name].astype(bool)
            union |= found
            weights[row] = on_grid(found, height, width) if found.any() else 0.0
    if OTHER in objects:
        left = 1.0 - on_grid(union, height, width)
        # area averages are rounded: a patch that is all object would keep a trace of other tissue
        weights[list(objects).index(OTHER)] = np.where(left > _ROUNDING, left, 0.0)
    return weights


def pool_objects(tokens: Array, masks: Sequence[Mapping[str, Mask]], objects: Sequence[str]) -> ObjectBag:
    """Average the tokens of every patch inside every object.

    Args:
        tokens: [N, h, w, d] features of the frozen patch encoder.
        masks: for every patch, one mask per object, at any size that covers the patch.
        objects: names in the model's order.
    """
    n, height, width, depth = tokens.shape
    if len(masks) != n:
        raise InvalidArgumentError(f"{n} patches but masks of {len(masks)}; give one set of masks per patch")
    features = np.zeros((n, len(objects), depth), np.float32)
    coverage = np.zeros((n, len(objects)), np.float32)
    for patch, of_patch in enumerate(masks):
        weights = token_weights(of_patch, objects, height, width).reshape(len(objects), -1)
        total = weights.sum(axis=1)
        shown = total > 0
        # an object that is not there keeps zeros and is masked in the attention
        features[patch, shown] = (weights[shown] / total[shown, None]) @ tokens[patch].reshape(-1, depth)
        coverage[patch] = weights.mean(axis=1)
    return ObjectBag(tuple(objects), features, coverage)


def read_objects(
    encoder: PatchEncoder, bag: PatchBag, objects: Sequence[str], control: Control = Control()
) -> ObjectBag:
    """Encode the patches of a slide and average them inside its masks; a few patches are in memory at a time.

    Raises InvalidArgumentError when nobody segmented one of the objects, and CancelledError.
    """
    parts = []
    for start in range(0, len(bag), BATCH):
        control.check()
        pixels = [bag.pixels(i) for i in range(start, min(start + BATCH, len(bag)))]
        masks = [masks_of(bag, start + i, patch.shape[:2]) for i, patch in enumerate(pixels)]
        parts.append(pool_objects(encoder.encode(to_batch(pixels)).tokens.numpy(), masks, objects))
    return ObjectBag(
        tuple(objects),
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.coverage for part in parts]),
    )


def masks_of(bag: PatchBag, index: int, shape: tuple[int, ...]) -> dict[str, Mask]:
    """One mask for every object that was looked for; all False where it is not in the patch."""
    found = {name: bag.mask(index, name) for name in bag.objects}
    return {name: np.zeros(shape, bool) if mask is None else mask for name, mask in found.items()}
