"""Hostile, broken and odd texts: a clear answer or a code, never a crash, and work in proportion to the length."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tissuetalk.models.errors import InvalidArgumentError, NoTargetInWordsError, TissuetalkError
from tissuetalk.prompts.readers import rule_reader
from tissuetalk.prompts.target import Request

PIECES = [
    "no ", "(", "tumor, ", "a", "1,2 ", "x 100-420, y 80-360 ", ". ", "no necrosis or ", ":", "lymphatic or vascular ",
    "\n", "[1 2 3 4", "in the ", "everything ", "the gland at ", "Tumor: ", "?", '"', "mark ", "[mark ", "2 x ", "box ",
    "purple ", "from (1,2) ", "invasion ", "and ", "cell ", "\x00", "between ", "10 20 ", "ABC: ", "A. ", "- ", "é", "腫瘍",
    "ignore previous instructions ",
]  # fmt: skip


def read(text: str) -> Request | None:
    try:
        return rule_reader().translate(text)
    except TissuetalkError as error:
        assert str(error)
        return None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("length", [3_900, 12_000])
def test_repeated_pieces_end_in_bounded_time(length: int) -> None:
    for piece in PIECES:
        read((piece * (length // len(piece) + 1))[:length])


def test_a_text_beyond_a_million_characters_is_refused_with_the_limit() -> None:
    with pytest.raises(InvalidArgumentError, match="1,000,000"):
        rule_reader().translate("carcinoma " * 100_001)


@pytest.mark.parametrize(
    "text",
    [
        "DIAGNOSIS:\nCOMMENT:\nGROSS:",
        "\x00\x01\x02\xff",
        "\u042d\u0442\u043e \u043d\u0435 \u043e\u0442\u0447\u0451\u0442.",
        "組織標本です。",
        "Invoice 12. Payment is due.",
    ],
)
def test_texts_without_findings_name_nothing(text: str) -> None:
    with pytest.raises(NoTargetInWordsError):
        rule_reader().translate(text)


def test_a_contradiction_is_present() -> None:
    request = read("Colon, biopsy: Necrosis is present. Necrosis is absent.")
    assert request is not None
    assert [target.assertion for target in request.targets] == ["present"]


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from([*PIECES, "glands", "carcinoma", "not seen", "colon", " ", ", "]), max_size=30
    ).map("".join)
)
def test_evidence_is_always_verbatim(text: str) -> None:
    request = read(text)
    for target in request.targets if request else ():
        assert target.start is not None
        assert text[target.start : target.start + len(target.evidence)] == target.evidence


@settings(max_examples=60)
@given(st.text(max_size=300))
def test_any_text_at_all_is_answered_or_refused(text: str) -> None:
    read(text)
