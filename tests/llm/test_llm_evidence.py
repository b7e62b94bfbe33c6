"""Quotes are found whatever their case and spacing, and only whole and only where they really stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tissuetalk.prompts.llm.check import Quotable

TEXT = "Tumour-cells   show\n\tNECROSIS; no “lympho-vascular” invasion \u2013 Straße. Nonecrosis here. Necrosis again."


def found(quote, text=TEXT):
    span = Quotable(text).find(quote)
    return None if span is None else text[span.start : span.end]


@pytest.mark.parametrize(
    ("quote", "verbatim"),
    [
        ("show necrosis", "show\n\tNECROSIS"),
        ("  TUMOUR-CELLS show ", "Tumour-cells   show"),
        ('"lympho-vascular" invasion', "lympho-vascular” invasion"),
        ("invasion - STRASSE.", "invasion \u2013 Straße"),
        ("'Necrosis again…'", "Necrosis again"),
    ],
)
def test_the_verbatim_span_of_a_quote_is_found(quote, verbatim):
    assert found(quote) == verbatim


@pytest.mark.parametrize(
    "quote", ["ecrosis", "necro", "lymphovascular invasion", "necrosis show", "", "no", "...", "\u2013"]
)
def test_what_is_not_there_as_whole_words_is_not_found(quote):
    assert found(quote) is None


def test_a_quote_is_not_found_inside_a_longer_word():
    assert Quotable("nonecrosis, necrosis").find("necrosis").start == len("nonecrosis, ")


@given(st.text(max_size=200), st.integers(0, 200), st.integers(0, 60))
def test_a_span_that_is_found_reads_as_the_quote_did(text, start, length):
    quote = text[start : start + length]
    span = Quotable(text).find(quote)
    if span is not None:
        assert Quotable(text[span.start : span.end]).find(quote) is not None


@given(st.text(alphabet="ab \n", min_size=3, max_size=60), st.text(alphabet=" \n", min_size=1, max_size=3))
def test_a_whole_text_is_found_in_itself_however_it_is_spaced(text, gap):
    words = text.split()
    if sum(map(len, words)) >= 3:
        assert found(gap.join(words).upper(), text) == text.strip()


def test_a_megabyte_is_searched_without_backtracking():
    assert Quotable("necrosi " * 130_000 + "necrosis").find("necrosi necrosis") is not None
