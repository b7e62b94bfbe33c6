"""What is looked at, as one record."""

from __future__ import annotations

from dataclasses import dataclass

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.tools.segment.scale import Scale
from tissuetalk.tools.storage.features import FeatureCache


@dataclass(frozen=True)
class FieldOfView:
    """A region of an open image through one model. It is open only as long as its source is.

    region: full-resolution pixels. scale: of the source. features: of tiles seen before, or None to keep none.
    """

    source: ImageSource
    model: Segmenter
    region: Box
    scale: Scale
    features: FeatureCache | None = None
