"""Polygons along pixel edges: their area is that of the pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from drawn import rectangles, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from tissuetalk.models.masks.outlines import polygons
from tissuetalk.tools.export import geojson
from tissuetalk.tools.export.links import write_all_outlines, write_outlines
from tissuetalk.tools.masks.layer import layers_of

EMPTY = np.zeros((40, 60), np.int32)


def shapes(labels: np.ndarray, origin_xy: tuple[int, int] = (0, 0)) -> list[shapely.Geometry]:
    return [shape for _, shape in polygons(labels, origin_xy)]


corners = st.tuples(st.integers(0, 59), st.integers(0, 39), st.integers(1, 60), st.integers(1, 40)).filter(
    lambda box: box[0] < box[2] and box[1] < box[3]
)


@given(box=corners, x=st.integers(0, 10_000), y=st.integers(0, 10_000))
@settings(max_examples=150)
def test_a_rectangle_keeps_its_area_and_place(box: tuple[int, int, int, int], x: int, y: int) -> None:
    (shape,) = shapes(rectangles((40, 60), [box]), (x, y))
    assert shape.bounds == (x + box[0], y + box[1], x + box[2], y + box[3])
    assert shape.area == pytest.approx((box[2] - box[0]) * (box[3] - box[1]), abs=1e-6)


def test_a_hole_stays_a_hole() -> None:
    labels = rectangles((40, 60), [(5, 5, 35, 35)])
    labels[15:25, 10:20] = 0
    (shape,) = shapes(labels)
    assert shape.area == 30 * 30 - 10 * 10
    assert len(shape.interiors) == 1 and not shape.contains(shapely.Point(15, 20))


def test_an_l_shape_keeps_its_area() -> None:
    labels = EMPTY.copy()
    labels[5:30, 5:10] = labels[25:30, 5:40] = 1
    (shape,) = shapes(labels)
    assert shape.area == (labels > 0).sum()


def test_thin_and_single_pixel_objects_have_an_area() -> None:
    labels = rectangles((40, 60), [(3, 3, 4, 4), (10, 10, 30, 11), (50, 5, 51, 30)])
    assert [round(shape.area) for shape in shapes(labels)] == [1, 20, 25]


def test_a_disc_keeps_its_area() -> None:
    y, x = np.mgrid[:100, :100]
    labels = ((x - 50) ** 2 + (y - 50) ** 2 <= 40.5**2).astype(np.int32)
    (shape,) = shapes(labels)
    assert shape.is_valid and shape.area == labels.sum()


def test_touching_objects_are_outlined_apart_and_numbers_may_have_gaps() -> None:
    labels = np.zeros((10, 20), np.int32)
    labels[2:8, 2:10], labels[2:8, 10:18] = 2, 7
    numbered = dict(polygons(labels, (0, 0)))
    assert list(numbered) == [2, 7]
    assert numbered[2].area == 48 and numbered[2].intersection(numbered[7]).area == 0


def features(path: Path, labels: np.ndarray, *, objects: bool = True, **more) -> list[dict]:
    folder = stored(path / "result", {"nuclei": (labels > 0, labels if objects else None)}, **more)
    (layer,) = layers_of(folder, folder.result().masks)
    return [json.loads(text) for text in geojson.features(layer)]


def test_a_feature_says_what_qupath_needs(tmp_path: Path) -> None:
    labels = rectangles((40, 60), [(10, 10, 20, 30)])
    (feature,) = features(tmp_path, labels, origin_xy=(100, 200))
    assert feature["type"] == "Feature" and feature["geometry"]["type"] == "Polygon"
    assert feature["geometry"]["coordinates"][0][0] == feature["geometry"]["coordinates"][0][-1]
    properties = feature["properties"]
    assert properties["objectType"] == "annotation"
    assert properties["classification"] == {"name": "nuclei", "color": [255, 212, 0]}
    assert shapely.from_geojson(json.dumps(feature["geometry"])).bounds == (110, 210, 120, 230)


def test_many_objects_become_detections(tmp_path: Path) -> None:
    boxes = [(x, y, x + 2, y + 2) for y in range(0, 40, 3) for x in range(0, 60, 3)]
    made = features(tmp_path, rectangles((40, 60), boxes))
    assert len(made) == len(boxes) >= geojson.MANY
    assert {feature["properties"]["objectType"] for feature in made} == {"detection"}


def test_a_region_has_one_feature_per_connected_part(tmp_path: Path) -> None:
    labels = rectangles((40, 60), [(0, 0, 10, 10), (20, 20, 40, 40)])
    made = features(tmp_path, labels, objects=False)
    assert [feature["properties"]["object"] for feature in made] == [1, 2]


def test_the_file_of_a_result_sums_to_the_pixels_of_its_mask(tmp_path: Path) -> None:
    labels = rectangles((40, 60), [(0, 0, 10, 10), (20, 20, 40, 40), (50, 3, 60, 4)])
    folder = stored(tmp_path / "result", {"nuclei": (labels > 0, labels)}, origin_xy=(7, 9))
    (mask,) = folder.result().masks
    write_outlines(folder)
    write_all_outlines(folder, folder.path / "objects.geojson")
    collection = json.loads((folder.path / mask.resources.geojson).read_text())
    areas = [shapely.from_geojson(json.dumps(each["geometry"])).area for each in collection["features"]]
    assert areas == [100, 400, 10] and sum(areas) == mask.area_px
    assert json.loads((folder.path / "objects.geojson").read_text()) == collection
