"""Splits that keep patients apart, and scores worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tissuetalk.models.classifiers.evaluation import (
    classification_scores,
    macro_accuracy,
    macro_auc,
    macro_f1,
    over_seeds,
    stratified_folds,
    stratified_split,
)
from tissuetalk.models.errors import InvalidArgumentError

LABELS = [0] * 700 + [1] * 300


def test_a_split_is_seven_one_two_in_every_class() -> None:
    split = stratified_split(LABELS, seed=3)
    assert [len(side) for side in (split.train, split.validation, split.test)] == [700, 100, 200]
    assert sum(LABELS[i] for i in split.test) == 60
    assert sorted(split.train + split.validation + split.test) == list(range(1000))


def test_the_papers_985_slides_give_its_three_sides() -> None:
    split = stratified_split([0] * 787 + [1] * 198)
    assert [len(side) for side in (split.train, split.validation, split.test)] == [689, 99, 197]


def test_no_patient_is_on_two_sides() -> None:
    groups = [f"p{i // 3}" for i in range(1000)]
    split = stratified_split(LABELS, groups, seed=1)
    sides = [{groups[i] for i in side} for side in (split.train, split.validation, split.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_folds_test_every_slide_once_and_keep_patients_together() -> None:
    groups = [f"p{i // 3}" for i in range(1000)]
    folds = stratified_folds(LABELS, groups)
    assert sorted(i for fold in folds for i in fold) == list(range(1000))
    assert len({(groups[i], number) for number, fold in enumerate(folds) for i in fold}) == len(set(groups))


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="class 1 has 2 patients"):
        stratified_split([0, 0, 0, 1, 1, 1], ["a", "b", "c", "d", "d", "e"])
    with pytest.raises(InvalidArgumentError, match="one group for every slide"):
        stratified_split([0, 1], ["a"])


def test_scores_worked_by_hand() -> None:
    truth = [0, 0, 1, 1]
    chances = np.array([0.1, 0.6, 0.4, 0.9])
    both = np.stack([1 - chances, chances], axis=1)
    assert macro_auc(both, truth) == 0.75
    assert macro_accuracy([0, 1, 0, 1], truth) == 0.5
    assert macro_f1([0, 0, 0, 1], truth) == pytest.approx((0.8 + 2 / 3) / 2)
    assert over_seeds([0.8, 0.9]) == (pytest.approx(0.85), pytest.approx(0.05))


def test_chance_that_ties_counts_half() -> None:
    assert macro_auc([[0.5, 0.5]] * 4, [0, 1, 0, 1]) == 0.5


def test_the_interval_holds_the_score_and_is_wider_for_few_patients() -> None:
    random = np.random.default_rng(0)
    truth = np.array([0, 1] * 60)
    chances = np.clip(0.5 + 0.2 * (truth - 0.5) + random.normal(0, 0.2, 120), 0, 1)
    table = np.stack([1 - chances, chances], axis=1)
    alone = classification_scores(table, truth, resamples=300)
    grouped = classification_scores(table, truth, [f"p{i // 20}" for i in range(120)], resamples=300)
    assert alone.units == 120 and grouped.units == 6
    for scores in (alone, grouped):
        assert scores.macro_auc.low <= scores.macro_auc.value <= scores.macro_auc.high
    assert alone.macro_auc == classification_scores(table, truth, resamples=300).macro_auc
