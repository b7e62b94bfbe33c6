"""How far a mask depends on its wording, asked through the desk on a real image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tissuetalk.tools.desk import Desk
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.workbench import Workbench

SAMPLES = Path(__file__).parent.parent / "models" / "samples"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(Workbench.at((SAMPLES,), tmp_path / "workspace"))


def test_other_wordings_of_the_same_target_give_nearly_the_same_mask(desk: Desk) -> None:
    segmented = desk.segment(desk.understand(SegmentArguments("colon.jpg", "segment the glands")))
    explained = desk.explain(segmented.result.result_id, "how reliable is this mask?")
    (stability,) = explained.result.stability
    assert explained.result.kinds == ["reliability"]
    assert [wording.quality for wording in stability.wordings] == ["low", "medium", "high"]
    assert stability.wording_agreement is not None and stability.wording_agreement > 0.95
    assert explained.picture is not None and stability.statement in explained.text
    desk.close()


def test_a_model_that_reads_no_words_says_that_wording_plays_no_part(desk: Desk) -> None:
    asked = SegmentArguments("tnbc.jpg", "segment the nuclei", mpp=0.25, model="classical-nuclei")
    segmented = desk.segment(desk.understand(asked))
    (stability,) = desk.explain(segmented.result.result_id, "can I trust it?").result.stability
    assert stability.reliability is None and "does not read words" in stability.statement
    desk.close()
