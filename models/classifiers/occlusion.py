"""Perturbations that know no objects, to compare object importance with: does what they find lie on the objects?

Grey squares: Zeiler and Fergus 2014. Superpixels: the regions of LIME, Ribeiro et al. 2016. Random masks: RISE, Petsiuk et al. 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import slic

from tissuetalk.models.classifiers.activation_maps import mask_at
from tissuetalk.models.classifiers.bags import PatchBag
from tissuetalk.models.classifiers.classifier import Classifier, predict_bag
from tissuetalk.models.classifiers.encoder import encode_patches
from tissuetalk.models.classifiers.evaluation import macro_auc
from tissuetalk.models.classifiers.importance import loss_of
from tissuetalk.models.control import Control
from tissuetalk.models.segmenter import RGB

GREY = 128
SIDE_PX: Final = 224
"""Of the picture that is covered: what encoders are shown."""
LEAST_SHARE: Final = 0.01
"""Of a patch that an object, and all else, must cover to be told apart by a map."""


@dataclass(frozen=True)
class OcclusionMap:
    """relevance: [S, S], how much covering a place raises the loss (a ratio for squares and superpixels). patches: how many were encoded."""

    relevance: NDArray[np.float64]
    patches: int


LossOf = Callable[[Sequence[RGB]], Sequence[float]]
"""Loss of the slide with one patch replaced by each of these pictures in turn."""
Occlusion = Literal["grey squares", "superpixels", "random masks"]


@dataclass(frozen=True)
class OnObject:
    """How well a map of one patch finds an object: area under the ROC curve of its pixels against the others, 0.5 by chance."""

    method: Occlusion
    name: str
    found: float
    label: int


def found_by_occlusion(
    classifier: Classifier,
    bag: PatchBag,
    methods: Sequence[Occlusion],
    *,
    label: int,
    patches: int,
    control: Control = Control(),
) -> list[OnObject]:
    """Cover parts of the patches that weigh most and say on which objects the loss of the class ``label`` grew."""
    before = predict_bag(classifier, bag, control)
    told = []
    for index in np.argsort(-before.attention)[:patches].tolist():
        patch = bag.pixels(index)
        small = np.asarray(cv2.resize(patch, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)

        def losses(pictures: Sequence[RGB], index: int = index) -> list[float]:
            vectors = encode_patches(classifier.encoder, list(pictures), classifier.card.feature, control)
            slides = before.vectors.repeat(len(vectors), 1, 1)
            slides[:, index] = vectors
            return [loss_of(classifier.model, slide, label) for slide in slides]

        masks = {name: mask_at(bag, index, name, (SIDE_PX, SIDE_PX)) for name in bag.objects}
        shown = {n: mask for n, mask in masks.items() if LEAST_SHARE < mask.mean() < 1 - LEAST_SHARE}
        for method in methods if shown else ():
            relevance = OCCLUSIONS[method](small, losses).relevance.ravel()
            for name, mask in shown.items():
                area = macro_auc(np.stack([-relevance, relevance], axis=1), mask.ravel().astype(int))
                told.append(OnObject(method, name, area, label))
    return told


def grey_squares(patch: RGB, loss_of: LossOf, *, across: int = 7) -> OcclusionMap:
    """Cover one square after the other with grey."""
    side = patch.shape[0]
    edges = np.linspace(0, side, across + 1).astype(int)
    places = np.zeros((side, side), int)
    for row in range(across):
        for column in range(across):
            places[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = row * across + column
    return _covered(patch, places, loss_of, np.array([GREY] * 3))


def superpixels(patch: RGB, loss_of: LossOf, *, count: int = 50) -> OcclusionMap:
    """Replace one superpixel after the other by the patch's mean colour."""
    places = slic(patch, n_segments=count, compactness=10, start_label=0)
    return _covered(patch, np.asarray(places), loss_of, patch.mean((0, 1)))


def random_masks(
    patch: RGB, loss_of: LossOf, *, count: int = 200, cells: int = 7, kept: float = 0.5, seed: int = 0
) -> OcclusionMap:
    """RISE: dim the patch with soft random masks; a place matters where the loss is low while it is visible."""
    random = np.random.default_rng(seed)
    side = patch.shape[0]
    masks = np.stack([_soft_mask(random, side, cells, kept) for _ in range(count)])
    grey = (
        (patch * mask[..., None] + GREY * (1 - mask[..., None])).round().astype(np.uint8) for mask in masks
    )
    certainty = np.exp(-np.concatenate([np.asarray(loss_of(some)) for some in _in_batches(grey, 8)]))
    seen = masks.sum(0)
    return OcclusionMap(np.tensordot(certainty, masks, axes=1) / np.maximum(seen, 1e-9), count)


def _soft_mask(random: np.random.Generator, side: int, cells: int, kept: float) -> NDArray[np.float64]:
    grid = (random.random((cells, cells)) < kept).astype(np.float32)
    cell = -(-side // cells)
    large = cv2.resize(grid, ((cells + 1) * cell,) * 2, interpolation=cv2.INTER_LINEAR)
    top, left = random.integers(cell, size=2)
    return np.asarray(large[top : top + side, left : left + side], np.float64)


def _covered(
    patch: RGB, places: NDArray[np.integer], loss_of: LossOf, colour: NDArray[np.floating | np.integer]
) -> OcclusionMap:
    numbers = np.unique(places)
    pictures = (
        np.where((places == number)[..., None], colour.round().astype(np.uint8), patch) for number in numbers
    )
    losses = np.concatenate([np.asarray(loss_of(some)) for some in _in_batches(pictures, 8)])
    before = float(loss_of([patch])[0])
    relevance = np.zeros(places.shape)
    for number, loss in zip(numbers, losses, strict=True):
        relevance[places == number] = loss / before
    return OcclusionMap(relevance, len(numbers) + 1)


def _in_batches(pictures: Iterator[RGB], size: int) -> Iterator[list[RGB]]:
    batch: list[RGB] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


OCCLUSIONS: Final[Mapping[Occlusion, Callable[[RGB, LossOf], OcclusionMap]]] = {
    "grey squares": grey_squares,
    "superpixels": superpixels,
    "random masks": random_masks,
}
