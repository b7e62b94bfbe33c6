"""The objects a diagnosis is explained with fall out of published scores by one rule."""

from __future__ import annotations

import pytest

from tissuetalk.models.classifiers.objects import (
    MINIMUM_DICE,
    data_objects,
    importance_objects,
    listed_objects,
    scored_objects,
    with_other,
)
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.taxonomy import Label, published_masks

PAPER_21 = [
    "breast-nuclei-epithelial",
    "breast-tissue-tumor",
    "breast-cell-glial",
    "breast-tissue-dcis",
    "breast-nuclei-neoplastic",
    "breast-tissue-necrosis or debris",
    "breast-cell-cancerous",
    "breast-tissue-lymphocytic infiltrate",
    "breast-nuclei-connective",
    "breast-cell-mitosis",
    "breast-tissue-stroma",
    "breast-tissue-fat",
    "breast-nuclei-lymphocyte",
    "breast-nuclei-inflammatory",
    "breast-tissue-plasma cells",
    "breast-nuclei-neutrophil",
    "breast-nuclei-fibroblast",
    "breast-tissue-blood vessel",
    "breast-nuclei-mitotic figure",
    "breast-nuclei-ductal epithelium",
    "breast-nuclei-plasma cells",
]
"""Supplementary Table 20 of arXiv 2506.20988, in its order."""
PAPER_12 = set(PAPER_21) - {
    "breast-cell-glial",
    "breast-nuclei-connective",
    "breast-tissue-fat",
    "breast-nuclei-lymphocyte",
    "breast-nuclei-inflammatory",
    "breast-tissue-plasma cells",
    "breast-nuclei-neutrophil",
    "breast-tissue-blood vessel",
    "breast-nuclei-plasma cells",
}


def test_a_dice_of_four_tenths_keeps_the_21_breast_objects_of_the_paper_in_its_order() -> None:
    assert [kept.label for kept in data_objects("breast")] == PAPER_21


def test_the_next_breast_object_is_below_the_rule() -> None:
    left_out = [row for row in scored_objects() if row.organ == "breast" and row.label not in PAPER_21]
    assert len(left_out) == 18
    assert max(row.dice for row in left_out) < MINIMUM_DICE


def test_the_12_objects_of_idc_or_ilc_are_those_of_the_paper_and_all_pass_the_rule() -> None:
    chosen = [row.label for row in importance_objects("breast-idc-ilc")]
    assert len(chosen) == 12
    assert set(chosen) == PAPER_12


def test_the_map_has_the_21_and_other_last() -> None:
    assert list(with_other(listed_objects("breast"))) == [*PAPER_21, "other"]


def test_a_list_is_named_by_its_question_or_its_organ() -> None:
    assert set(listed_objects("breast-idc-ilc")) == PAPER_12
    with pytest.raises(InvalidArgumentError, match="no object of 'elbow'"):
        listed_objects("elbow")


def test_other_is_never_listed_twice() -> None:
    assert with_other(["gland", "other", "gland"]) == ("gland", "other")


def test_every_scored_label_is_in_the_taxonomy_with_as_many_masks() -> None:
    assert len(scored_objects()) == 142
    for row in scored_objects():
        assert published_masks(Label.parse(row.label)) == row.published_masks


def test_a_dice_that_rests_on_few_masks_says_so() -> None:
    few = {row.label for row in data_objects("breast") if row.rests_on_few}
    assert few == {"breast-cell-glial", "breast-nuclei-neutrophil", "breast-tissue-dcis"}
    glial = next(row for row in data_objects("breast") if row.label == "breast-cell-glial")
    assert str(glial) == "breast-cell-glial (Dice 0.772, 6 masks, very few)"


def test_another_organ_gets_its_list_by_the_same_rule() -> None:
    colon = data_objects("colon")
    assert colon[0].label == "colon-tissue-gland"
    assert all(row.organ == "colon" and row.dice >= MINIMUM_DICE for row in colon)


def test_an_organ_without_any_is_refused_with_those_that_have_some() -> None:
    with pytest.raises(InvalidArgumentError, match=r"no object of 'brain'.*breast"):
        data_objects("brain")


def test_a_question_without_a_list_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match="breast-idc-ilc"):
        importance_objects("prostate-gleason")
