"""What is looked at: a region of an open image at a scale, through one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB, Capability, Context, Segmenter
from tissuetalk.tools.answers.arguments import COARSEST_MPP, FINEST_MPP
from tissuetalk.tools.answers.results import ImageInfo, MppSource, Warned, is_known
from tissuetalk.tools.masks.rasters import Tissue, sample
from tissuetalk.tools.storage.features import FeatureCache

if TYPE_CHECKING:
    from tissuetalk.tools.segment.teaching import RunLessons

SMALL_PX = 1024
"""Longest side up to which models judge an image from all of it; of a larger one a shrunk view would lose what they know."""

DOUBTFUL_SCALE = 2.5
"""Of 109 pictures of known scale none is taken for another by this much; at a quarter of their scale 98 in 100 are."""


@dataclass(frozen=True)
class Scale:
    """µm per full-resolution pixel and where the figure comes from."""

    mpp: float
    source: MppSource

    @property
    def known(self) -> bool:
        return is_known(self.source)

    @property
    def known_mpp(self) -> float | None:
        """µm per full-resolution pixel; None when it was only assumed."""
        return self.mpp if self.known else None


@dataclass(frozen=True)
class FieldOfView:
    """A region of an open image through one model. It is open only as long as its source is.

    region: full-resolution pixels. scale: of the source. features: of tiles seen before, or None to keep none.
    asked: the region as the caller gave it, which may reach beyond the image. lessons: what examples and names that were
    taught add; None where there are none.
    """

    source: ImageSource
    model: Segmenter
    region: Box
    scale: Scale
    features: FeatureCache | None = None
    asked: Sequence[float] | None = None
    lessons: RunLessons | None = None

    @cached_property
    def tissue(self) -> Tissue:
        """Of the whole image, by the one rule."""
        return Tissue.of(self.source)

    def mpp_for(self, capability: Capability) -> float:
        """µm per pixel at which the model is shown this image for a target; some models show small images larger."""
        by_picture = getattr(
            self.model, "mpp_of_picture", None
        )  # few models have it, and one on demand is loaded by it
        if by_picture is None:
            return capability.mpp
        width, height = (side * self.scale.mpp for side in (self.source.width, self.source.height))
        return float(by_picture(capability.mpp, width, height))

    def changed(self, **changes: Any) -> FieldOfView:
        """The same image looked at in another way; what is known of its tissue stays known."""
        other = replace(self, **changes)
        other.__dict__["tissue"] = self.tissue
        return other

    def context(self, step: float) -> Context:
        """The model's statistics of the whole image, for work at ``step`` full-resolution pixels per pixel.

        Decided by the image alone: any region of it, in memory or on disk, gets the same.
        """
        if step not in self._contexts:
            self._contexts[step] = self.model.prepare(_known(self.source, lambda: self.sample(step)))
        return self._contexts[step]

    def sample(self, step: float) -> RGB:
        """Views of the tissue at ``step``, read once."""
        if step not in self._samples:
            self._samples[step] = sample(self.source, self.tissue, step)
        return self._samples[step]

    @cached_property
    def _samples(self) -> dict[float, RGB]:
        """By step, as far as they were asked for."""
        return {}

    @cached_property
    def _contexts(self) -> dict[float, Context]:
        """By the step of the work, as far as there has been any."""
        return {}

    def doubt_of_scale(self) -> list[Warned]:
        """A warning where the picture looks DOUBTFUL_SCALE times coarser or finer than the scale that is taken for known."""
        for step, context in self._contexts.items():
            if not self.scale.known or context.values.get("tissue", 0.0) < 0.5 or "mpp" not in context.values:
                continue
            pixels = 1.0 if is_small(self.source) else step
            least, most = (span / pixels for span in context.values["mpp"])
            if least >= DOUBTFUL_SCALE * self.scale.mpp or most * DOUBTFUL_SCALE <= self.scale.mpp:
                looks = least if least > self.scale.mpp else most
                said = "was given" if self.scale.source == "given" else "the file says"
                message = (
                    f"the picture looks like about {looks:.2g} µm/px, and {self.scale.mpp:g} {said}; "
                    "if that is wrong, so are the masks: pass the right mpp."
                )
                return [Warned(code="low_agreement", message=message)]
        return []


def is_small(source: ImageSource) -> bool:
    return max(source.width, source.height) <= SMALL_PX


def _known(source: ImageSource, sampled: Callable[[], RGB]) -> RGB:
    """What a model judges an image from: all of a small one, a sample of the tissue of a large one."""
    return source.overview() if is_small(source) else sampled()


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
    return Scale(model.assume_mpp(_known(source, lambda: sample(source, Tissue.of(source), 1.0))), "assumed")


def region_of(source: ImageSource, region: Sequence[float] | None) -> Box:
    """The part of the image to work on; all of it by default. Raises InvalidArgumentError where no pixel of it is inside."""
    if region is None:
        return source.box
    asked = Box.from_sequence(region)
    found = asked.intersection(source.box)
    if found is None:
        raise InvalidArgumentError(
            f"region {_in_short(region)} is outside the image of {source.width} x {source.height} px; "
            "view(image, grid=true) shows its pixels."
        )
    return found


def region_cut(source: ImageSource, region: Sequence[float] | None) -> list[Warned]:
    """A warning for a region that reaches beyond the image."""
    if region is None or (found := region_of(source, region)) == Box.from_sequence(region):
        return []
    message = (
        f"region {_in_short(region)} reaches beyond the image of {source.width} x {source.height} px; "
        f"it was cut to {found.as_list()}."
    )
    return [Warned(code="region_cut", message=message)]


def _in_short(region: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.10g}' for value in region)}]"


def image_info(source: ImageSource, region: Box, scale: Scale | None) -> ImageInfo:
    scale = scale or scale_of(source, None, None)
    return ImageInfo(
        image_id=source.image_id,
        width=source.width,
        height=source.height,
        mpp=None if scale.source == "unknown" else scale.mpp,
        mpp_source=scale.source,
        region=region.as_list(),
    )
