"""What is looked at: a region of an open image, its scale, and the model that looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB, Context, Segmenter
from tissuetalk.tools.answers.results import ImageInfo, MppSource
from tissuetalk.tools.masks.rasters import Tissue, sample
from tissuetalk.tools.storage.features import FeatureCache

FINEST_MPP, COARSEST_MPP = 0.02, 50.0
SMALL_PX = 1024
"""Longest side up to which models judge an image from all of it; of a larger one a shrunk view would lose what they know."""


@dataclass(frozen=True)
class Scale:
    """µm per full-resolution pixel and where the figure comes from."""

    mpp: float
    source: MppSource

    @property
    def known(self) -> bool:
        return self.source in ("file", "given")

    @property
    def known_mpp(self) -> float | None:
        """µm per full-resolution pixel; None when it was only assumed."""
        return self.mpp if self.known else None


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

    @cached_property
    def tissue(self) -> Tissue:
        """Of the whole image, by the one rule."""
        return Tissue.of(self.source)

    def changed(self, **changes: Any) -> FieldOfView:
        """The same image looked at in another way; what is known of its tissue stays known."""
        other = replace(self, **changes)
        other.__dict__["tissue"] = self.tissue
        return other

    def context(self, step: float) -> Context:
        """The model's statistics of the whole image, for work at ``step`` full-resolution pixels per pixel.

        Decided by the image alone: any region of it, in memory or on disk, gets the same.
        """
        return self.model.prepare(_view(self.source, self.tissue, step))


def _view(source: ImageSource, tissue: Tissue, step: float) -> RGB:
    """All of a small image; a sample of the tissue of a large one."""
    return source.overview() if _is_small(source) else sample(source, tissue, step)


def _is_small(source: ImageSource) -> bool:
    return max(source.width, source.height) <= SMALL_PX


def scale_of(source: ImageSource, given: float | None, model: Segmenter | None) -> Scale:
    """Given by the caller, else from the file, else assumed by the model; unknown where nobody is asked for an assumption."""
    if given is not None:
        if not (math.isfinite(given) and FINEST_MPP <= given <= COARSEST_MPP):
            raise InvalidArgumentError(
                f"mpp is {given}; pass µm per pixel between {FINEST_MPP} and {COARSEST_MPP:g}."
            )
        return Scale(given, "given")
    if source.mpp is not None:
        return Scale(source.mpp, "file")
    if model is None:
        return Scale(math.nan, "unknown")
    if _is_small(source):
        return Scale(model.assume_mpp(source.overview()), "assumed")
    return Scale(model.assume_mpp(sample(source, Tissue.of(source), 1.0)), "assumed")


def region_of(source: ImageSource, region: Sequence[float] | None) -> Box:
    """The part of the image to work on; all of it by default. Raises InvalidArgumentError."""
    if region is None:
        return source.box
    asked = Box.from_sequence(region)
    found = asked.intersection(source.box)
    if found is None:
        raise InvalidArgumentError(
            f"region {asked.as_list()} is outside the image of {source.width} x {source.height} px."
        )
    return found


def image_info(source: ImageSource, region: Box, scale: Scale | None) -> ImageInfo:
    if scale is None:
        scale = scale_of(source, None, None)
    return ImageInfo.model_validate(
        {
            "image_id": source.image_id,
            "width": source.width,
            "height": source.height,
            "mpp": None if scale.source == "unknown" else scale.mpp,
            "mpp_source": scale.source,
            "region": region.as_list(),
        }
    )
