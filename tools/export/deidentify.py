"""The header of a DICOM slide without whoever it is about: PS3.15's basic profile, then what an export needs and no more."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

from tissuetalk.models.images.headers import keep_only
from tissuetalk.models.writing import library

PROFILE = "dicomfields_2026c"
"""The edition of PS3.15 table E.1-1 that decides what is removed, emptied or replaced."""
_OFFSETS = "XOffsetInSlideCoordinateSystem YOffsetInSlideCoordinateSystem ZOffsetInSlideCoordinateSystem"
_NEEDED = {
    "": "SpecificCharacterSet SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID "
    "PositionReferenceIndicator Modality ImageType Rows Columns TotalPixelMatrixColumns TotalPixelMatrixRows "
    "TotalPixelMatrixFocalPlanes NumberOfOpticalPaths NumberOfFrames DimensionOrganizationType SamplesPerPixel "
    "PhotometricInterpretation BitsAllocated BitsStored ImageOrientationSlide TotalPixelMatrixOriginSequence "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence ContainerIdentifier SpecimenDescriptionSequence",
    "TotalPixelMatrixOriginSequence": _OFFSETS,
    "SharedFunctionalGroupsSequence": "PixelMeasuresSequence",
    "PixelMeasuresSequence": "PixelSpacing SliceThickness",
    "PerFrameFunctionalGroupsSequence": "PlanePositionSlideSequence",
    "PlanePositionSlideSequence": f"{_OFFSETS} ColumnPositionInTotalImagePixelMatrix RowPositionInTotalImagePixelMatrix",
    "SpecimenDescriptionSequence": "SpecimenIdentifier SpecimenUID",
}
"""What stays of a header (under no name) and of the items of its sequences: how large the slide is and where it lies.
No codes: a laboratory can write anything into the meaning of one."""
_EMPTY = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
]


def without_identifiers(header: Any, image_id: str, derived: Callable[[str], str]) -> Any:
    """A copy that names nobody; the same slide gets the same new UIDs every time.

    derived: a new UID for an old one. The profile is applied at every depth: what it lists stands in sequences, too.
    """
    anonymizer = library("dicomanonymizer.simpledicomanonymizer")
    rules = partial(anonymizer.initialize_actions, PROFILE)
    replaces = {tag: anonymizer.keep for tag, rule in rules().items() if rule is anonymizer.replace_UID}
    copy = deepcopy(header)
    keep_only(copy, _NEEDED, uid=derived)
    for part in [copy, *_items(copy)]:
        # UIDs are new already, the same for the same old one; the library's would differ from run to run
        anonymizer.anonymize_dataset(part, replaces, base_rules_gen=rules)
    for name in _EMPTY:
        setattr(copy, name, "")
    copy.SpecificCharacterSet, copy.Modality = "ISO_IR 192", "SM"
    copy.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    if copy.get("PositionReferenceIndicator") != "SLIDE_CORNER":
        copy.PositionReferenceIndicator = "UNKNOWN"
    copy.ContainerIdentifier = image_id
    for item in copy.get("SpecimenDescriptionSequence") or ():
        item.SpecimenIdentifier = image_id
        item.SpecimenPreparationSequence = []
        item.IssuerOfTheSpecimenIdentifierSequence = []
    copy.PatientIdentityRemoved = "YES"
    copy.DeidentificationMethod = f"tissuetalk: PS3.15 basic profile ({PROFILE.removeprefix('dicomfields_')})"
    copy.DeidentificationMethodCodeSequence = [_basic_profile()]
    return copy


def _items(dataset: Any) -> list[Any]:
    """Every item of every sequence, at any depth, but for the places of frames: they are numbers, and there are many."""
    below = [
        item
        for element in dataset
        if element.VR == "SQ" and element.keyword != "PerFrameFunctionalGroupsSequence"
        for item in element.value
    ]
    return below + [deeper for item in below for deeper in _items(item)]


def _basic_profile() -> Any:
    code = library("pydicom.dataset").Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    return code


def uid_of(sha256: str, name: str) -> str:
    """A UID of the 2.25 form that anybody who has the image derives again, and nobody from the UID alone."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'tissuetalk/{sha256}/{name}').int}"
