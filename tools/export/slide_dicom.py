"""Both DICOM objects of a slide: tiles that hold something, and annotations written as one stretch of coordinates."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError
from tissuetalk.tools.export import dicom, dicom_ann, dicom_seg
from tissuetalk.tools.export.content import Layer, library
from tissuetalk.tools.export.slide_content import SlideContent, outlined
from tissuetalk.tools.masks.pyramid import Level
from tissuetalk.tools.masks.slide import SlideLayer

MOST_TILE_PX = 2**28
"""Pixels of all tiles that are not empty, times targets: highdicom holds them while it writes."""
MOST_COORDINATES = 2**27
"""Numbers in one group of annotations: 512 MiB, which is held about three times while it is written."""
BLOCK_TILES = 8


def write_seg(content: SlideContent, out: Path) -> None:
    """One binary segment per target at the model's own scale, tiles without anything left out.

    Raises InvalidArgumentError for a result without masks, ImageTooLargeError when too many tiles are not empty.
    """
    hd = library("highdicom")
    if not content.layers:
        raise InvalidArgumentError(
            "this result has no masks, and a DICOM segmentation needs one; segment again."
        )
    grid = min((layer.pyramid.levels[0] for layer in content.layers), key=lambda level: level.step_x)
    places, tiles = _tiles(content, grid)
    slide = dicom.slide_of(content.content)
    spacing_mm = [float(value) * grid.step_x for value in _measures(slide).PixelSpacing]
    segmentation = hd.seg.Segmentation(
        source_images=[slide],
        pixel_array=tiles,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            dicom_seg.segment(number, Layer(content.content, layer.record))
            for number, layer in enumerate(content.layers, start=1)
        ],
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=spacing_mm,
            slice_thickness=float(_measures(slide).get("SliceThickness", spacing_mm[0])),
        ),
        plane_orientation=hd.PlaneOrientationSequence(
            coordinate_system=hd.CoordinateSystemNames.SLIDE,
            image_orientation=[float(value) for value in slide.ImageOrientationSlide],
        ),
        plane_positions=[_position(slide, grid, column, row) for column, row in places],
        omit_empty_frames=bool(tiles.any()),
        content_label="TISSUETALK",
        **dicom.maker(content.content),
    )
    segmentation.ImageComments = json.dumps(content.content.about())
    segmentation.save_as(out)


def _tiles(content: SlideContent, grid: Level) -> tuple[list[tuple[int, int]], NDArray[np.uint8]]:
    """((column, row) of the first pixel of every tile that holds something, [tiles, side, side, targets]).

    The first and the last tile are always there: they say how large the pixel matrix is.
    """
    side, (height, width) = dicom.TILE_PX, grid.array.shape
    found: dict[tuple[int, int], NDArray[np.uint8]] = {}
    corners = {(0, 0), ((width - 1) // side * side, (height - 1) // side * side)}
    for top in range(0, height, side * BLOCK_TILES):
        for left in range(0, width, side * BLOCK_TILES):
            size = (
                min(side * BLOCK_TILES, _whole(width - left)),
                min(side * BLOCK_TILES, _whole(height - top)),
            )
            at = (grid.x0 + left * grid.step_x, grid.y0 + top * grid.step_y)
            block = np.stack(
                [
                    layer.pyramid.resampled(at, (grid.step_x, grid.step_y), size) > 0
                    for layer in content.layers
                ],
                axis=-1,
            ).astype(np.uint8)
            for y in range(0, size[1], side):
                for x in range(0, size[0], side):
                    tile = block[y : y + side, x : x + side]
                    if tile.any() or (left + x, top + y) in corners:
                        found[left + x, top + y] = tile.copy()
            if len(found) * side**2 * len(content.layers) > MOST_TILE_PX:
                raise ImageTooLargeError(
                    "these masks cover more of the slide than a DICOM segmentation can be made of here; "
                    "export ome-zarr, or dicom-ann for the objects."
                )
    places = sorted(found, key=lambda place: place[::-1])
    return places, np.stack([found[place] for place in places])


def _whole(length: int) -> int:
    """Rounded up to whole tiles."""
    return -(-length // dicom.TILE_PX) * dicom.TILE_PX


def _measures(slide: Any) -> Any:
    (measures,) = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    return measures


def _position(slide: Any, grid: Level, column: int, row: int) -> Any:
    """Where a tile's first pixel lies on the slide, in millimetres and in the pixel matrix."""
    hd = library("highdicom")
    middle_x = grid.x0 + (column + 0.5) * grid.step_x - 0.5
    middle_y = grid.y0 + (row + 0.5) * grid.step_y - 0.5
    return hd.PlanePositionSequence(
        coordinate_system=hd.CoordinateSystemNames.SLIDE,
        image_position=dicom_seg.at_mm(slide, middle_x, middle_y),
        pixel_matrix_position=(column + 1, row + 1),
    )


