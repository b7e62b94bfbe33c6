"""Agreement of masks and objects, checked against slow and obvious versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tissuetalk.models.metrics.scores import dice, mask_scores, object_scores

Labels = NDArray[np.int32]


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    empty, full = np.zeros((4, 4), dtype=np.bool_), np.ones((4, 4), dtype=np.bool_)
    assert dice(empty, empty) == 1.0
    assert dice(empty, full) == dice(full, empty) == 0.0
    assert mask_scores(empty, full).precision == mask_scores(full, empty).recall == 0.0


def test_scores_of_half_overlapping_squares_are_arithmetic() -> None:
    predicted, truth = np.zeros((10, 20), dtype=np.bool_), np.zeros((10, 20), dtype=np.bool_)
    truth[:, 0:10] = True
    predicted[:, 5:10] = True
    scores = mask_scores(predicted, truth)
    assert scores.dice == pytest.approx(2 * 50 / 150)
    assert mask_scores(predicted, truth).iou == pytest.approx(0.5)
    assert (scores.precision, scores.recall) == (1.0, 0.5)


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        dice(np.zeros((4, 4), dtype=np.bool_), np.zeros((4, 5), dtype=np.bool_))


def test_objects_without_any_object_agree() -> None:
    empty, one = np.zeros((5, 5), dtype=np.int32), np.eye(5, dtype=np.int32)
    assert object_scores(empty, empty).pq == object_scores(empty, empty).aji == 1.0
    for scores in (object_scores(empty, one), object_scores(one, empty)):
        assert (scores.pq, scores.f1, scores.aji) == (0.0, 0.0, 0.0)


def test_perfect_objects_score_one_whatever_their_numbers() -> None:
    truth = np.zeros((8, 8), dtype=np.int32)
    truth[0:3, 0:3], truth[4:8, 4:8] = 1, 2
    renumbered = np.where(truth == 1, 900, np.where(truth == 2, 7, 0)).astype(np.int32)
    scores = object_scores(renumbered, truth)
    assert (scores.pq, scores.sq, scores.f1, scores.aji) == (1.0, 1.0, 1.0, 1.0)


def test_exactly_half_overlap_is_no_match() -> None:
    truth, predicted = np.zeros((4, 8), dtype=np.int32), np.zeros((4, 8), dtype=np.int32)
    truth[:, 0:4] = 1
    predicted[:, 0:2] = 1
    assert object_scores(predicted, truth).n_matched == 0
    predicted[0, 2] = 1
    assert object_scores(predicted, truth).n_matched == 1


def test_one_blob_over_two_nuclei_costs_quality_but_not_dice() -> None:
    truth = np.zeros((10, 20), dtype=np.int32)
    truth[:, 0:10], truth[:, 10:20] = 1, 2
    blob = (truth > 0).astype(np.int32)
    assert dice(blob > 0, truth > 0) == 1.0
    assert object_scores(blob, truth).pq == 0.0
    assert object_scores(blob, truth).aji == pytest.approx(200 / 400)  # both nuclei pair with the same blob


def pq_by_hand(predicted: Labels, truth: Labels) -> tuple[float, float, float]:
    """PQ, F1 and AJI with loops over all pairs."""
    true_ids = [i for i in np.unique(truth) if i]
    predicted_ids = [i for i in np.unique(predicted) if i]
    if not true_ids and not predicted_ids:
        return 1.0, 1.0, 1.0

    def overlap(i: int, j: int) -> tuple[int, int]:
        a, b = truth == i, predicted == j
        return int((a & b).sum()), int((a | b).sum())

    ious = []
    for i in true_ids:
        for j in predicted_ids:
            shared, union = overlap(i, j)
            if shared / union > 0.5:
                ious.append(shared / union)
    weight = len(ious) + (len(true_ids) - len(ious)) / 2 + (len(predicted_ids) - len(ious)) / 2
    shared_sum = union_sum = 0
    used = set()
    for i in true_ids:
        touching = [j for j in predicted_ids if overlap(i, j)[0]]
        if not touching:
            union_sum += int((truth == i).sum())
            continue
        best = max(touching, key=lambda j: overlap(i, j)[0] / overlap(i, j)[1])
        shared_sum += overlap(i, best)[0]
        union_sum += overlap(i, best)[1]
        used.add(best)
    union_sum += sum(int((predicted == j).sum()) for j in predicted_ids if j not in used)
    return sum(ious) / weight, len(ious) / weight, shared_sum / union_sum


@settings(max_examples=150)
@given(seed=st.integers(0, 10_000), n_true=st.integers(0, 5), n_predicted=st.integers(0, 5))
def test_sparse_scores_equal_the_scores_by_hand(seed: int, n_true: int, n_predicted: int) -> None:
    random = np.random.default_rng(seed)

    def boxes(n: int) -> Labels:
        labels = np.zeros((14, 15), dtype=np.int32)
        for label in random.permutation(20)[:n] + 1:
            y, x = random.integers(0, 11, size=2)
            labels[y : y + random.integers(1, 8), x : x + random.integers(1, 8)] = label
        return labels

    truth = boxes(n_true)
    # Half of the predictions are shifted annotations, so that real matches occur.
    predicted = np.roll(truth, 1, axis=1) if seed % 2 else boxes(n_predicted)
    scores = object_scores(predicted, truth)
    pq, f1, aji = pq_by_hand(predicted, truth)
    assert scores.pq == pytest.approx(pq)
    assert scores.f1 == pytest.approx(f1)
    assert scores.aji == pytest.approx(aji)
