"""Agreement of a predicted mask, or of predicted objects, with the annotation.

Two empty masks agree (1); an empty one against one that is not scores 0. That holds for every score here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.masks.characteristics import Labels, Mask

MATCH_IOU: Final = 0.5
"""Objects match above this intersection over union; a match is then unique (Kirillov et al. 2019)."""


@dataclass(frozen=True)
class MaskScores:
    """Pixel agreement of one mask, each 0..1."""

    dice: float
    iou: float
    precision: float
    recall: float


@dataclass(frozen=True)
class ObjectScores:
    """Agreement of objects: pq = sq * f1, all 0..1; matched objects have an IoU above 0.5."""

    pq: float
    sq: float
    f1: float
    precision: float
    recall: float
    aji: float
    n_predicted: int
    n_true: int
    n_matched: int


def dice(predicted: Mask, truth: Mask) -> float:
    """``2|P and Y| / (|P| + |Y|)`` of two [H, W] masks."""
    return mask_scores(predicted, truth).dice


def mask_scores(predicted: Mask, truth: Mask) -> MaskScores:
    """All pixel scores at once, from two [H, W] masks of the same shape."""
    _require_same_shape(predicted, truth)
    n_predicted, n_true = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    both = int(np.count_nonzero(predicted & truth))
    if n_predicted == n_true == 0:
        return MaskScores(1.0, 1.0, 1.0, 1.0)
    return MaskScores(
        dice=2.0 * both / (n_predicted + n_true),
        iou=both / (n_predicted + n_true - both),
        precision=both / n_predicted if n_predicted else 0.0,
        recall=both / n_true if n_true else 0.0,
    )


@dataclass(frozen=True)
class Overlaps:
    """Every pair of a true and a predicted object that share a pixel; rows of the three arrays belong together.

    true, predicted: positions 0..N-1 among the objects in order of label. shared_px: pixels of both.
    true_px, predicted_px: area of every object.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    shared_px: NDArray[np.int64]
    true_px: NDArray[np.int64]
    predicted_px: NDArray[np.int64]

    @property
    def union_px(self) -> NDArray[np.int64]:
        """[pairs], in pixels."""
        return self.true_px[self.true] + self.predicted_px[self.predicted] - self.shared_px


def overlaps(predicted: Labels, truth: Labels) -> Overlaps:
    """Tabulate overlapping objects in one pass over the pixels, never as a dense N x M matrix."""
    _require_same_shape(predicted, truth)
    true_ids, true_px = np.unique(truth[truth > 0], return_counts=True)
    predicted_ids, predicted_px = np.unique(predicted[predicted > 0], return_counts=True)
    common = (truth > 0) & (predicted > 0)
    # one number per pair of objects, so that one np.unique counts all pairs
    columns = max(predicted_ids.size, 1)
    pair = np.searchsorted(true_ids, truth[common]) * columns
    pair += np.searchsorted(predicted_ids, predicted[common])
    pairs, shared_px = np.unique(pair, return_counts=True)
    return Overlaps(pairs // columns, pairs % columns, shared_px, true_px, predicted_px)


def object_scores(predicted: Labels, truth: Labels) -> ObjectScores:
    """Panoptic quality, F1 at IoU above 0.5 and aggregated Jaccard of two [H, W] label images (0 background)."""
    table = overlaps(predicted, truth)
    n_true, n_predicted = table.true_px.size, table.predicted_px.size
    if n_true == n_predicted == 0:
        return ObjectScores(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0, 0, 0)
    pair_iou = table.shared_px / table.union_px
    matched = pair_iou > MATCH_IOU
    n_matched = int(np.count_nonzero(matched))
    f1 = 2.0 * n_matched / (n_true + n_predicted)
    # an IoU above 0.5 can be had with one partner only, so no assignment is needed
    sq = float(pair_iou[matched].mean()) if n_matched else 0.0
    return ObjectScores(
        pq=sq * f1,
        sq=sq,
        f1=f1,
        precision=n_matched / n_predicted if n_predicted else 0.0,
        recall=n_matched / n_true if n_true else 0.0,
        aji=_aggregated_jaccard(table, pair_iou),
        n_predicted=n_predicted,
        n_true=n_true,
        n_matched=n_matched,
    )


def _aggregated_jaccard(table: Overlaps, pair_iou: NDArray[np.float64]) -> float:
    """Kumar et al. 2017: each true object with its best partner, then every predicted object never chosen."""
    # best partner first within each true object
    order = np.lexsort((-pair_iou, table.true))
    with_partner, first = np.unique(table.true[order], return_index=True)
    best = order[first]
    alone = np.ones(table.true_px.size, dtype=np.bool_)
    alone[with_partner] = False
    unused = np.ones(table.predicted_px.size, dtype=np.bool_)
    unused[table.predicted[best]] = False
    shared = int(table.shared_px[best].sum())
    union = int(table.union_px[best].sum() + table.true_px[alone].sum() + table.predicted_px[unused].sum())
    return shared / union


def _require_same_shape(predicted: NDArray[np.generic], truth: NDArray[np.generic]) -> None:
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction has shape {predicted.shape}, annotation {truth.shape}")
