"""What a model offers that is told where to look instead of what to look for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from tissuetalk.models.characteristics import Mask
from tissuetalk.models.interface import RGB, ModelCard

BoxXYXY = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the image, half-open."""
PointXY = tuple[float, float]


class PromptableSegmenter(Protocol):
    """A loaded box- or point-prompted model. Like every model here it keeps nothing about any image."""

    card: ModelCard
    weights_sha256: str
    side_px: int
    """Images are brought to this side before encoding: small objects need crops of about this size."""

    def encode(self, image: RGB) -> Any:
        """Features of one image, shared by all its prompts."""
        ...

    def from_boxes(self, features: Any, boxes_xyxy: Sequence[BoxXYXY]) -> Iterator[Mask]:
        """One full-size [H, W] mask per box, in order, a few at a time. No box influences another's mask."""
        ...

    def from_points(self, features: Any, points_xy: Sequence[PointXY]) -> Iterator[Mask]:
        """One full-size mask per point, each of the object under it.

        Raises InvalidArgumentError where the model was made for boxes only.
        """
        ...

    def segment_boxes(self, image: RGB, boxes_xyxy: Sequence[BoxXYXY]) -> Iterator[Mask]:
        """Encode and prompt in one call."""
        ...
