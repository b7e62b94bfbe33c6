"""What both DICOM exports share: the slide they refer to, the maker, the codes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from tissuetalk.models.images import CheckedFile
from tissuetalk.models.images.headers import SLIDE_CLASS
from tissuetalk.models.images.parts import is_dicom
from tissuetalk.models.writing import library
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.export.deidentify import uid_of, without_identifiers
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.stored import SegmentedRegion

NOMINAL_MPP = 1.0
"""Stands in for an unknown scale, because the standard has no slide without one; the export says so."""
TILE_PX = 512
LONGEST_TEXT = 64
"""Characters of a DICOM long string (LO)."""


def slide_of(masks: SegmentedRegion) -> Any:
    """Attributes of the VL Whole Slide Microscopy Image the masks lie on, without pixels.

    For a slide in an archive, where the object goes back there, what the archive says. For a DICOM slide its own, without identifiers unless they are to be kept; otherwise made up. The same image always has
    the same new UIDs. No patient is named, and nothing is said about specimen, stain or scanner, which nobody has told us.
    """
    if masks.slide is not None:
        return masks.slide
    with masks.open_image() as source, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom repeats values it finds fault with
        own = own_header(source.files, source.width, source.height)
        if own is None:
            return _described(masks, source.sha256)
        if masks.keep_identifiers:
            return own
        return without_identifiers(own, source.image_id, partial(uid_of, source.sha256))


def own_header(files: Sequence[CheckedFile], width: int, height: int) -> Any | None:
    """The header of the full-resolution level of a DICOM slide; its levels are the files it was opened from."""
    if not is_dicom(files[0]):
        return None
    for file in files:
        header = library("pydicom").dcmread(file.view(), stop_before_pixels=True)
        size = (header.get("TotalPixelMatrixColumns"), header.get("TotalPixelMatrixRows"))
        if header.SOPClassUID == SLIDE_CLASS and size == (width, height):
            return header
    return None


def _described(masks: SegmentedRegion, sha256: str) -> Any:
    """A header that says no more than is known."""
    hd, dataset = library("highdicom"), library("pydicom.dataset")
    image = masks.result.image
    header = dataset.Dataset()
    header.SOPClassUID = SLIDE_CLASS
    for name in ("Study", "Series", "SOP"):
        setattr(header, f"{name}InstanceUID", uid_of(sha256, name))
    header.FrameOfReferenceUID = uid_of(sha256, "FrameOfReference")
    header.PositionReferenceIndicator = "UNKNOWN"
    header.Modality = "SM"
    patient, study = "PatientID PatientName PatientBirthDate PatientSex", "StudyID StudyDate StudyTime"
    for empty in f"{patient} {study} AccessionNumber ReferringPhysicianName".split():
        setattr(header, empty, "")
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = "made from pixels alone; no identifier was read"
    header.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    header.Rows = header.Columns = TILE_PX
    header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows = image.width, image.height
    header.TotalPixelMatrixFocalPlanes = header.NumberOfOpticalPaths = 1
    header.NumberOfFrames = math.ceil(image.width / TILE_PX) * math.ceil(image.height / TILE_PX)
    header.DimensionOrganizationType = "TILED_FULL"
    header.SamplesPerPixel = 3
    header.PhotometricInterpretation = "RGB"
    header.BitsAllocated = header.BitsStored = 8
    header.ImageOrientationSlide = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]
    origin = dataset.Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0.0
    header.TotalPixelMatrixOriginSequence = [origin]
    spacing_mm = (masks.mpp or NOMINAL_MPP) / 1000.0
    shared = dataset.Dataset()
    shared.PixelMeasuresSequence = hd.PixelMeasuresSequence(
        pixel_spacing=(spacing_mm, spacing_mm), slice_thickness=spacing_mm
    )
    header.SharedFunctionalGroupsSequence = [shared]
    header.ContainerIdentifier = image.image_id[:LONGEST_TEXT]
    return header


def maker(masks: SegmentedRegion) -> dict[str, Any]:
    """Arguments both kinds of object take: new UIDs, who made it, and what a reader must know first."""
    hd = library("highdicom")
    scale = "" if masks.mpp is not None else "; scale unknown, spacing is nominal"
    return {
        "series_instance_uid": hd.UID(),
        "sop_instance_uid": hd.UID(),
        "series_number": 1,
        "instance_number": 1,
        "manufacturer": "tissuetalk",
        "manufacturer_model_name": "tissuetalk",
        "software_versions": version("tissuetalk"),
        "device_serial_number": "none",
        "content_description": f"research use only{scale}",
        "series_description": f"tissuetalk{scale}",
    }


def property_codes(layer: MaskLayer) -> tuple[Any, Any]:
    """(category, type): SNOMED for nuclei and cells; other things by our own code, never by a guessed diagnosis."""
    codes = library("pydicom.sr.codedict").codes
    concept = library("highdicom.sr.coding").CodedConcept
    words = f"{layer.record.label or ''} {layer.record.target}".lower()
    if "nucle" in words:
        return codes.cid7150.AnatomicalStructure, codes.cid8135.Nucleus
    if "cell" in words:
        return codes.cid7150.AnatomicalStructure, codes.cid8135.Cell
    own = concept(layer.record.target[:16], "99TISSUETALK", layer.name[:LONGEST_TEXT])
    return codes.cid7150.Tissue, own


def description(layer: MaskLayer, kinds: Any) -> dict[str, Any]:
    """Arguments a segment and a group of annotations share. kinds: the enumeration of how either was made."""
    hd, codes = library("highdicom"), library("pydicom.sr.codedict").codes
    origin = layer.record.provenance
    algorithm = hd.AlgorithmIdentificationSequence(
        name=origin.model[:LONGEST_TEXT],
        family=codes.cid7162.ArtificialIntelligence,
        version=origin.version,
        parameters={"weights_sha256": origin.weights_sha256, "prompt": origin.prompt},
    )
    pointed = origin.points or origin.boxes
    return {
        "algorithm_type": kinds.SEMIAUTOMATIC if pointed else kinds.AUTOMATIC,
        "algorithm_identification": algorithm,
        "display_color": library("highdicom.color").CIELabColor.from_rgb(*drawing.rgb(layer.record.colour)),
    }


def at_mm(slide: Any, x: float, y: float) -> tuple[float, ...]:
    """Where the middle of a full-resolution pixel lies on the slide, in millimetres."""
    (origin,) = slide.TotalPixelMatrixOriginSequence
    start = (float(origin.XOffsetInSlideCoordinateSystem), float(origin.YOffsetInSlideCoordinateSystem), 0.0)
    across, down = (
        np.array([float(value) for value in slide.ImageOrientationSlide[at : at + 3]]) for at in (0, 3)
    )
    between_rows, between_columns = spacing_mm(slide)
    place = np.array(start) + across * x * between_columns + down * y * between_rows
    return tuple(float(value) for value in place)


def spacing_mm(slide: Any) -> list[float]:
    """Between rows and between columns of full-resolution pixels."""
    (measures,) = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    return [float(value) for value in measures.PixelSpacing]
