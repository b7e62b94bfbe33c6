"""What a question about reliability costs, in units of the segment it is about.

The image is 1024 x 1024 px of real tissue at the scale of nuclei, so that everything is looked at at full size.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figure import Figure
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.session import Session

SAMPLE = Path(__file__).parent.parent / "models" / "samples" / "tnbc.jpg"
REPEATS = 5
TARGET_RATIO = 1.5


def measure() -> list[Figure]:
    """One segment and one explain of its stability each time, in a workspace that knows nothing yet."""
    with tempfile.TemporaryDirectory(prefix="tissuetalk-benchmark-") as scratch:
        root = Path(scratch) / "images"
        root.mkdir()
        with Image.open(SAMPLE) as sample:
            tile = np.asarray(sample.convert("RGB"))
        mosaic = np.concatenate(
            [np.concatenate([tile, tile[:, ::-1]], 1), np.concatenate([tile[::-1], tile], 1)]
        )
        Image.fromarray(mosaic).save(root / "tissue.png")
        runs = [_run(root, Path(scratch) / f"workspace-{number}") for number in range(REPEATS + 1)][1:]
    segment_s, explain_s, overview_s = (statistics.median(column) for column in zip(*runs, strict=True))
    parts = {"segment": segment_s, "explain stability": explain_s, "explain overview": overview_s}
    ratio = statistics.median(explain / segment for segment, explain, _ in runs)
    return [Figure("explain stability / segment, 1024 px", ratio, "times", TARGET_RATIO, parts)]


def _run(root: Path, workspace: Path) -> tuple[float, float, float]:
    with closing(Session(root, workspace)) as session:
        started = time.perf_counter()
        result = session.segment(
            session.understand(SegmentArguments("tissue.png", "segment the nuclei", mpp=0.25))
        ).result
        segmented = time.perf_counter()
        session.explain(result.result_id, "how reliable is this mask?")
        explained = time.perf_counter()
        session.explain(result.result_id)
        return segmented - started, explained - segmented, time.perf_counter() - explained
