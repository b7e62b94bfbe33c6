"""How figures are counted as found: once each, within reach, large and certain enough."""

from __future__ import annotations

import numpy as np

from benchmarks.mitosis import found_in, matches


def test_a_figure_is_found_once_and_only_nearby() -> None:
    true = np.array([[10.0, 10.0], [10.0, 50.0]])
    assert matches(np.array([[12.0, 12.0], [11.0, 9.0]]), true, 0.25) == 1
    assert matches(np.array([[10.0, 30.0], [11.0, 52.0]]), true, 0.25) == 2
    assert matches(np.array([[10.0, 30.0]]), true, 0.5) == 0
    assert matches(np.zeros((0, 2)), true, 0.25) == 0


def test_small_and_unsure_spots_are_no_figures() -> None:
    logits = np.full((100, 100), -4.0, np.float32)
    logits[10:30, 10:30], logits[60:80, 60:80], logits[90:93, 10:13] = 5, 1, 5
    assert len(found_in(logits, 0.25, 8, 0)) == 2
    assert found_in(logits, 0.25, 8, 3).tolist() == [[19.5, 19.5]]
    assert found_in(np.full((9, 9), -1.0, np.float32), 0.25, 8, 0).shape == (0, 2)
