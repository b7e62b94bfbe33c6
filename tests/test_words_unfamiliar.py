"""Findings of which something is said that nobody listed: open rather than present."""

from __future__ import annotations

import pytest

from benchmarks.sentence_words import everyday_words, unfamiliar_words
from tissuetalk.prompts.lexicon import lexicon
from tissuetalk.prompts.readers import rule_reader
from tissuetalk.prompts.reading import unfamiliar


def assertion(statement: str, finding: str) -> str:
    lines = rule_reader().translate(f"Colon, biopsy. {statement}").read_as
    return next(line.assertion for line in lines if finding in line.finding.lower())


@pytest.mark.parametrize(
    "statement",
    [
        "Lymphoma has been sent packing.",
        "Lymphoma, as queried clinically, is a bedtime story.",
        "Lymphoma is off the field.",
        "Lymphoma and necrosis were swept away.",
        "Lymphoma (see flow) was a myth.",
        "The rumour of lymphoma again.",
        "Lymphoma: rubbish.",
    ],
)
def test_an_everyday_word_that_reports_do_not_use_leaves_a_finding_open(statement: str) -> None:
    assert assertion(statement, "lymphoma") == "uncertain"


@pytest.mark.parametrize(
    "statement",
    [
        "Necrosis is extensive and confluent.",
        "Necrosis extends through the muscularis propria into pericolic fat.",
        "Necrosis is transmural, haemorrhagic and rimmed by neutrophils.",
        "Necrosis was found in blocks A3 and A7.",
        "Necrosis, as described above, is present.",
    ],
)
def test_words_of_the_trade_say_nothing_against_a_finding(statement: str) -> None:
    assert assertion(statement, "necrosis") == "present"


def test_the_list_is_made_of_everyday_words_less_those_of_reports() -> None:
    listed = unfamiliar.unfamiliar_words()
    assert listed <= set(everyday_words())
    assert not listed & lexicon().words
    assert set(unfamiliar_words(["Sections show a whisper of smoke."])) - listed <= set(everyday_words())
    assert "whisper" in listed
    assert "whisper" not in unfamiliar_words(["Sections show a whisper of smoke."])
