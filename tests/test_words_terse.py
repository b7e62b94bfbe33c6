"""Terse reports: signs, noughts, values and idioms that deny, and those that only seem to."""

from __future__ import annotations

import pytest

from tissuetalk.prompts.readers import rule_reader


def readings(statement: str) -> list[str]:
    return [line.assertion for line in rule_reader().translate(f"Skin, biopsy. {statement}").read_as]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("Granulomas -ve.", ["absent"]),
        ("Granulomas +ve.", ["present"]),
        ("(-) dysplasia (+) ulcer", ["absent", "present"]),
        ("Dysplasia (0), ulcer (1+)", ["absent", "present"]),
        ("Dysplasia 0/6, ulcer 2/6", ["absent", "present"]),
        ("0 granulomas.", ["absent"]),
        ("Amyloid: Congo red negative.", ["absent"]),
        ("Dysplasia: to be honest, none.", ["absent"]),
        ("Dysplasia...no. Granulomas...no. Ulcer...yes.", ["absent", "absent", "present"]),
        ("Necrosis probable? No, definite.", ["present"]),
        ("Granulomas and ulceration all missing.", ["absent", "absent"]),
        ("Lymphoma - refuted.", ["absent"]),
        ("Nary a granuloma.", ["absent"]),
        ("Dysplasia not id'd.", ["absent"]),
        ("Perineural invasion excluded, vascular invasion likewise.", ["absent", "absent"]),
        ("Atypia, necrosis and increased mitoses are not features of this case.", ["absent"] * 3),
        ("Necrosis seen previously is no longer present.", ["absent"]),
        ("Dysplasia we could not find.", ["absent"]),
        ("Liposarcoma.", ["present"]),
        ("DCIS gone. LVI gone.", ["absent", "absent"]),
        ("Perineural invasion is found; necrosis not.", ["present", "absent"]),
        ("High grade dysplasia: focal? None on levels.", ["uncertain"]),
    ],
)
def test_signs_noughts_and_values(statement: str, expected: list[str]) -> None:
    assert readings(statement) == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("Dysplasia was searched for without result.", "absent"),
        ("A search for dysplasia turned up nothing.", "absent"),
        ("A search for dysplasia was made.", "uncertain"),
        ("Dysplasia has not set in.", "absent"),
        ("Dysplasia has been reasonably excluded.", "absent"),
        ("Dysplasia is off the table.", "absent"),
        ("If dysplasia is present, it is focal.", "uncertain"),
        ("Were there dysplasia, we would say so.", "uncertain"),
        ("Lymphoma is not in question.", "uncertain"),
        ("Lymphoma v reactive.", "uncertain"),
        ("Carcinoma not found, please correlate with imaging.", "absent"),
        ("Sampling failed to disclose any carcinoma.", "absent"),
        ("Crypt distortion and plasma cells.", "present"),
        ("Granulomas are hard to miss.", "present"),
        ("You cannot miss the granulomas.", "present"),
        ("Granulomas are easy to find.", "present"),
        ("Necrosis takes up most of the core.", "present"),
    ],
)
def test_idioms(statement: str, expected: str) -> None:
    assert readings(statement)[0] == expected


def test_the_letter_of_a_stain_ends_a_sentence() -> None:
    text = "Fungal hyphae not identified on PAS-D. Basal hyperplasia moderate."
    assert readings(text) == ["absent", "present"]


def test_what_is_set_apart_in_a_question_is_not_shown() -> None:
    targets = rule_reader().translate("except for muscle, what is there?").targets
    assert [target.assertion for target in targets if target.words == "muscle"] == ["absent"]
