"""DICOM Segmentation: one binary segment per target, tiled, where the region lies on the slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.tools.export import dicom
from tissuetalk.tools.export.content import Content, Layer, library


def write(content: Content, out: Path) -> None:
    """Segments may overlap. A segment is a mask without object numbers: those are in dicom-ann.

    A target that was not found is an empty segment. Raises InvalidArgumentError for a result without masks.
    """
    hd = library("highdicom")
    if not content.layers:
        raise InvalidArgumentError(
            "this result has no masks, and a DICOM segmentation needs one; segment again."
        )
    masks = np.stack([_matrix(layer) for layer in content.layers], axis=-1)[np.newaxis]
    slide = dicom.slide_of(content)
    segmentation = hd.seg.Segmentation(
        source_images=[slide],
        pixel_array=masks,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment(number, layer) for number, layer in enumerate(content.layers, start=1)],
        tile_pixel_array=True,
        tile_size=(dicom.TILE_PX, dicom.TILE_PX),
        plane_positions=[_place(content, slide)],
        omit_empty_frames=bool(masks.any()),
        content_label="TISSUETALK",
        **dicom.maker(content),
    )
    segmentation.ImageComments = json.dumps(content.about())
    segmentation.save_as(out)


def _matrix(layer: Layer) -> NDArray[np.bool_]:
    """The mask of the region; one that begins at the slide's first pixel is widened to the slide.

    highdicom takes a pixel matrix with the slide's own origin for the slide's, and wants all of it.
    """
    region, image = layer.content.region, layer.content.result.image
    if (region.x0, region.y0) != (0, 0):
        return layer.mask
    return np.pad(layer.mask, ((0, image.height - region.y1), (0, image.width - region.x1)))


def segment(number: int, layer: Layer) -> Any:
    """What a segment shows and which model made it."""
    hd = library("highdicom")
    category, kind = dicom.property_codes(layer)
    types = hd.seg.SegmentAlgorithmTypeValues
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=layer.name[: dicom.LONGEST_TEXT],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=types.SEMIAUTOMATIC if dicom.is_guided(layer) else types.AUTOMATIC,
        algorithm_identification=dicom.algorithm(layer),
        tracking_id=layer.record.mask_id,
        tracking_uid=hd.UID(),
        display_color=dicom.colour_of(layer),
    )
    description.SegmentDescription = layer.record.verdict
    return description


def _place(content: Content, slide: Any) -> Any:
    """Where the first pixel of the region lies on the slide; it begins a pixel matrix of its own."""
    hd = library("highdicom")
    return hd.PlanePositionSequence(
        coordinate_system=hd.CoordinateSystemNames.SLIDE,
        image_position=at_mm(slide, content.region.x0, content.region.y0),
        pixel_matrix_position=(1, 1),
    )


def at_mm(slide: Any, x: float, y: float) -> tuple[float, ...]:
    """Where the middle of a full-resolution pixel lies on the slide, in millimetres."""
    (origin,) = slide.TotalPixelMatrixOriginSequence
    (measures,) = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    start = (float(origin.XOffsetInSlideCoordinateSystem), float(origin.YOffsetInSlideCoordinateSystem), 0.0)
    across, down = (
        np.array([float(value) for value in slide.ImageOrientationSlide[at : at + 3]]) for at in (0, 3)
    )
    between_rows, between_columns = (float(value) for value in measures.PixelSpacing)
    place = np.array(start) + across * x * between_columns + down * y * between_rows
    return tuple(float(value) for value in place)
