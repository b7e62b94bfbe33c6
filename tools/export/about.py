"""What every export says about itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from tissuetalk.tools.answers.explained import NOTICE
from tissuetalk.tools.masks.stored import SegmentedRegion


def about(masks: SegmentedRegion) -> dict[str, Any]:
    """Software, image, region, unit and scale as JSON values."""
    image, mpp = masks.result.image, masks.mpp
    return {
        "software": f"tissuetalk {version('tissuetalk')}",
        "result_id": masks.result.result_id,
        "image_id": image.image_id,
        "image_size": [image.width, image.height],
        "region": masks.region.as_list(),
        "unit": "pixel of the full-resolution image, x right, y down",
        "mpp": mpp,
        "mpp_source": image.mpp_source,
        "scale": "unknown: lengths and areas are in pixels" if mpp is None else f"{mpp:g} µm per pixel",
        "notice": NOTICE,
    }