def write_ann(content: SlideContent, out: Path) -> None:
    """As the ordinary export: an outer outline per object or part of one, with its number and area.

    Raises InvalidArgumentError when nothing was found and ImageTooLargeError when a group grows beyond its limit.
    """
    hd = library("highdicom")
    with ExitStack() as stack:
        found = [
            (layer, _coordinates(layer, stack.enter_context(tempfile.TemporaryFile())))
            for layer in content.layers
        ]
        drawn = [(layer, data) for layer, data in found if data is not None]
        if not drawn:
            raise InvalidArgumentError(
                "nothing was found, and DICOM annotations cannot be empty; export dicom-seg, geojson or parquet."
            )
        groups = [
            dicom_ann.group(number, Layer(content.content, layer.record), [(1, shapely.box(0, 0, 1, 1))])
            for number, (layer, _) in enumerate(drawn, start=1)
        ]
        annotations = hd.ann.MicroscopyBulkSimpleAnnotations(
            source_images=[dicom.slide_of(content.content)],
            annotation_coordinate_type=hd.ann.AnnotationCoordinateTypeValues.SCOORD,
            annotation_groups=groups,
            content_label="TISSUETALK",
            **dicom.maker(content.content),
        )
        mpp = content.slide.mpp
        for group, (_, data) in zip(annotations.AnnotationGroupSequence, drawn, strict=True):
            _fill(group, data, 1.0 if mpp is None else mpp**2)
    annotations.save_as(out)


@dataclass(frozen=True)
class Coordinates:
    """Polygons of one mask. points: a file of float32 x, y one after another. starts: where each polygon begins, from 1.

    numbers: of the objects. areas: in full-resolution pixels.
    """

    points: IO[bytes]
    starts: NDArray[np.int32]
    numbers: NDArray[np.float32]
    areas: NDArray[np.float32]


def _coordinates(layer: SlideLayer, points: IO[bytes]) -> Coordinates | None:
    """Everything about one mask; its corners go into the file."""
    starts, numbers, areas = [], [], []
    total = 0
    for ids, shapes in outlined(layer):
        parts, of = shapely.get_parts(shapes, return_index=True)
        rings = shapely.get_exterior_ring(parts)
        corners, ring = shapely.get_coordinates(rings, return_index=True)
        last = np.append(ring[1:] != ring[:-1], True)  # DICOM closes a polygon itself
        corners, lengths = corners[~last], np.bincount(ring[~last], minlength=len(parts))
        points.write(corners.astype(np.float32).tobytes())
        starts.append(total + 1 + 2 * np.concatenate([[0], np.cumsum(lengths)[:-1]]))
        numbers.append(ids[of])
        areas.append(shapely.area(parts))
        total += 2 * len(corners)
        if total > MOST_COORDINATES:
            raise ImageTooLargeError(
                f"the outlines of {layer.name} are too long for one group of DICOM annotations; export geojson or parquet."
            )
    if not starts:
        return None
    return Coordinates(
        points,
        np.concatenate(starts).astype(np.int32),
        np.concatenate(numbers).astype(np.float32),
        np.concatenate(areas).astype(np.float32),
    )


def _fill(group: Any, data: Coordinates, per_px: float) -> None:
    """Put the real polygons into a group that was made with one square, so that they are held once."""
    data.points.seek(0)
    group.NumberOfAnnotations = len(data.starts)
    group.PointCoordinatesData = data.points.read()
    group.LongPrimitivePointIndexList = data.starts.tobytes()
    for measurement, values in zip(
        group.MeasurementsSequence, (data.numbers, data.areas * np.float32(per_px)), strict=True
    ):
        measurement.MeasurementValuesSequence[0].FloatingPointValues = values.astype(np.float32).tobytes()
