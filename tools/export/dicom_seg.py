"""DICOM Segmentation: one binary segment per target, in tiles where the region lies on the slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError
from tissuetalk.models.writing import library
from tissuetalk.tools.export import dicom
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.rasters import LabelLevel
from tissuetalk.tools.masks.stored import SegmentedRegion

MOST_TILE_PX = 2**28
"""Pixels of all tiles that are not empty, times targets: highdicom holds them while it writes."""
BLOCK_TILES = 8

Tiles = dict[tuple[int, int], NDArray[np.uint8]]
"""[side, side, targets] by column and row of the first pixel."""


def write(masks: SegmentedRegion, out: Path) -> None:
    """Segments may overlap. A segment is a mask without object numbers: those are in dicom-ann.

    Tiles without anything are left out; a target that was not found is an empty segment. Raises InvalidArgumentError for
    a result without masks, ImageTooLargeError when too many tiles are not empty.
    """
    hd = library("highdicom")
    if not masks.layers:
        raise InvalidArgumentError(
            "this result has no masks, and a DICOM segmentation needs one; segment again."
        )
    # the finest labels set the scale; coarser masks are drawn on the same grid
    grid = min((layer.labels.finest for layer in masks.layers), key=lambda level: level.step_x)
    tiles = _tiles(masks.layers, grid)
    places = sorted(tiles, key=lambda place: place[::-1])
    pixels = np.stack([tiles[place] for place in places])
    slide = dicom.slide_of(masks)
    spacing_mm = [value * grid.step_x for value in dicom.spacing_mm(slide)]
    (measures,) = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    segmentation = hd.seg.Segmentation(
        source_images=[slide],
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, layer) for number, layer in enumerate(masks.layers, start=1)],
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=spacing_mm, slice_thickness=float(measures.get("SliceThickness", spacing_mm[0]))
        ),
        plane_orientation=hd.PlaneOrientationSequence(
            coordinate_system=hd.CoordinateSystemNames.SLIDE,
            image_orientation=[float(value) for value in slide.ImageOrientationSlide],
        ),
        plane_positions=[_position(slide, grid, column, row) for column, row in places],
        omit_empty_frames=bool(pixels.any()),
        content_label="TISSUETALK",
        **dicom.maker(masks),
    )
    # highdicom counts whole tiles; those at the edge reach beyond the matrix, as the standard has it
    segmentation.TotalPixelMatrixColumns, segmentation.TotalPixelMatrixRows = grid.size
    segmentation.ImageComments = json.dumps(masks.about())
    segmentation.save_as(out)


def _tiles(layers: list[MaskLayer], grid: LabelLevel) -> Tiles:
    """Tiles that hold something, and the first and the last, which say how large the pixel matrix is."""
    side, (width, height) = dicom.TILE_PX, grid.size
    found: Tiles = {}
    corners = {(0, 0), ((width - 1) // side * side, (height - 1) // side * side)}
    for top in range(0, height, side * BLOCK_TILES):
        for left in range(0, width, side * BLOCK_TILES):
            wide, high = (-(-rest // side) * side for rest in (width - left, height - top))
            size = min(side * BLOCK_TILES, wide), min(side * BLOCK_TILES, high)
            at = (grid.x0 + left * grid.step_x, grid.y0 + top * grid.step_y)
            steps = (grid.step_x, grid.step_y)
            block = np.stack([layer.labels.resampled(at, steps, size) > 0 for layer in layers], axis=-1)
            for y in range(0, size[1], side):
                for x in range(0, size[0], side):
                    tile = block[y : y + side, x : x + side]
                    if tile.any() or (left + x, top + y) in corners:
                        found[left + x, top + y] = tile.astype(np.uint8)
            if len(found) * side**2 * len(layers) > MOST_TILE_PX:
                raise ImageTooLargeError(
                    "these masks cover more of the slide than a DICOM segmentation can be made of here; "
                    "export ome-zarr, or dicom-ann for the objects."
                )
    return found


def _segment(number: int, layer: MaskLayer) -> Any:
    """What a segment shows and which model made it."""
    hd = library("highdicom")
    category, kind = dicom.property_codes(layer)
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=layer.name[: dicom.LONGEST_TEXT],
        segmented_property_category=category,
        segmented_property_type=kind,
        tracking_id=layer.record.mask_id,
        tracking_uid=hd.UID(),
        **dicom.description(layer, hd.seg.SegmentAlgorithmTypeValues),
    )
    segment.SegmentDescription = layer.record.verdict
    return segment


def _position(slide: Any, grid: LabelLevel, column: int, row: int) -> Any:
    """Where a tile's first pixel lies on the slide, in millimetres and in the pixel matrix."""
    hd = library("highdicom")
    middle_x = grid.x0 + (column + 0.5) * grid.step_x - 0.5
    middle_y = grid.y0 + (row + 0.5) * grid.step_y - 0.5
    return hd.PlanePositionSequence(
        coordinate_system=hd.CoordinateSystemNames.SLIDE,
        image_position=dicom.at_mm(slide, middle_x, middle_y),
        pixel_matrix_position=(column + 1, row + 1),
    )
