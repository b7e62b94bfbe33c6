"""How far a mask depends on its wording, asked through the session on a real image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.session import Session

SAMPLES = Path(__file__).parent.parent / "models" / "samples"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(SAMPLES, tmp_path / "workspace")


def test_other_wordings_of_the_same_target_give_nearly_the_same_mask(session: Session) -> None:
    segmented = session.segment("colon.jpg", "segment the glands")
    explained = session.explain(segmented.result.result_id, "how reliable is this mask?")
    (stability,) = explained.result.stability
    assert explained.result.kinds == ["reliability"]
    assert [wording.quality for wording in stability.wordings] == ["low", "medium", "high"]
    assert stability.wording_agreement is not None and stability.wording_agreement > 0.95
    assert explained.picture is not None and stability.statement in explained.text
    session.close()


@pytest.mark.parametrize(("mpp", "doubted"), [(0.25, False), (0.06, True), (1.0, True)])
def test_a_scale_far_from_what_the_picture_looks_like_is_warned_about(
    session: Session, mpp: float, doubted: bool
) -> None:
    asked = SegmentArguments("tnbc.jpg", "segment the nuclei", mpp=mpp)
    said = session.segment_request(session.understand(asked))
    assert (
        any("the picture looks like about" in warning.message for warning in said.result.warnings) == doubted
    )
    session.close()


def test_a_model_that_reads_no_words_says_that_wording_plays_no_part(session: Session) -> None:
    asked = SegmentArguments("tnbc.jpg", "segment the nuclei", mpp=0.25, model="classical-nuclei")
    segmented = session.segment_request(session.understand(asked))
    (stability,) = session.explain(segmented.result.result_id, "can I trust it?").result.stability
    assert stability.reliability is None and "does not read words" in stability.statement
    session.close()
