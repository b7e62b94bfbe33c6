"""GeoJSON, CSV and Parquet, each opened by a library its users use."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import duckdb
import exported as drawn_result
import geojson
import numpy as np
import pyarrow.parquet
import pytest
import shapely
from exported import MITOSES, NUCLEI, STROMA, exported, in_image, nothing_found, ragged, touching
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tissuetalk.models.masks.outlines import polygons
from tissuetalk.tools.export import export


def drawn_again(shapes: dict[int, shapely.Geometry], shape: tuple[int, int]) -> np.ndarray:
    """[H, W] labels: a pixel belongs to the polygon its centre lies in."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    labels = np.zeros(shape, np.int32)
    for number, polygon in shapes.items():
        shapely.prepare(polygon)
        labels[shapely.contains_xy(polygon, x, y)] = number
    return labels


@given(
    seed=st.integers(0, 10**6), share=st.sampled_from([0.2, 0.5, 0.8]), blur=st.sampled_from([0.0, 0.7, 1.5])
)
@settings(max_examples=25)
def test_outlines_of_any_mask_draw_the_same_pixels_again(seed: int, share: float, blur: float) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((30, 40)), blur)
    labels = ndimage.label(noise > np.quantile(noise, share), np.ones((3, 3)))[0].astype(np.int32)
    shapes = dict(polygons(labels, (0, 0)))
    assert np.array_equal(drawn_again(shapes, labels.shape), labels)
    assert all(shape.is_valid and shape.area == (labels == number).sum() for number, shape in shapes.items())


def test_geojson_gives_the_masks_back(tmp_path: Path) -> None:
    collection = geojson.loads(exported(tmp_path, "geojson", "objects.geojson").read_text())
    assert collection.is_valid and isinstance(collection, geojson.FeatureCollection)
    nuclei = {
        each["properties"]["object"]: shapely.geometry.shape(each["geometry"])
        for each in collection["features"]
        if each["properties"]["mask_id"] == NUCLEI
    }
    assert np.array_equal(drawn_again(nuclei, in_image(touching()).shape), in_image(touching()))
    parts = [
        shapely.geometry.shape(each["geometry"])
        for each in collection["features"]
        if each["properties"]["mask_id"] == STROMA
    ]
    stroma = drawn_again({1: shapely.unary_union(parts)}, in_image(ragged()).shape)
    assert np.array_equal(stroma > 0, in_image(ragged()))
    assert (
        collection["tissuetalk"]["mpp"] == 0.25 and "Research use only" in collection["tissuetalk"]["notice"]
    )


def test_a_name_that_ends_in_gz_is_packed(tmp_path: Path) -> None:
    packed = exported(tmp_path, "geojson", "objects.geojson.gz")
    plain = exported(tmp_path / "plain", "geojson", "objects.geojson")
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()


def test_an_unknown_scale_is_said(tmp_path: Path) -> None:
    about = json.loads(exported(tmp_path, "geojson", "o.geojson", mpp=None).read_text())["tissuetalk"]
    assert about["mpp"] is None and about["mpp_source"] == "assumed" and "in pixels" in about["scale"]


def test_csv_has_one_row_per_object(tmp_path: Path) -> None:
    path = exported(tmp_path, "csv", "objects.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    nuclei = {int(row["id"]): int(row["area_px"]) for row in rows if row["mask_id"] == NUCLEI}
    assert nuclei == {number: (touching() == number).sum() for number in (1, 2, 4, 5, 6, 7)}
    (stroma,) = (row for row in rows if row["mask_id"] == STROMA)
    assert int(stroma["area_px"]) == ragged().sum() and stroma["name"] == "stroma"
    assert float(stroma["area_um2"]) == pytest.approx(ragged().sum() * 0.0625)


def test_parquet_is_queried_with_duckdb(tmp_path: Path) -> None:
    path = exported(tmp_path, "parquet", "objects.parquet")
    counted = duckdb.sql(
        f"select mask_id, count(*), sum(area_px) from '{path}' group by 1 order by 1"
    ).fetchall()
    assert counted == [(NUCLEI, 6, (touching() > 0).sum()), (STROMA, 1, ragged().sum())]
    ((stain, model),) = duckdb.sql(f"select avg(mean_hematoxylin_od), min(model) from '{path}'").fetchall()
    assert stain is not None and model == "drawn"


def test_parquet_outlines_are_the_masks(tmp_path: Path) -> None:
    table = pyarrow.parquet.read_table(exported(tmp_path, "parquet", "objects.parquet"))
    rows = table.to_pylist()
    shapes = {row["id"]: shapely.from_wkb(row["geometry"]) for row in rows if row["mask_id"] == NUCLEI}
    assert np.array_equal(drawn_again(shapes, in_image(touching()).shape), in_image(touching()))
    assert all(shapely.from_wkb(row["geometry"]).area == row["area_px"] for row in rows)
    bounds = [shapely.from_wkb(row["geometry"]).bounds for row in rows]
    assert bounds == [(row["bbox_x0"], row["bbox_y0"], row["bbox_x1"], row["bbox_y1"]) for row in rows]
    assert [row["object_type"] for row in rows] == ["object"] * 6 + ["region"]
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"]["encoding"] == "WKB" and MITOSES not in table["mask_id"].to_pylist()


def test_parquet_has_no_micrometres_without_a_scale(tmp_path: Path) -> None:
    table = pyarrow.parquet.read_table(exported(tmp_path, "parquet", "objects.parquet", mpp=None))
    assert not [name for name in table.column_names if name.endswith(("_um", "_um2"))]
    assert set(table["mpp"].to_pylist()) == {None} and set(table["mpp_source"].to_pylist()) == {"assumed"}


def test_nothing_found_is_a_valid_file_without_objects(tmp_path: Path) -> None:
    folder, opener = nothing_found(tmp_path)
    assert (
        geojson.loads(export(folder, "geojson", tmp_path / "a.geojson", opener).read_text())["features"] == []
    )
    header, *rows = export(folder, "csv", tmp_path / "a.csv", opener).read_text().splitlines()
    assert header.startswith("mask_id,name,id,") and rows == []
    path = export(folder, "parquet", tmp_path / "a.parquet", opener)
    assert duckdb.sql(f"select count(*), sum(area_px) from '{path}'").fetchall() == [(0, None)]


def test_the_picture_used_here_is_not_trivial() -> None:
    labels, parts = touching(), ndimage.label(ragged())[1]
    assert set(np.unique(labels)) == {0, 1, 2, 4, 5, 6, 7} and parts > 50
    assert drawn_result.ORIGIN_XY != (0, 0)
