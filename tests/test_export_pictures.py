"""COCO, OME-Zarr and the two DICOM objects, each read back by the library its users use."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import highdicom
import numpy as np
import ome_zarr.io
import ome_zarr.reader
import pydicom
import pytest
import shapely
import zarr
from exported import (
    HEIGHT,
    MITOSES,
    NUCLEI,
    ORIGIN_XY,
    STROMA,
    WIDTH,
    exported,
    in_image,
    nothing_found,
    ragged,
    result,
    touching,
)
from pycocotools.coco import COCO
from pydicom.uid import MicroscopyBulkSimpleAnnotationsStorage, SegmentationStorage

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError
from tissuetalk.tools.export import export
from tissuetalk.tools.export.coco import run_lengths
from tissuetalk.tools.masks.rasters import create_pyramid, write_levels

MASKS = {NUCLEI: touching() > 0, STROMA: ragged(), MITOSES: np.zeros((HEIGHT, WIDTH), bool)}


def opened_coco(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


# pycocotools decodes into an array type that predates a keyword of NumPy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_masks_decode_to_the_same_pixels(tmp_path: Path) -> None:
    coco = opened_coco(exported(tmp_path, "coco", "coco.json"))
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["width"], image["height"]) == (ORIGIN_XY[0] + WIDTH, ORIGIN_XY[1] + HEIGHT)
    assert image["file_name"] == "img_" + "0" * 32  # a file's name can be a patient's
    nuclei = np.zeros((image["height"], image["width"]), np.int32)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation).astype(bool)
        x, y, width, height = annotation["bbox"]
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1) == (x, y, width, height)
        assert annotation["area"] == mask.sum()
        if annotation["mask_id"] == NUCLEI:
            nuclei[mask] = annotation["object"]
        else:
            assert np.array_equal(mask, in_image(ragged()))
    assert np.array_equal(nuclei, in_image(touching()))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == [
        "nuclei",
        "stroma",
        "mitoses",
    ]


def test_runs_go_on_from_the_foot_of_one_column_to_the_head_of_the_next() -> None:
    assert run_lengths(np.ones((4, 3), bool), 2, 0, 4, 10) == [8, 12, 20]


def test_coco_refuses_an_image_its_run_lengths_cannot_number(tmp_path: Path) -> None:
    folder, opener = result(tmp_path)
    found = folder.result()
    image = found.image.model_copy(update={"width": 70_000, "height": 70_000})
    folder.write_result(found.model_copy(update={"image": image}))
    with pytest.raises(ImageTooLargeError, match="parquet"):
        export(folder, "coco", tmp_path / "coco.json", opener)


def nodes(path: Path) -> list[ome_zarr.reader.Node]:
    location = ome_zarr.io.parse_url(path)
    assert location is not None
    return list(ome_zarr.reader.Reader(location)())


def test_ome_zarr_opens_as_an_image_with_its_labels(tmp_path: Path) -> None:
    out = exported(tmp_path, "ome-zarr", "result.ome.zarr")
    image, group, *labels = nodes(out)
    folder, opener = result(tmp_path / "again")
    (x0, y0, x1, y1) = folder.result().image.region
    with opener() as source:
        pixels = source.read_region(source.box, width=source.width, height=source.height)[y0:y1, x0:x1]
    assert np.array_equal(np.moveaxis(np.asarray(image.data[0]), 0, -1), pixels)
    assert [Path(node.zarr.path).name for node in (group, *labels)] == ["labels", NUCLEI, STROMA, MITOSES]
    full = [np.asarray(node.data[0]) for node in labels]
    assert np.array_equal(full[0], touching())
    assert np.array_equal(full[1], ragged()) and not full[2].any()
    assert [level.shape for level in labels[0].data] == [(300, 420), (150, 210)]


def test_ome_zarr_labels_say_what_they_are_and_where_they_lie(tmp_path: Path) -> None:
    out = exported(tmp_path, "ome-zarr", "result.ome.zarr")
    described = json.loads((out / "labels" / NUCLEI / "zarr.json").read_text())["attributes"]["ome"]
    (scales,) = described["multiscales"]
    assert [axis["unit"] for axis in scales["axes"]] == ["micrometer", "micrometer"]
    scale, translation = scales["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [0.25, 0.25] and translation["translation"] == [21 * 0.25, 37 * 0.25]
    smaller, half_a_block_in = scales["datasets"][1]["coordinateTransformations"]
    assert smaller["scale"] == [0.5, 0.5]
    assert half_a_block_in["translation"] == [21 * 0.25 + 0.125, 37 * 0.25 + 0.125]
    label = described["image-label"]
    assert label["source"] == {"image": "../../"}
    assert [each["label-value"] for each in label["properties"]] == [1, 2, 4, 5, 6, 7]
    assert label["properties"][0]["name"] == "nuclei"


def test_ome_zarr_without_a_scale_has_pixels_and_no_unit(tmp_path: Path) -> None:
    out = exported(tmp_path, "ome-zarr", "result.ome.zarr", mpp=None)
    attributes = json.loads((out / "zarr.json").read_text())["attributes"]
    (scales,) = attributes["ome"]["multiscales"]
    assert not any("unit" in axis for axis in scales["axes"])
    assert scales["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 1.0, 1.0]
    assert "in pixels" in attributes["tissuetalk"]["scale"]


def test_no_level_of_a_pyramid_invents_an_object(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "labels.zarr"), mode="w")
    pyramid = create_pyramid(group, (700, 1000), corner_xy=(0, 0), step=1.0, mpp=None, dtype="uint8")
    labels = np.random.default_rng(0).integers(0, 2, (1000, 700)) * 9
    write_levels(pyramid, labels[:333].astype(np.uint8))
    write_levels(pyramid, labels[333:].astype(np.uint8), top=333)
    assert [level.shape for level in pyramid] == [(1000, 700), (500, 350), (250, 175)]
    for number, level in enumerate(pyramid):
        assert np.array_equal(level[:], labels[:: 2**number, :: 2**number])


def test_dicom_segments_are_the_masks(tmp_path: Path) -> None:
    segmentation = highdicom.seg.segread(exported(tmp_path, "dicom-seg", "seg.dcm"))
    assert segmentation.SOPClassUID == SegmentationStorage
    pixels = segmentation.get_total_pixel_matrix()
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    for number, mask in enumerate(MASKS.values()):
        assert np.array_equal(pixels[..., number] > 0, mask)
    labels = [segmentation.get_segment_description(number).segment_label for number in (1, 2, 3)]
    assert labels == ["nuclei", "stroma", "mitoses"]
    spacing = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert [float(value) for value in spacing] == [0.00025, 0.00025]


def test_a_dicom_segmentation_lies_where_the_region_lies(tmp_path: Path) -> None:
    segmentation = highdicom.seg.segread(exported(tmp_path, "dicom-seg", "seg.dcm"))
    (origin,) = segmentation.TotalPixelMatrixOriginSequence
    assert segmentation.ImageOrientationSlide == [0, -1, 0, -1, 0, 0]
    assert float(origin.XOffsetInSlideCoordinateSystem) == pytest.approx(-21 * 0.00025)
    assert float(origin.YOffsetInSlideCoordinateSystem) == pytest.approx(-37 * 0.00025)


def test_dicom_names_no_patient_and_refers_to_the_same_slide_every_time(tmp_path: Path) -> None:
    folder, opener = result(tmp_path)
    first, second = (
        pydicom.dcmread(export(folder, "dicom-seg", tmp_path / name, opener)) for name in ("1.dcm", "2.dcm")
    )
    for header in (first, second, pydicom.dcmread(export(folder, "dicom-ann", tmp_path / "3.dcm", opener))):
        assert not header.PatientName and not header.PatientID and not header.PatientBirthDate
        assert "research use only" in header.ContentDescription
        assert header.StudyInstanceUID == first.StudyInstanceUID
        assert "picture" not in str(header)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    slides = [header.ReferencedSeriesSequence[0].SeriesInstanceUID for header in (first, second)]
    assert slides[0] == slides[1] and slides[0].startswith("2.25.")


def test_dicom_says_when_its_spacing_is_nominal(tmp_path: Path) -> None:
    header = pydicom.dcmread(exported(tmp_path, "dicom-seg", "seg.dcm", mpp=None))
    assert "scale unknown" in header.ContentDescription and "scale unknown" in header.SeriesDescription
    assert json.loads(header.ImageComments)["mpp"] is None
    annotated = highdicom.ann.annread(exported(tmp_path / "ann", "dicom-ann", "ann.dcm", mpp=None))
    _, values, units = annotated.get_annotation_group(number=1).get_measurements()
    assert units[1].meaning == "pixels" and values[0, 1] == 225


def test_dicom_annotations_are_the_objects(tmp_path: Path) -> None:
    annotated = highdicom.ann.annread(exported(tmp_path, "dicom-ann", "ann.dcm"))
    assert annotated.SOPClassUID == MicroscopyBulkSimpleAnnotationsStorage
    nuclei, stroma = annotated.get_annotation_groups()
    assert (nuclei.label, stroma.label) == ("nuclei", "stroma")
    assert nuclei.annotated_property_type.meaning == "Nucleus"
    names, values, units = nuclei.get_measurements()
    assert [name.meaning for name in names] == ["Object number", "Area"] and units[1].value == "um2"
    y, x = np.mgrid[: ORIGIN_XY[1] + HEIGHT, : ORIGIN_XY[0] + WIDTH] + 0.5
    drawn = np.zeros(x.shape, np.int32)
    for (number, area_um2), corners in zip(values, nuclei.get_graphic_data("2D"), strict=True):
        polygon = shapely.Polygon(corners)
        shapely.prepare(polygon)
        drawn[shapely.contains_xy(polygon, x, y)] = number
        if number != 4:
            assert area_um2 == pytest.approx(polygon.area * 0.0625)
    without_hole = touching()
    without_hole[30:40, 40:50] = 4
    assert np.array_equal(drawn, in_image(without_hole))
    assert values[:, 1].sum() == pytest.approx((touching() > 0).sum() * 0.0625)


def test_nothing_found_is_valid_where_the_format_allows_it(tmp_path: Path) -> None:
    folder, opener = nothing_found(tmp_path)
    coco = opened_coco(export(folder, "coco", tmp_path / "coco.json", opener))
    assert coco.getAnnIds() == [] and len(coco.getCatIds()) == 1
    *_, label = nodes(export(folder, "ome-zarr", tmp_path / "a.zarr", opener))
    assert label.data[0].shape == (64, 64) and not np.asarray(label.data[0]).any()
    segmentation = highdicom.seg.segread(export(folder, "dicom-seg", tmp_path / "seg.dcm", opener))
    assert segmentation.number_of_segments == 1 and not segmentation.get_total_pixel_matrix().any()
    with pytest.raises(InvalidArgumentError, match="cannot be empty"):
        export(folder, "dicom-ann", tmp_path / "ann.dcm", opener)
    assert not (tmp_path / "ann.dcm").exists()
