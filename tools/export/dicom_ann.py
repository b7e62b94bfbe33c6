"""DICOM Microscopy Bulk Simple Annotations: one group per target, one polygon per object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.tools.export import dicom
from tissuetalk.tools.export.content import Content, Layer, library


def write(content: Content, out: Path) -> None:
    """Polygons in pixels of the slide's total pixel matrix, corners of pixels at whole numbers.

    The format has no holes, so a polygon is an outer outline; an object in several parts is several polygons with the
    same object number. Raises InvalidArgumentError when nothing was found: the format cannot hold zero polygons.
    """
    hd = library("highdicom")
    found = [layer for layer in content.layers if layer.labels.any()]
    if not found:
        raise InvalidArgumentError(
            "nothing was found, and DICOM annotations cannot be empty; export dicom-seg, geojson or parquet."
        )
    annotations = hd.ann.MicroscopyBulkSimpleAnnotations(
        source_images=[dicom.slide_of(content)],
        annotation_coordinate_type=hd.ann.AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=[
            group(number, layer, _drawn(layer)) for number, layer in enumerate(found, start=1)
        ],
        content_label="TISSUETALK",
        **dicom.maker(content),
    )
    annotations.save_as(out)


def _drawn(layer: Layer) -> list[tuple[int, shapely.Polygon]]:
    """(object number, polygon) of every part."""
    return [(number, part) for number, shape in layer.polygons() for part in _parts(shape)]


def group(number: int, layer: Layer, drawn: list[tuple[int, shapely.Polygon]]) -> Any:
    """One target's polygons with what made them."""
    hd = library("highdicom")
    category, kind = dicom.property_codes(layer)
    types = hd.ann.AnnotationGroupGenerationTypeValues
    return hd.ann.AnnotationGroup(
        number=number,
        uid=hd.UID(),
        label=layer.name[: dicom.LONGEST_TEXT],
        annotated_property_category=category,
        annotated_property_type=kind,
        graphic_type=hd.ann.GraphicTypeValues.POLYGON,
        graphic_data=[shapely.get_coordinates(part.exterior)[:-1].astype(np.float32) for _, part in drawn],
        algorithm_type=types.SEMIAUTOMATIC if dicom.is_guided(layer) else types.AUTOMATIC,
        algorithm_identification=dicom.algorithm(layer),
        measurements=_measurements(layer, drawn),
        description=json.dumps({**layer.content.about(), "verdict": layer.record.verdict}),
        display_color=dicom.colour_of(layer),
    )


def _measurements(layer: Layer, drawn: list[tuple[int, shapely.Polygon]]) -> list[Any]:
    """Object number of every polygon, and its area without its holes, in µm² where the scale is known."""
    hd, codes = library("highdicom"), library("pydicom.sr.codedict").codes
    concept = library("highdicom.sr.coding").CodedConcept
    mpp = layer.content.mpp
    area_px = np.array([part.area for _, part in drawn])
    return [
        hd.ann.Measurements(
            name=concept("object", "99TISSUETALK", "Object number"),
            values=np.array([number for number, _ in drawn], np.float32),
            unit=codes.UCUM.NoUnits,
        ),
        hd.ann.Measurements(
            name=codes.SCT.Area,
            values=(area_px * (1.0 if mpp is None else mpp**2)).astype(np.float32),
            unit=concept("{pixels}", "UCUM", "pixels") if mpp is None else codes.UCUM.SquareMicrometer,
        ),
    ]


def _parts(shape: shapely.Geometry) -> list[shapely.Polygon]:
    return [part for part in shapely.get_parts(shape) if isinstance(part, shapely.Polygon)]
