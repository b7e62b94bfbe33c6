"""A slide result in every format, each opened by the library its users use, and read in pieces on the way."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import exported as ordinary
import geojson
import highdicom
import numpy as np
import ome_zarr.io
import ome_zarr.reader
import pytest
import shapely
from drawn import save, stored
from exported import HEIGHT, MITOSES, NUCLEI, ORIGIN_XY, STROMA, WIDTH, in_image
from pycocotools.coco import COCO
from slide_folder import STEP, as_slide, coarse

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError, UnknownMaskError
from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.tools.export import FORMATS, dicom_ann, dicom_seg, export
from tissuetalk.tools.export import coco as coco_export
from tissuetalk.tools.export import ome_zarr as ome_zarr_export
from tissuetalk.tools.masks import layer as mask_layer
from tissuetalk.tools.storage.result_folder import ResultFolder

NUCLEUS_LABELS = coarse(ordinary.touching())
STROMA_MASK = coarse(ordinary.ragged().astype(np.int32)) > 0
IDS = sorted(set(np.unique(NUCLEUS_LABELS).tolist()) - {0})


@pytest.fixture
def slide(tmp_path: Path) -> tuple[ResultFolder, Callable[[], ImageSource]]:
    return drawn(tmp_path)


def drawn(path: Path, mpp: float | None = 0.25) -> tuple[ResultFolder, Callable[[], ImageSource]]:
    shape = (ORIGIN_XY[1] + HEIGHT, ORIGIN_XY[0] + WIDTH, 3)
    colours = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    image = save(path / "picture.png", colours)
    nothing = np.zeros((HEIGHT, WIDTH), np.int32)
    masks = {
        "nuclei": (NUCLEUS_LABELS > 0, NUCLEUS_LABELS),
        "stroma": (STROMA_MASK, None),
        "mitoses": (nothing > 0, nothing),
    }
    folder = stored(path / "result", masks, mpp=mpp, origin_xy=ORIGIN_XY)
    folder.write_request({"image": str(image)})
    pixels = colours[ORIGIN_XY[1] :, ORIGIN_XY[0] :]
    return as_slide(folder, np.ones((HEIGHT, WIDTH), bool), pixels), lambda: open_image(
        image, name=image.name
    )


def labels_of(shapes: dict[int, shapely.Geometry]) -> np.ndarray:
    whole = in_image(NUCLEUS_LABELS)
    y, x = np.mgrid[: whole.shape[0], : whole.shape[1]] + 0.5
    labels = np.zeros(whole.shape, np.int32)
    for number, shape in shapes.items():
        shapely.prepare(shape)
        labels[shapely.contains_xy(shape, x, y)] = number
    return labels


def collection(path: Path, suffix: str = ".geojson") -> geojson.FeatureCollection:
    folder, opener = drawn(path)
    out = export(folder, "geojson", path / f"objects{suffix}", opener)
    text = gzip.decompress(out.read_bytes()) if suffix.endswith(".gz") else out.read_bytes()
    return geojson.loads(text)


def test_geojson_of_a_slide_draws_the_same_masks(tmp_path: Path) -> None:
    found = collection(tmp_path)
    assert found.is_valid and found["tissuetalk"]["mpp"] == 0.25
    shapes = {}
    for each in found["features"]:
        shapes.setdefault(each["properties"]["mask_id"], {})[each["properties"]["object"]] = (
            shapely.geometry.shape(each["geometry"])
        )
    assert sorted(shapes[NUCLEI]) == IDS and MITOSES not in shapes
    assert np.array_equal(labels_of(shapes[NUCLEI]), in_image(NUCLEUS_LABELS))
    stroma = labels_of({1: shapely.unary_union(list(shapes[STROMA].values()))})
    assert np.array_equal(stroma > 0, in_image(STROMA_MASK))
    first = found["features"][0]["properties"]
    assert first["classification"] == {"name": "nuclei", "color": [255, 212, 0]}
    assert first["objectType"] == "annotation" and first["name"] == "nuclei 1"


def test_geojson_is_packed_for_a_name_in_gz(tmp_path: Path) -> None:
    assert collection(tmp_path, ".geojson.gz") == collection(tmp_path / "plain")


def test_many_objects_are_detections_and_come_in_batches(
    slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tissuetalk.tools.export.geojson.MANY", 3)
    monkeypatch.setattr(mask_layer, "ROWS_PER_BATCH", 2)
    batches = []
    read = mask_layer.SlideLayer._batches
    monkeypatch.setattr(
        mask_layer.SlideLayer,
        "_batches",
        lambda self, *args: (batches.append(batch.num_rows) or batch for batch in read(self, *args)),
    )
    folder, opener = slide
    found = json.loads(export(folder, "geojson", tmp_path / "o.geojson", opener).read_text())
    assert {
        each["properties"]["objectType"]
        for each in found["features"]
        if each["properties"]["mask_id"] == NUCLEI
    } == {"detection"}
    assert sum(batches) == len(IDS) and max(batches) <= 2


def test_csv_of_a_slide_has_the_columns_of_its_objects(slide, tmp_path: Path) -> None:
    folder, opener = slide
    with export(folder, "csv", tmp_path / "objects.csv", opener).open(newline="") as file:
        rows = list(csv.DictReader(file))
    nuclei = {int(row["id"]): float(row["area_px"]) for row in rows if row["mask_id"] == NUCLEI}
    assert nuclei == {number: (number == NUCLEUS_LABELS).sum() for number in IDS}
    (stroma,) = (row for row in rows if row["mask_id"] == STROMA)
    assert float(stroma["area_px"]) == STROMA_MASK.sum() and float(stroma["mean_intensity"]) > 0
    first = next(row for row in rows if row["id"] == "1")
    y, x = np.nonzero(NUCLEUS_LABELS == 1)
    assert float(first["centroid_x"]) == pytest.approx(x.mean() + ORIGIN_XY[0])
    assert float(first["centroid_y"]) == pytest.approx(y.mean() + ORIGIN_XY[1])
    assert float(first["area_um2"]) == nuclei[1] / 16 and float(first["nearest_neighbour_px"]) > 0


def test_parquet_of_a_slide_is_queried_with_duckdb(slide, tmp_path: Path) -> None:
    folder, opener = slide
    out = export(folder, "parquet", tmp_path / "objects.parquet", opener)
    counted = duckdb.sql(
        f"select mask_id, object_type, count(*), sum(area_px) from '{out}' group by all order by 1"
    ).fetchall()
    assert counted == [
        (NUCLEI, "object", len(IDS), (NUCLEUS_LABELS > 0).sum()),
        (STROMA, "region", 1, STROMA_MASK.sum()),
    ]
    rows = duckdb.sql(f"select mask_id, id, geometry, block, model from '{out}'").fetchall()
    shapes = {
        number: shapely.from_wkb(bytes(wkb)) for mask_id, number, wkb, _, _ in rows if mask_id == NUCLEI
    }
    assert np.array_equal(labels_of(shapes), in_image(NUCLEUS_LABELS))
    (stroma,) = (shapely.from_wkb(bytes(row[2])) for row in rows if row[0] == STROMA)
    assert np.array_equal(labels_of({1: stroma}) > 0, in_image(STROMA_MASK))
    assert rows[0][3:] == ("0.5:0_0", "drawn")


def test_ome_zarr_of_a_slide_opens_as_an_image_with_its_labels(
    slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_zarr_export, "LONGEST_IMAGE_PX", 210)
    folder, opener = slide
    out = export(folder, "ome-zarr", tmp_path / "slide.ome.zarr", opener)
    location = ome_zarr.io.parse_url(out)
    image, group, *labels = list(ome_zarr.reader.Reader(location)())
    assert image.data[0].shape == (3, 150, 210)
    assert [Path(str(node.zarr.path)).name for node in (group, *labels)] == [
        "labels",
        NUCLEI,
        STROMA,
        MITOSES,
    ]
    assert np.array_equal(np.asarray(labels[0].data[0]), NUCLEUS_LABELS[::STEP, ::STEP])
    assert np.array_equal(np.asarray(labels[1].data[0]) > 0, STROMA_MASK[::STEP, ::STEP])
    described = json.loads((out / "labels" / NUCLEI / "zarr.json").read_text())["attributes"]["ome"]
    assert described["image-label"]["source"] == {"image": "../../"}
    assert [each["label-value"] for each in described["image-label"]["properties"]] == IDS
    scale, translation = described["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [0.5, 0.5]
    assert translation["translation"] == [21 * 0.25 + 0.125, 37 * 0.25 + 0.125]
    pixels = json.loads((out / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    assert pixels["coordinateTransformations"][0]["scale"] == [1.0, 0.5, 0.5]


# pycocotools decodes into an array type that predates a keyword of NumPy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_of_a_slide_decodes_to_the_same_pixels(
    slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_export, "STRIP_PX", 50)
    folder, opener = slide
    out = export(folder, "coco", tmp_path / "coco.json", opener)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(out))
    nuclei = np.zeros(in_image(NUCLEUS_LABELS).shape, np.int32)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation).astype(bool)
        x, y, width, height = annotation["bbox"]
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1) == (x, y, width, height)
        assert annotation["area"] == mask.sum()
        if annotation["mask_id"] == NUCLEI:
            nuclei[mask] = annotation["object"]
        else:
            assert np.array_equal(mask, in_image(STROMA_MASK))
    assert np.array_equal(nuclei, in_image(NUCLEUS_LABELS))


def test_dicom_segments_of_a_slide_are_its_masks(
    slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tissuetalk.tools.export.dicom.TILE_PX", 64)
    monkeypatch.setattr(dicom_seg, "BLOCK_TILES", 2)
    folder, opener = slide
    segmentation = highdicom.seg.segread(export(folder, "dicom-seg", tmp_path / "seg.dcm", opener))
    pixels = segmentation.get_total_pixel_matrix()
    height, width = HEIGHT // STEP, WIDTH // STEP
    assert np.array_equal(pixels[:height, :width, 0] > 0, NUCLEUS_LABELS[::STEP, ::STEP] > 0)
    assert np.array_equal(pixels[:height, :width, 1] > 0, STROMA_MASK[::STEP, ::STEP])
    assert not pixels[..., 2].any() and not pixels[height:].any() and not pixels[:, width:].any()
    spacing = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert [float(value) for value in spacing] == [0.0005, 0.0005]
    (origin,) = segmentation.TotalPixelMatrixOriginSequence
    assert float(origin.XOffsetInSlideCoordinateSystem) == pytest.approx(-(21 + 0.5) * 0.00025)
    assert float(origin.YOffsetInSlideCoordinateSystem) == pytest.approx(-(37 + 0.5) * 0.00025)


def test_dicom_annotations_of_a_slide_are_its_objects(slide, tmp_path: Path) -> None:
    folder, opener = slide
    annotated = highdicom.ann.annread(export(folder, "dicom-ann", tmp_path / "ann.dcm", opener))
    nuclei, stroma = annotated.get_annotation_groups()
    assert (nuclei.label, stroma.label) == ("nuclei", "stroma")
    _, values, units = nuclei.get_measurements()
    assert units[1].value == "um2"
    shapes: dict[int, shapely.Geometry] = {}
    for (number, _), corners in zip(values, nuclei.get_graphic_data("2D"), strict=True):
        shapes[int(number)] = shapely.union(
            shapes.get(int(number), shapely.Polygon()), shapely.Polygon(corners)
        )
    drawn_again, expected = labels_of(shapes), in_image(NUCLEUS_LABELS)
    holes = (drawn_again == 4) & (expected == 0)
    assert np.array_equal(np.where(holes, 0, drawn_again), expected) and holes.sum() == 100
    assert values[:, 1].sum() == pytest.approx((NUCLEUS_LABELS > 0).sum() / 16)


def test_what_a_format_cannot_hold_is_refused_with_what_to_use(
    slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opener = slide
    before = set(tmp_path.iterdir())
    monkeypatch.setattr(coco_export, "MOST_ANNOTATIONS", 3)
    monkeypatch.setattr(dicom_seg, "MOST_TILE_PX", 100)
    monkeypatch.setattr(dicom_ann, "MOST_COORDINATES", 10)
    for format, instead in (
        ("coco", "parquet or geojson"),
        ("dicom-seg", "ome-zarr"),
        ("dicom-ann", "geojson or parquet"),
    ):
        with pytest.raises(ImageTooLargeError, match=f"export .*{instead}"):
            export(folder, format, tmp_path / "out", opener)
    assert set(tmp_path.iterdir()) == before


def test_a_large_region_is_traced_at_a_coarser_level(
    slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_layer, "MOST_TRACED_PX", 10_000)
    folder, opener = slide
    found = geojson.loads(export(folder, "geojson", tmp_path / "o.geojson", opener).read_text())
    parts = [
        shapely.geometry.shape(f["geometry"])
        for f in found["features"]
        if f["properties"]["mask_id"] == STROMA
    ]
    assert sum(part.area for part in parts) == pytest.approx(STROMA_MASK.sum(), rel=0.2)


@pytest.mark.parametrize("format", FORMATS)
def test_a_slide_without_its_files_is_named_and_nothing_is_left(slide, tmp_path: Path, format: str) -> None:
    folder, opener = slide
    for kind in ("labels", "objects"):
        (folder.path / "slide" / kind).rename(tmp_path / f"{kind}-elsewhere")
    before = set(tmp_path.iterdir())
    with pytest.raises(UnknownMaskError, match="segment the slide again"):
        export(folder, format, tmp_path / "out", opener)
    assert set(tmp_path.iterdir()) == before


def test_a_region_with_an_object_file_is_exported_part_by_part(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), bool)
    mask[4:20, 4:20] = mask[30:60, 10:50] = True
    image = save(tmp_path / "picture.png", np.full((64, 64, 3), 200, np.uint8))
    folder = stored(tmp_path / "result", {"tumour": (mask, None)})
    folder.write_request({"image": str(image)})
    as_slide(folder, np.ones((64, 64), bool), parts=True)
    found = {}
    for format, name in (("geojson", "o.geojson"), ("csv", "o.csv"), ("coco", "o.json")):
        found[format] = export(
            folder, format, tmp_path / name, lambda: open_image(image, name="p")
        ).read_text()
    areas = [
        shapely.geometry.shape(each["geometry"]).area for each in json.loads(found["geojson"])["features"]
    ]
    assert areas == [256, 1200]
    assert [float(row["area_px"]) for row in csv.DictReader(io.StringIO(found["csv"]))] == [256, 1200]
    (annotation,) = json.loads(found["coco"])["annotations"]
    assert annotation["area"] == 1456 and annotation["bbox"] == [4, 4, 46, 56]


def test_annotations_of_nothing_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "picture.png", np.full((64, 64, 3), 255, np.uint8))
    nothing = np.zeros((64, 64), np.int32)
    folder = stored(tmp_path / "result", {"mitoses": (nothing > 0, nothing)})
    folder.write_request({"image": str(tmp_path / "picture.png")})
    as_slide(folder, np.ones((64, 64), bool))
    with pytest.raises(InvalidArgumentError, match="cannot be empty"):
        export(
            folder, "dicom-ann", tmp_path / "a.dcm", lambda: open_image(tmp_path / "picture.png", name="p")
        )
