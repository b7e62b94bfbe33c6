"""Identifiers are hidden from the language model and never come back as evidence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tissuetalk.models.errors import NoTargetInWordsError
from tissuetalk.prompts.llm import LanguageModelReader, ScriptedModel
from tissuetalk.prompts.llm.wording import masked

TEXT = "Patient: Jane Roe\nMRN: 445566 seen 03/14/2021 by Dr. Ann Example. Prostate: necrosis."


@pytest.mark.parametrize(
    "identifier",
    ["Jane Roe", "445566", "03/14/2021", "Ann Example", "S21-123456", "March 3, 2021", "a.b@c.example"],
)
def test_what_looks_like_an_identifier_is_not_sent(identifier):
    text = f"{TEXT} Accession S21-123456 of March 3, 2021, mail a.b@c.example."
    model = ScriptedModel([{"kind": "report", "organ": "prostate", "targets": [named("necrosis")]}])
    LanguageModelReader(model).translate(text)
    assert identifier in text and not any(identifier in turn.text for turn in model.asked[0])


@pytest.mark.parametrize(
    "text",
    [
        "Gleason score 3 + 4 = 7, 12 of 14 cores, 0.8 cm, pT3a pN0, Ki-67 15%.",
        "Count mitoses per 2 mm2 in the box 100, 200, 1100, 1200.",
        "May be carcinoma in situ; margins 1-2 mm; Case discussed. Specimen is a colon biopsy.",
    ],
)
def test_findings_and_numbers_of_a_report_are_left_alone(text):
    assert masked(text) == text


def test_a_name_that_one_place_gives_away_is_hidden_everywhere():
    shown = masked(
        "Patient: Jane Quenneville. Quenneville's keloid, seen by J. Quenneville; Keloid, Brown tissue."
    )
    assert "Quenneville" not in shown and "Jane" not in shown
    assert shown.count("keloid") + shown.count("Keloid") == 2 and "Brown" in shown


def named(evidence, words=None):
    return {"evidence": evidence, "words": words or evidence, "label": None, "assertion": "present"}


def translated(*targets):
    model = ScriptedModel([{"kind": "report", "organ": "prostate", "targets": list(targets)}])
    return LanguageModelReader(model).translate(TEXT)


def test_a_quote_that_would_repeat_an_identifier_is_cut_to_the_objects_words():
    shown = masked(TEXT)
    request = translated(named(shown[shown.index("by Dr") :], "necrosis"))
    assert request.targets[0].evidence == "necrosis"


def test_an_identifier_the_model_guessed_is_not_a_quote():
    with pytest.raises(NoTargetInWordsError):
        translated(named("Jane Roe"))


@given(st.text(max_size=300))
def test_offsets_never_move(text):
    assert len(masked(text)) == len(text)


@pytest.mark.parametrize("unit", ["Dr. Ann ", "1-", "a@", "may 1, ", "Patient: ", "A1234", "x"])
def test_a_long_text_of_anything_is_masked(unit):
    text = unit * (200_000 // len(unit))
    assert len(masked(text)) == len(text)
