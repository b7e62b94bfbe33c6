"""How far the size of tiles moves the default model's answer, as it sees further than its margin: ``python -m benchmarks tile_size``.

A dense field of real tissue (0.5 µm/px) is asked for nuclei in tiles of the model's own size and of half that.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure
from tissuetalk.models import registry
from tissuetalk.models.metrics.scores import dice, object_scores
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.session import Session

FIELD = Path(__file__).parents[1] / "tests" / "data" / "images" / "HE_example.ome.tif"
REGION = [240.0, 300.0, 1136.0, 1196.0]


def measure() -> list[Figure]:
    own = registry.load().tile_px
    nuclei, others = (_nuclei(side) for side in (own, own // 2))
    scores = object_scores(others, nuclei)
    counts: dict[str, float] = {
        f"nuclei, tiles of {own} px": scores.n_true,
        f"of {own // 2} px": scores.n_predicted,
    }
    return [
        Figure("nuclei found again in tiles of half the size", scores.recall, "share", None, counts),
        Figure("mean IoU of those", scores.sq, "", None, {}),
        Figure("Dice of all their pixels", dice(others > 0, nuclei > 0), "", None, {}),
    ]


def _nuclei(tile_px: int) -> NDArray[np.int32]:
    """[H, W] object numbers."""
    with (
        tempfile.TemporaryDirectory() as workspace,
        Session(FIELD.parent, workspace, slides=SlideSettings(tile_px=tile_px)) as session,
    ):
        found = session.segment(FIELD.name, "nuclei", region=REGION).masks[0].instances
        assert found is not None, "nuclei are objects"
        return found
