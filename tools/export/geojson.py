"""GeoJSON as QuPath reads it: one feature per object, or per connected part of a region."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from tissuetalk.models.masks import outlines
from tissuetalk.tools.export.content import Content


def write(content: Content, out: Path) -> None:
    """Plain, or packed when the name ends in ``.gz``. What holds for all of it stands beside the features."""
    features = [
        feature
        for layer in content.layers
        for feature in outlines.features(
            layer.mask,
            layer.instances,
            origin_xy=(content.region.x0, content.region.y0),
            name=layer.name,
            colour=layer.record.colour,
            mask_id=layer.record.mask_id,
        )
    ]
    collection = {"type": "FeatureCollection", "tissuetalk": content.about(), "features": features}
    packed = json.dumps(collection).encode()
    out.write_bytes(gzip.compress(packed, mtime=0) if out.suffix == ".gz" else packed)
