"""Prompt groups, task sentences and glossary cards are complete and obey their own rules."""

from __future__ import annotations

import pytest

from tissuetalk.models.errors import InvalidArgumentError, UnknownLabelError
from tissuetalk.prompts.glossary import card_for, card_for_words, cards, plain_line
from tissuetalk.prompts.prompt_sets import (
    GroupType,
    Quality,
    group_classes,
    group_sentences,
    group_templates,
    quality_of,
    sentences_of_task,
    task_sentences,
)
from tissuetalk.prompts.taxonomy import LABELS, OBJECT_TYPES


@pytest.mark.parametrize("kind", ["T1", "T2"])
@pytest.mark.parametrize("quality", ["low", "medium", "high"])
def test_every_cell_of_the_bank_has_nine_and_three_templates_of_its_level(
    kind: GroupType, quality: Quality
) -> None:
    train, test = group_templates(kind, quality, "train"), group_templates(kind, quality, "test")
    assert (len(train), len(test), len({*train, *test})) == (9, 3, 12)
    for sentence in (*train, *test):
        assert quality_of(sentence.replace("{class}", "inflammatory")) == quality, sentence
        assert ("{class}" in sentence) == (kind == "T2")


def test_a_class_is_filled_in_and_required() -> None:
    assert "segment dead nuclei" in group_sentences("T2", "low", "train", "dead")
    with pytest.raises(InvalidArgumentError, match="name it"):
        group_sentences("T2", "low", "train")
    with pytest.raises(InvalidArgumentError, match="consep"):
        group_classes("unheard of")


def test_nine_tasks_have_fifteen_and_five_sentences_and_none_twice() -> None:
    rows = task_sentences()
    assert len(rows) == len({row.text for row in rows}) == 180
    for task in range(1, 10):
        assert len(sentences_of_task(task, "train", "tuft")) == 15
        assert len(sentences_of_task(task, "test", "tuft")) == 5


def test_only_the_tasks_on_nuclei_alone_do_without_the_unit() -> None:
    for row in task_sentences():
        assert ("<class>" in row.text) == (row.task not in (2, 6)), row.text


def test_every_object_type_has_a_card_and_every_label_finds_it() -> None:
    assert set(cards()) == set(OBJECT_TYPES)
    for label in LABELS:
        card = card_for(label)
        assert card.what_it_is.endswith(".") and card.why_it_matters.endswith(".") and card.confused_with
        assert "\n" not in plain_line(str(label))


def test_cards_can_be_asked_for_in_words() -> None:
    assert card_for_words("TILs").name == "lymphocytes"
    with pytest.raises(UnknownLabelError, match="nearest"):
        card_for_words("brush border")
