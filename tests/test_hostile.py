"""A cross-section of the hostile corpus against real servers; ``make hostile`` runs all of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hostile import fuzz
from hostile.case import Case
from hostile.families import MOST_DAMAGED, MOST_IN_A_FAMILY, all_cases, cross_section
from hostile.runner import run


def test_the_corpus_is_large_and_no_family_makes_up_for_the_others() -> None:
    sizes = Counter(case.family for case in all_cases())
    assert sizes.total() >= 450 and max(sizes.values()) <= MOST_IN_A_FAMILY
    assert sizes["Random damage"] <= MOST_DAMAGED


@pytest.mark.timeout(600)
@pytest.mark.parametrize("over", ["stdio", "http"])
def test_hostile_files_and_calls_end_as_they_should(over: str) -> None:
    """Codes, budgets of memory and time, the server alive, nothing written outside, nothing told."""
    cases: list[Case] = [case for case in cross_section() if (case.family == "HTTP") == (over == "http")]
    outcomes = run(cases, together=True)
    assert len(outcomes) == len(cases) > 5
    assert not {f"{one.case.family}: {one.case.name}": one.problems for one in outcomes if one.problems}


KEPT = sorted(path for path in fuzz.SEEDS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_broke_a_reader_no_longer_does(path: Path) -> None:
    """Inputs that ``make fuzz`` found."""
    fuzz.TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", sorted(set(fuzz.TARGETS) - {"calls"}))
def test_what_fuzzing_begins_with_is_read(target: str) -> None:
    """A target that refuses everything at once would find nothing."""
    for content in fuzz.beginnings()[target]:
        fuzz.TARGETS[target](content)
