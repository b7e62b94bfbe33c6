"""What a model offers that is told where to look instead of what to look for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeGuard

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.segmenter import RGB, Context, Segmenter

BoxXYXY = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the image, half-open."""
PointXY = tuple[float, float]


class PromptableSegmenter(Segmenter, Protocol):
    """A loaded box- or point-prompted model. Like every model here it keeps nothing about any image.

    It is a ``Segmenter`` in name, scale and refusals: any words are accepted as the name of what is in the box, and
    ``decode`` without a place raises InvalidArgumentError.
    """

    side_px: int
    """Images are brought to this side before encoding: small objects need crops of about this size."""
    takes_points: bool

    def encode(self, tile: RGB, context: Context | None = None) -> Any:
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

    def needs_places(self) -> InvalidArgumentError:
        """What to tell a caller who gave no place, or one of a kind the model was not made for."""
        ...

    def segment_boxes(self, image: RGB, boxes_xyxy: Sequence[BoxXYXY]) -> Iterator[Mask]:
        """Encode and prompt in one call."""
        ...


def is_pointed(model: Segmenter) -> TypeGuard[PromptableSegmenter]:
    """Whether the model must be told where to look."""
    return model.card.prompts == "boxes and points"
