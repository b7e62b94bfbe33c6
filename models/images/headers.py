"""Headers of DICOM slides without what is not needed: a list of what stays, applied at every depth."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from tissuetalk.models.errors import UnreadableImageError
from tissuetalk.models.images.files import DECODER_ERRORS
from tissuetalk.models.writing import library

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""
HEADER_BYTES = 32 * 2**20
"""Before the pixels. A sparse slide says of each of its tiles where it lies, some 250 bytes."""
_OFFSETS = "XOffsetInSlideCoordinateSystem YOffsetInSlideCoordinateSystem ZOffsetInSlideCoordinateSystem"
_PIXELS = {
    "": "SpecificCharacterSet SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID "
    "PositionReferenceIndicator Modality ImageType Rows Columns TotalPixelMatrixColumns TotalPixelMatrixRows "
    "TotalPixelMatrixFocalPlanes NumberOfOpticalPaths NumberOfFrames DimensionOrganizationType SamplesPerPixel "
    "PhotometricInterpretation PlanarConfiguration BitsAllocated BitsStored HighBit PixelRepresentation "
    "ImageOrientationSlide TotalPixelMatrixOriginSequence ImagedVolumeWidth ImagedVolumeHeight ImagedVolumeDepth "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence OpticalPathSequence VolumetricProperties "
    "LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod ConcatenationUID "
    "InConcatenationNumber ConcatenationFrameOffsetNumber ExtendedOffsetTable ExtendedOffsetTableLengths",
    "TotalPixelMatrixOriginSequence": _OFFSETS,
    "SharedFunctionalGroupsSequence": "PixelMeasuresSequence WholeSlideMicroscopyImageFrameTypeSequence",
    "PixelMeasuresSequence": "PixelSpacing SliceThickness",
    "WholeSlideMicroscopyImageFrameTypeSequence": "FrameType",
    "PerFrameFunctionalGroupsSequence": "PlanePositionSlideSequence",
    "PlanePositionSlideSequence": f"{_OFFSETS} ColumnPositionInTotalImagePixelMatrix RowPositionInTotalImagePixelMatrix",
    "OpticalPathSequence": "OpticalPathIdentifier ObjectiveLensPower ICCProfile",
}
"""What a reader needs to draw the slide, and nothing about whose it is."""
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_ITEM, _END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = 0xFFFFFFFF
_CHUNK_BYTES = 2**20


def keep_only(
    dataset: Any, needed: Mapping[str, str], name: str = "", uid: Callable[[str], str] | None = None
) -> None:
    """Leave what is needed of a header (under no name) or of an item of the sequence ``name``, at every depth.

    uid: a new UID for an old one; registered ones, which name kinds and not things, stay.
    """
    registered, kept = library("pydicom.uid").UID_dictionary, needed.get(name, "").split()
    for tag in list(dataset.keys()):
        if library("pydicom.datadict").keyword_for_tag(tag) not in kept:
            del dataset[tag]
    for element in dataset:
        if element.VR == "UI" and uid is not None:
            old = str(element.value)
            element.value = old if old in registered else uid(old)
        elif element.VR == "SQ":
            for item in element.value:
                keep_only(item, needed, element.keyword, uid)


def header_of(file: BinaryIO, name: str) -> tuple[Any, int]:
    """What a DICOM file says of its pixels, and where in the file they begin. Raises UnreadableImageError."""
    pydicom = library("pydicom")
    head = io.BytesIO(file.read(HEADER_BYTES))
    try:
        kept = [library("pydicom.datadict").tag_for_keyword(each) for each in _PIXELS[""].split()]
        header = pydicom.dcmread(head, stop_before_pixels=True, specific_tags=kept)
        at = head.tell()
        head.seek(at)
        syntax = header.file_meta.TransferSyntaxUID
        if head.read(4) == _PIXEL_DATA and syntax.is_little_endian and not syntax.is_deflated:
            keep_only(header, _PIXELS)
            return header, at
    except (*DECODER_ERRORS, pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        raise UnreadableImageError(f"{name} is no DICOM file that can be read; store it again") from error
    raise UnreadableImageError(f"{name} has no pixels, or in a form that is not read; store it again")


def copy_pixels(file: BinaryIO, header: Any, at: int, out: BinaryIO, name: str) -> None:
    """A DICOM file of the header and the pixels that begin ``at`` in another file; what comes after them is left out.

    Raises UnreadableImageError where the pixels are cut off.
    """
    meta = library("pydicom.dataset").FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    header.file_meta, header.preamble = meta, bytes(128)
    library("pydicom").dcmwrite(out, header, enforce_file_format=True)
    file.seek(at)
    start = file.read(8 if meta.TransferSyntaxUID.is_implicit_VR else 12)
    out.write(start)
    length = int.from_bytes(start[-4:], "little")
    if length != _UNDEFINED:
        _copy(file, out, length, name)
        return
    while True:  # the table of offsets, then a piece for each tile
        item = file.read(8)
        length = int.from_bytes(item[4:], "little")
        if item[:4] not in (_ITEM, _END_OF_ITEMS) or length == _UNDEFINED:
            raise _cut_off(name)
        out.write(item)
        if item[:4] == _END_OF_ITEMS:
            return
        _copy(file, out, length, name)


def _copy(file: BinaryIO, out: BinaryIO, length: int, name: str) -> None:
    while length:
        part = file.read(min(length, _CHUNK_BYTES))
        if not part:
            raise _cut_off(name)
        out.write(part)
        length -= len(part)


def _cut_off(name: str) -> UnreadableImageError:
    return UnreadableImageError(f"the pixels of {name} are cut off or damaged; store it again")
