"""mm² of tissue in a result: what a slide's run has written down, or counted by the same rule."""

from __future__ import annotations

import json
from pathlib import Path

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.tools.answers.results import SegmentResult
from tissuetalk.tools.segment.tissue import Tissue


def tissue_mm2(folder: Path, result: SegmentResult, source: ImageSource) -> float | None:
    """Of the segmented region; None where the scale is not known."""
    image = result.image
    if image.mpp is None or image.mpp_source not in ("file", "given"):
        return None
    about = folder / "slide" / "slide.json"
    if about.is_file():
        written = json.loads(about.read_text("utf-8"))["tissue_area_mm2"]
        return None if written is None else float(written)
    region = Box.from_sequence(image.region)
    share = float(Tissue.of(source).picture(region).mean())
    return share * region.width * region.height * image.mpp**2 / 1e6
