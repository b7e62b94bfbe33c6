"""Explanations of a result that lies on disk as a slide's, and of the same part segmented as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn import save

from tissuetalk.models.images import Box, open_image
from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.session import Session

SLIDE = Path(__file__).parent / "data" / "images" / "CMU-1-Small-Region.svs"
QUESTIONS = ("what are the nuclei?", "what if the nuclei were not there?", "how sure are you?")


def explained(root: Path, workspace: Path, slides: SlideSettings | None = None) -> list[ExplainResult]:
    """The answers to every question; each has a picture."""
    with Session(root, workspace, slides=slides) as session:
        found = session.segment("part.png", "all nuclei", mpp=0.499, model="classical-nuclei")
        answers = [session.explain(found.result.result_id, question) for question in QUESTIONS]
        assert all(answer.picture is not None for answer in answers)
        return [answer.result for answer in answers]


def test_a_slide_is_explained_as_a_picture_is(tmp_path: Path) -> None:
    with open_image(SLIDE, name="slide.svs") as source:
        save(
            tmp_path / "root" / "part.png",
            source.read_region(Box(900, 900, 1300, 1200), width=400, height=300),
        )
    as_picture = explained(tmp_path / "root", tmp_path / "picture")
    small = SlideSettings(whole_px=0, tile_px=256, window_px=256)
    as_slide = explained(tmp_path / "root", tmp_path / "slide", small)
    assert list((tmp_path / "slide").rglob("slide.json")), "it was segmented in windows"

    (meaning,) = as_slide[0].meanings
    assert meaning.example_box is not None
    for one, other in zip(as_picture[1].counterfactuals, as_slide[1].counterfactuals, strict=True):
        assert one.region == other.region
        assert one.changed_fraction == pytest.approx(other.changed_fraction, rel=0.1)
    (one,), (other,) = as_picture[2].stability, as_slide[2].stability
    assert one.checked_region == other.checked_region
    assert one.agreement == pytest.approx(other.agreement, abs=0.02)
