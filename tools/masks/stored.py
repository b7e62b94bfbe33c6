"""A stored result ready to be measured, drawn and written: its region, scale, masks and tissue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import BadRequestError, InvalidArgumentError, UnknownResultError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.tools.answers.explained import NOTICE
from tissuetalk.tools.answers.results import SegmentResult
from tissuetalk.tools.masks.layer import OpenImage, is_on_disk, layers_of
from tissuetalk.tools.masks.rasters import RULE, Raster, Tissue
from tissuetalk.tools.storage.result_folder import ResultFolder


def open_masks(
    folder: ResultFolder,
    open_image: OpenImage,
    mask_ids: Sequence[str] = (),
    *,
    keep_identifiers: bool = False,
    slide: Any = None,
) -> SegmentedRegion:
    """The named masks of a finished result, all by default. Raises UnknownMaskError."""
    return SegmentedRegion(folder, open_image, mask_ids, keep_identifiers=keep_identifiers, slide=slide)


class SegmentedRegion:
    """The part of an image that was segmented, with its masks. mpp: µm per full-resolution pixel, None if unknown.

    keep_identifiers: what is written from it may say whose image it is: a DICOM header's patient, the file's name.
    slide: the header of the slide as an archive has it, for what goes back there.
    """

    def __init__(
        self,
        folder: ResultFolder,
        open_image: OpenImage,
        mask_ids: Sequence[str],
        *,
        keep_identifiers: bool = False,
        slide: Any = None,
    ) -> None:
        self.folder, self.open_image = folder, open_image
        self.keep_identifiers, self.slide = keep_identifiers or slide is not None, slide
        self.result = folder.result()
        self.region = Box.from_sequence(self.result.image.region)
        self.mpp = self.result.image.known_mpp
        self.layers = layers_of(folder, folder.chosen(list(mask_ids)), open_image)
        self.tissue_is_stored = is_on_disk(folder)

    @cached_property
    def tissue(self) -> Raster:
        """Where there is more than glass: what the run of a slide has written down, else looked for by the same rule."""
        if not self.tissue_is_stored:
            with self.open_image() as source:
                return Raster.over(Tissue.of(source).picture(self.region), self.region)
        picture = cv2.imread(str(self.folder.path / "slide" / "tissue.png"), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise _damaged(self.folder)
        return Raster.over(picture > 0, self.region)

    @cached_property
    def tissue_rule(self) -> str:
        """How tissue was told from glass."""
        if not self.tissue_is_stored:
            return RULE
        try:
            about = json.loads((self.folder.path / "slide" / "slide.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise _damaged(self.folder) from error
        return str(about.get("tissue_rule") or "the tissue mask of the run, slide/tissue.png")

    def background(self, box: Box, width: int, height: int) -> NDArray[np.uint8]:
        """[height, width, 3] pixels to draw on; where a slide is gone or changed, its tissue in grey."""
        try:
            with self.open_image() as source:
                return source.read_region(box, width=width, height=height)
        except BadRequestError:  # gone, moved or changed; anything else is a fault of ours and is raised
            if not self.tissue_is_stored:
                raise
        grid = Raster.over(np.ones((height, width), bool), box)
        points = np.stack(np.meshgrid(*grid.middles), axis=-1).reshape(-1, 2)
        grey = np.where(self.tissue.at(points), 215, 255).astype(np.uint8).reshape(height, width, 1)
        return np.repeat(grey, 3, axis=2)

    @property
    def image_name(self) -> str:
        """What an export calls the image: its id, because a file's name can be a patient's; the name where it is to be kept."""
        if self.keep_identifiers:
            return Path(self.folder.request()["image"]).name
        return self.result.image.image_id

    def about(self) -> dict[str, Any]:
        """What every export says about itself: software, image, region, unit and scale as JSON values."""
        image, mpp = self.result.image, self.mpp
        return {
            "software": f"tissuetalk {version('tissuetalk')}",
            "result_id": self.result.result_id,
            "image_id": image.image_id,
            "image_size": [image.width, image.height],
            "region": self.region.as_list(),
            "unit": "pixel of the full-resolution image, x right, y down",
            "mpp": mpp,
            "mpp_source": image.mpp_source,
            "scale": "unknown: lengths and areas are in pixels" if mpp is None else f"{mpp:g} µm per pixel",
            "identifiers": "kept, as was asked for" if self.keep_identifiers else "removed",
            "notice": NOTICE,
        }

    def needs_scale(self, metric: str) -> float:
        """µm per pixel. Raises InvalidArgumentError for a metric that makes no sense in pixels."""
        if self.mpp is None:
            raise InvalidArgumentError(
                f"{metric} needs µm per pixel, and neither the file nor the caller said it; segment again with mpp."
            )
        return self.mpp

    def tissue_mm2(self, metric: str) -> float:
        """Area of the tissue. Raises InvalidArgumentError without a scale or without tissue."""
        area = self.tissue.area_px * self.needs_scale(metric) ** 2 / 1e6
        if area <= 0:
            raise InvalidArgumentError(
                f"{metric} is per tissue, and no tissue was found; view the image first."
            )
        return area


def _damaged(folder: ResultFolder) -> UnknownResultError:
    return UnknownResultError(
        f"the slide result in {folder.path.name} is incomplete or damaged; segment the slide again."
    )


def tissue_mm2(folder: Path, result: SegmentResult, source: ImageSource) -> float | None:
    """Of the segmented region: what a slide's run has written down, else counted; None where the scale is not known."""
    image = result.image
    mpp = image.known_mpp
    if mpp is None:
        return None
    about = folder / "slide" / "slide.json"
    if about.is_file():
        written = json.loads(about.read_text("utf-8"))["tissue_area_mm2"]
        return None if written is None else float(written)
    region = Box.from_sequence(image.region)
    share = float(Tissue.of(source).picture(region).mean())
    return share * region.width * region.height * mpp**2 / 1e6
