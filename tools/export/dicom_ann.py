"""DICOM Microscopy Bulk Simple Annotations: one group per target, polygons as one stretch of coordinates."""

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
from tissuetalk.models.writing import library
from tissuetalk.tools.export import dicom
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.stored import SegmentedRegion

MOST_COORDINATES = 2**27
"""Numbers in one group of annotations: 512 MiB, which is held about three times while it is written."""
_SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)


def write(masks: SegmentedRegion, out: Path) -> None:
    """Polygons in pixels of the slide's total pixel matrix, corners of pixels at whole numbers.

    The format has no holes, so a polygon is an outer outline; an object in several parts is several polygons with the
    same object number. Raises InvalidArgumentError when nothing was found: the format cannot hold zero polygons;
    ImageTooLargeError when a group grows beyond its limit.
    """
    hd = library("highdicom")
    with ExitStack() as stack:
        found = [
            (layer, data)
            for layer in masks.layers
            if (data := _polygons(layer, stack.enter_context(tempfile.TemporaryFile()))) is not None
        ]
        if not found:
            raise InvalidArgumentError(
                "nothing was found, and DICOM annotations cannot be empty; export dicom-seg, geojson or parquet."
            )
        annotations = hd.ann.MicroscopyBulkSimpleAnnotations(
            source_images=[dicom.slide_of(masks)],
            annotation_coordinate_type=hd.ann.AnnotationCoordinateTypeValues.SCOORD,
            annotation_groups=[
                _group(at, layer, masks.about()) for at, (layer, _) in enumerate(found, start=1)
            ],
            content_label="TISSUETALK",
            **dicom.maker(masks),
        )
        for group, (layer, data) in zip(annotations.AnnotationGroupSequence, found, strict=True):
            _fill(group, data, (layer.mpp or 1.0) ** 2)
    annotations.save_as(out)


@dataclass(frozen=True)
class Polygons:
    """Outlines of one mask. points: a file of float32 x, y one after another. starts: where each polygon begins, from 1.

    numbers: of the objects. areas: without holes, in full-resolution pixels.
    """

    points: IO[bytes]
    starts: NDArray[np.int32]
    numbers: NDArray[np.float32]
    areas: NDArray[np.float32]


def _polygons(layer: MaskLayer, points: IO[bytes]) -> Polygons | None:
    """Everything about one mask; its corners go into the file. None when nothing was found."""
    starts, numbers, areas = [], [], []
    total = 0
    for ids, shapes in layer.outlines():
        parts, of = shapely.get_parts(shapes, return_index=True)
        corners, ring = shapely.get_coordinates(shapely.get_exterior_ring(parts), return_index=True)
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
    if not total:
        return None
    return Polygons(
        points,
        np.concatenate(starts).astype(np.int32),
        np.concatenate(numbers).astype(np.float32),
        np.concatenate(areas).astype(np.float32),
    )


def _group(number: int, layer: MaskLayer, told: dict[str, Any]) -> Any:
    """One target with what made it, and a square in place of its polygons."""
    hd, codes = library("highdicom"), library("pydicom.sr.codedict").codes
    concept = library("highdicom.sr.coding").CodedConcept
    category, kind = dicom.property_codes(layer)
    unit = concept("{pixels}", "UCUM", "pixels") if layer.mpp is None else codes.UCUM.SquareMicrometer
    number_of = concept("object", "99TISSUETALK", "Object number")
    measured, one = [(number_of, codes.UCUM.NoUnits), (codes.SCT.Area, unit)], np.ones(1, np.float32)
    return hd.ann.AnnotationGroup(
        number=number,
        uid=hd.UID(),
        label=layer.name[: dicom.LONGEST_TEXT],
        annotated_property_category=category,
        annotated_property_type=kind,
        graphic_type=hd.ann.GraphicTypeValues.POLYGON,
        graphic_data=[_SQUARE],
        measurements=[hd.ann.Measurements(name=name, values=one, unit=unit) for name, unit in measured],
        description=json.dumps({**told, "verdict": layer.record.verdict}),
        **dicom.description(layer, hd.ann.AnnotationGroupGenerationTypeValues),
    )


def _fill(group: Any, data: Polygons, per_px: float) -> None:
    """Put the real polygons into a group that was made with one square, so that they are held once."""
    data.points.seek(0)
    group.NumberOfAnnotations = len(data.starts)
    group.PointCoordinatesData = data.points.read()
    group.LongPrimitivePointIndexList = data.starts.tobytes()
    columns = data.numbers, data.areas * np.float32(per_px)
    for measurement, values in zip(group.MeasurementsSequence, columns, strict=True):
        measurement.MeasurementValuesSequence[0].FloatingPointValues = values.astype(np.float32).tobytes()
