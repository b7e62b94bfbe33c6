"""What is looked at: a region of an open image, its scale, and the model that looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.tools.answers.results import ImageInfo, MppSource
from tissuetalk.tools.storage.features import FeatureCache

FINEST_MPP, COARSEST_MPP = 0.02, 50.0


@dataclass(frozen=True)
class Scale:
    """µm per full-resolution pixel and where the figure comes from."""

    mpp: float
    source: MppSource

    @property
    def known(self) -> bool:
        return self.source in ("file", "given")


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


def scale_of(source: ImageSource, given: float | None, model: Segmenter) -> Scale:
    """Given by the caller, else from the file, else assumed by the model."""
    if given is not None:
        if not (math.isfinite(given) and FINEST_MPP <= given <= COARSEST_MPP):
            raise InvalidArgumentError(
                f"mpp is {given}; pass µm per pixel between {FINEST_MPP} and {COARSEST_MPP:g}."
            )
        return Scale(given, "given")
    if source.mpp is not None:
        return Scale(source.mpp, "file")
    overview = source.overview()
    return Scale(model.assume_mpp(overview, source.width / overview.shape[1]), "assumed")


def region_of(source: ImageSource, region: Sequence[float] | None) -> Box:
    """The part of the image to work on; all of it by default. Raises InvalidArgumentError."""
    whole = Box(0, 0, source.width, source.height)
    if region is None:
        return whole
    asked = Box.from_sequence(region)
    clipped = asked.clipped_to(source.width, source.height)
    if clipped.width <= 0 or clipped.height <= 0:
        raise InvalidArgumentError(
            f"region {asked.as_list()} is outside the image of {source.width} x {source.height} px."
        )
    return clipped


def image_info(source: ImageSource, region: Box, scale: Scale | None) -> ImageInfo:
    mpp, origin = (
        (source.mpp, "file" if source.mpp else "unknown") if scale is None else (scale.mpp, scale.source)
    )
    return ImageInfo.model_validate(
        {
            "image_id": source.image_id,
            "width": source.width,
            "height": source.height,
            "mpp": mpp,
            "mpp_source": origin,
            "region": region.as_list(),
        }
    )
