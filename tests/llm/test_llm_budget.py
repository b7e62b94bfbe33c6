"""Long texts are cut where a reader would cut them, and tokens are counted without the network."""

import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tissuetalk.prompts.llm.passages import passages, token_counter


def cut(text, room):
    return [text[span.start : span.end] for span in passages(text, len, room)]


def test_a_text_that_fits_is_one_passage():
    assert cut("DIAGNOSIS: carcinoma.", 100) == ["DIAGNOSIS: carcinoma."]


def test_sections_are_kept_together_as_far_as_they_fit():
    text = "HISTORY: a b c.\nGROSS: d e f.\nDIAGNOSIS: g h i."
    assert cut(text, 32) == ["HISTORY: a b c.\nGROSS: d e f.\n", "DIAGNOSIS: g h i."]


def test_a_section_too_long_is_cut_between_sentences():
    assert cut("DIAGNOSIS: one two. Three four. Five.", 21) == ["DIAGNOSIS: one two. ", "Three four. Five."]


@given(st.text(alphabet="aB:. \n", max_size=300), st.integers(1, 40))
def test_passages_are_the_text_without_gaps_and_none_is_too_long(text, room):
    parts = cut(text, room)
    assert "".join(parts) == text and all(len(part) <= room for part in parts)


@pytest.mark.parametrize("unit", ["A" * 50 + " ", "\n", "A: ", "x", ". "])
def test_a_long_text_of_anything_is_cut(unit):
    text = unit * (200_000 // len(unit))
    assert "".join(cut(text, 4000)) == text


def count_elsewhere(code, **environment):
    """Counting in a process of its own: the counter is made once per process."""
    variables = {key: value for key, value in os.environ.items() if key != "TIKTOKEN_CACHE_DIR"} | environment
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        f"from tissuetalk.prompts.llm.passages import token_counter; {code}",
    ]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()


def test_without_ranks_the_estimate_is_conservative_and_says_so(tmp_path):
    code = (
        "import importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'litellm' else find(name, *a);"
        "c = token_counter(); print(c.count('necrosis ' * 100), c.note)"
    )
    said = count_elsewhere(code, TIKTOKEN_CACHE_DIR=str(tmp_path))
    assert said.startswith("450 ") and "estimated" in said


needs_ranks = pytest.mark.skipif(
    bool(token_counter().note), reason="needs tiktoken ranks: pip install 'tissuetalk[llm-tokens]'"
)


@needs_ranks
def test_with_ranks_on_this_machine_tokens_are_counted_offline():
    code = (
        "import socket; socket.socket.connect = None; c = token_counter(); import sys, os;"
        "print(c.count('necrosis ' * 100), c.note, 'litellm' in sys.modules, 'TIKTOKEN_CACHE_DIR' in os.environ)"
    )
    counted, *rest = count_elsewhere(code).split()
    assert 100 < int(counted) < 450 and rest == ["False", "False"]


@needs_ranks
@pytest.mark.parametrize("text", ["x" * 1_000_000, "<|endoftext|>" * 1000, "\ud800 broken", "\x00" * 1000])
def test_anything_can_be_counted(text):
    assert token_counter().count(text) > 0


def test_counting_opens_no_connection(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", None)
    token_counter.cache_clear()
    assert token_counter().count("necrosis") >= 1
