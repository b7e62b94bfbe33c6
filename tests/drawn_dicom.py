"""A DICOM whole slide drawn from real tissue: the base level written with pydicom, the pyramid made by wsidicom."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np
from drawn_slides import TILE_PX, Drawing, draw_tile, fragments_of
from imagecodecs import jpeg8_encode
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid
from wsidicom import WsiDicom


def draw_dicom(drawing: Drawing, folder: Path) -> Path:
    """Files of one series, a level each, in ``folder``; returns the largest level."""
    base = folder.with_name(f"{folder.name}-base")
    base.mkdir(parents=True)
    base_level(drawing).save_as(base / "base.dcm", enforce_file_format=True)
    folder.mkdir(parents=True)
    with WsiDicom.open(base) as slide:
        written = slide.save(folder, add_missing_levels=True, workers=1)
    return max((Path(str(path)) for path in written), key=lambda path: path.stat().st_size)


def base_level(drawing: Drawing) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    slide = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    slide.SOPClassUID, slide.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    slide.StudyInstanceUID, slide.SeriesInstanceUID = generate_uid(), generate_uid()
    slide.FrameOfReferenceUID, slide.Modality = generate_uid(), "SM"
    slide.StudyDate, slide.StudyTime, slide.ContentDate, slide.ContentTime = ("20260101", "000000") * 2
    slide.AcquisitionDateTime = "20260101000000"
    slide.PatientName = slide.PatientID = slide.PatientBirthDate = slide.PatientSex = ""
    slide.StudyID = slide.AccessionNumber = slide.ReferringPhysicianName = ""
    slide.Manufacturer, slide.ManufacturerModelName, slide.DeviceSerialNumber = "drawn", "drawn", "0"
    slide.SoftwareVersions = "0"
    slide.SeriesNumber = slide.InstanceNumber = 1
    slide.ContainerIdentifier = "drawn"
    slide.PositionReferenceIndicator = "SLIDE_CORNER"
    slide.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    slide.BurnedInAnnotation, slide.SpecimenLabelInImage = "NO", "NO"
    slide.VolumetricProperties, slide.FocusMethod = "VOLUME", "AUTO"
    slide.ExtendedDepthOfField, slide.LossyImageCompression = "NO", "01"
    slide.LossyImageCompressionRatio, slide.LossyImageCompressionMethod = "10", "ISO_10918_1"
    _geometry(slide, drawing)
    slide.OpticalPathSequence = [_brightfield()]
    slide.PixelData = encapsulate(_frames(drawing))
    slide["PixelData"].is_undefined_length = True
    return slide


def _geometry(slide: Dataset, drawing: Drawing) -> None:
    across = ceil(drawing.side_px / TILE_PX)
    slide.Rows = slide.Columns = TILE_PX
    slide.TotalPixelMatrixRows = slide.TotalPixelMatrixColumns = drawing.side_px
    slide.NumberOfFrames = across * across
    slide.ImagedVolumeWidth = slide.ImagedVolumeHeight = drawing.side_px * drawing.mpp / 1000
    slide.ImagedVolumeDepth = 0.001
    slide.SamplesPerPixel, slide.PhotometricInterpretation, slide.PlanarConfiguration = 3, "YBR_FULL_422", 0
    slide.BitsAllocated = slide.BitsStored = 8
    slide.HighBit, slide.PixelRepresentation = 7, 0
    slide.DimensionOrganizationType = "TILED_FULL"
    slide.NumberOfOpticalPaths = slide.TotalPixelMatrixFocalPlanes = 1
    slide.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 20
    slide.TotalPixelMatrixOriginSequence = [origin]
    spacing, shared, kind = Dataset(), Dataset(), Dataset()
    spacing.PixelSpacing = [drawing.mpp / 1000, drawing.mpp / 1000]
    spacing.SliceThickness = 0.001
    kind.FrameType = slide.ImageType
    shared.PixelMeasuresSequence, shared.WholeSlideMicroscopyImageFrameTypeSequence = [spacing], [kind]
    slide.SharedFunctionalGroupsSequence = [shared]


def _brightfield() -> Dataset:
    path, method = Dataset(), Dataset()
    method.CodeValue, method.CodingSchemeDesignator = "111744", "DCM"
    method.CodeMeaning = "Brightfield illumination"
    path.OpticalPathIdentifier, path.IlluminationTypeCodeSequence = "0", [method]
    path.IlluminationWaveLength = 550.0
    return path


def _frames(drawing: Drawing) -> list[bytes]:
    pieces = fragments_of(drawing)
    tops = range(0, drawing.side_px, TILE_PX)
    tiles = (draw_tile(drawing, pieces, 1, left, top) for top in tops for left in tops)
    return [
        bytes(
            jpeg8_encode(
                np.ascontiguousarray(tile),
                level=80,
                colorspace="rgb",
                outcolorspace="ycbcr",
                subsampling=(2, 1),
            )
        )
        for tile in tiles
    ]
