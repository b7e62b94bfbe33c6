"""Numbers on masks whose geometry is known exactly."""

from __future__ import annotations

import csv
import io
import math
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from drawn import HAEMATOXYLIN, discs, rectangles, save, stored

from tissuetalk.models.errors import InvalidArgumentError, UnknownMaskError
from tissuetalk.models.images import open_image
from tissuetalk.server.resources import tool_description
from tissuetalk.tools.export import FORMATS
from tissuetalk.tools.export.links import resource
from tissuetalk.tools.measure import measure
from tissuetalk.tools.measure.metrics import BY_DEFAULT, METRICS
from tissuetalk.tools.storage.result_folder import ResultFolder

THREE = [(0, 0, 10, 10), (30, 0, 50, 10), (30, 40, 40, 70)]
"""Areas 100, 200 and 300 px; centroids (4.5, 4.5), (39.5, 4.5) and (34.5, 54.5)."""
SHAPE = (80, 100)


def values(
    folder: ResultFolder, *metrics: str, mask_ids: list[str] | None = None
) -> dict[str, tuple[float | None, str]]:
    result = measure.measure_folder(
        folder, metrics=metrics, mask_ids=mask_ids, open_image=lambda: pytest.fail("opened")
    )
    return {row.metric: (row.value, row.unit) for row in result.measurements}


@pytest.fixture
def three(tmp_path: Path) -> ResultFolder:
    labels = rectangles(SHAPE, THREE)
    return stored(tmp_path / "result", {"nuclei": (labels > 0, labels)}, mpp=0.5)


def test_area_fraction_count_and_density_are_arithmetic(three: ResultFolder) -> None:
    found = values(three, "area", "area_fraction", "count", "density")
    assert found["area"] == (600 * 0.25, "µm²")
    assert found["area_fraction"] == (600 / 8000, "of the region")
    assert found["count"] == (3, "objects")
    value, unit = found["density"]
    assert value == pytest.approx(3 / (8000 * 0.25 / 1e6)) and unit == "per mm²"


def test_object_sizes_are_arithmetic(three: ResultFolder) -> None:
    found = values(three, "size")
    assert found["size.mean"] == (50.0, "µm²")
    assert found["size.median"] == (50.0, "µm²")
    assert found["size.sd"][0] == pytest.approx(np.std([25, 50, 75]))
    diameters = [math.sqrt(4 * area / math.pi) * 0.5 for area in (100, 200, 300)]
    assert found["size.mean_diameter"] == (pytest.approx(np.mean(diameters)), "µm")


def test_nearest_neighbours_are_arithmetic(three: ResultFolder) -> None:
    second_third = math.hypot(5, 50)
    found = values(three, "distance")
    assert found["distance.mean"] == (pytest.approx((35 + 35 + second_third) / 3 * 0.5), "µm")
    assert found["distance.median"] == (pytest.approx(35 * 0.5), "µm")


def test_the_four_characteristics_follow_their_definitions(tmp_path: Path) -> None:
    """A 20 x 30 rectangle has 96 boundary pixels; the 5 x 7 one has 35 px, one too few to count."""
    labels = rectangles(SHAPE, [(10, 10, 30, 40), (60, 10, 80, 40), (90, 70, 95, 77)])
    folder = stored(tmp_path / "result", {"gland": (labels > 0, None)}, mpp=0.25)
    found = values(folder, "irregularity", "instance_count", "instance_ratio", "instance_dispersion")
    boundary, area = 96 + 96 + 20, 600 + 600 + 35
    assert found["irregularity"][0] == pytest.approx(1 - 4 * math.pi * area / boundary**2)
    assert found["instance_count"] == (2, "parts")
    assert found["instance_ratio"] == (pytest.approx(600 / 8000), "of the region")
    assert found["instance_dispersion"] == (pytest.approx(50 * 0.25), "µm")


def test_parts_that_touch_at_a_corner_are_one(tmp_path: Path) -> None:
    labels = rectangles(SHAPE, [(10, 10, 20, 20), (20, 20, 30, 30)])
    folder = stored(tmp_path / "result", {"gland": (labels > 0, None)})
    assert values(folder, "instance_count")["instance_count"] == (1, "parts")


def test_without_a_scale_everything_is_in_pixels(tmp_path: Path) -> None:
    labels = rectangles(SHAPE, THREE)
    folder = stored(tmp_path / "result", {"nuclei": (labels > 0, labels)}, mpp=None)
    found = values(folder, "area", "density", "size", "distance", "instance_dispersion")
    assert found["area"] == (600, "px") and found["size.mean"] == (200, "px")
    assert found["density"] == (pytest.approx(3 / 8000 * 1e6), "per 10⁶ px")
    assert found["distance.median"] == (pytest.approx(35), "px")
    assert found["instance_dispersion"][1] == "px"


def test_a_region_has_no_objects_to_count(tmp_path: Path) -> None:
    mask = rectangles(SHAPE, THREE) > 0
    folder = stored(tmp_path / "result", {"stroma": (mask, None)})
    found = values(folder, "area", "area_fraction", "irregularity")
    assert list(found) == ["area", "area_fraction", "irregularity", "irregularity.unclipped"]
    for metric in ("count", "density", "size", "distance", "hotspot"):
        with pytest.raises(
            InvalidArgumentError, match=f"{metric} needs separate objects, .* only regions: stroma"
        ):
            values(folder, metric)
    assert "count" not in values(folder), "by default what cannot be had is left out"


def test_ratios_of_two_masks(tmp_path: Path) -> None:
    many, few = rectangles(SHAPE, THREE), rectangles(SHAPE, THREE[:1])
    folder = stored(tmp_path / "result", {"tumour": (many > 0, many), "lymphocytes": (few > 0, few)})
    found = values(folder, "ratio")
    assert found == {"ratio.area": (6.0, ""), "ratio.count": (3.0, "")}
    swapped = [mask.mask_id for mask in reversed(folder.result().masks)]
    assert values(folder, "ratio", mask_ids=swapped)["ratio.count"] == (pytest.approx(1 / 3), "")


def test_a_ratio_to_nothing_has_no_value_and_one_mask_has_no_ratio(tmp_path: Path) -> None:
    many, none = rectangles(SHAPE, THREE), np.zeros(SHAPE, np.int32)
    folder = stored(tmp_path / "result", {"tumour": (many > 0, many), "mitoses": (none > 0, none)})
    assert values(folder, "ratio") == {"ratio.area": (None, ""), "ratio.count": (None, "")}
    with pytest.raises(InvalidArgumentError, match="two masks"):
        values(folder, "ratio", mask_ids=[folder.result().masks[0].mask_id])


def test_an_empty_mask_measures_as_empty_and_not_as_an_error(tmp_path: Path) -> None:
    none = np.zeros(SHAPE, np.int32)
    folder = stored(tmp_path / "result", {"nuclei": (none > 0, none)})
    found = values(folder, *BY_DEFAULT, "distance")
    assert found["area"][0] == 0 and found["count"][0] == 0 and found["density"][0] == 0
    assert found["size.mean"][0] is None and found["distance.mean"][0] is None


def test_every_metric_names_its_rule_and_the_text_says_the_same_numbers(three: ResultFolder) -> None:
    result = measure.measure_folder(
        three, metrics=None, mask_ids=None, open_image=lambda: pytest.fail("opened")
    )
    text = measure.as_text(result)
    for row in result.measurements:
        assert row.rule
        assert (
            f"{row.metric} {'n/a' if row.value is None else f'{row.value:.4g}'} {row.unit}".rstrip() in text
        )


def test_unknown_metrics_and_masks_are_refused_with_what_there_is(three: ResultFolder) -> None:
    with pytest.raises(InvalidArgumentError, match="instance_dispersion"):
        values(three, "beauty")
    with pytest.raises(UnknownMaskError, match=three.result().masks[0].mask_id):
        values(three, "area", mask_ids=["msk_" + "f" * 32])


def test_staining_is_read_from_the_pixels_under_the_mask(tmp_path: Path) -> None:
    picture = discs(100, 80, [(50, 40)], radius_px=20.5)
    path = save(tmp_path / "picture.png", picture)
    labels = (picture == HAEMATOXYLIN).all(axis=2).astype(np.int32)
    folder = stored(tmp_path / "result", {"nuclei": (labels > 0, labels)})
    result = measure.measure_folder(
        folder, metrics=["intensity"], mask_ids=None, open_image=lambda: open_image(path, name="picture.png")
    )
    found = {row.metric: row.value for row in result.measurements}
    red, green, blue = HAEMATOXYLIN
    assert found["intensity.mean_intensity"] == pytest.approx(
        0.299 * red + 0.587 * green + 0.114 * blue, abs=0.01
    )
    assert found["intensity.mean_hematoxylin_od"] > 0.3


def test_a_table_is_in_pixels_of_the_source_image(tmp_path: Path) -> None:
    path = save(tmp_path / "picture.png", np.full((180, 300, 3), 200, np.uint8))
    labels = rectangles(SHAPE, THREE)
    folder = stored(tmp_path / "result", {"nuclei": (labels > 0, labels)}, origin_xy=(200, 100), mpp=0.5)
    (mask,) = folder.result().masks
    text = resource(folder, mask.mask_id, "tables", lambda: open_image(path, name="picture.png")).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row["centroid_x"]) for row in rows] == [204.5, 239.5, 234.5]
    assert [float(row["centroid_y"]) for row in rows] == [104.5, 104.5, 154.5]
    assert [int(row["bbox_x1"]) for row in rows] == [210, 250, 240]
    assert [float(row["area_um2"]) for row in rows] == [25, 50, 75]
    assert [row["touches_border"] for row in rows] == ["True", "True", "False"]
    assert (folder.path / mask.resources.table).read_text("utf-8") == text


def test_every_metric_and_format_of_the_tables_exists_and_is_documented() -> None:
    docs = "".join(
        (Path(__file__).parents[1] / "docs" / name).read_text() for name in ("results.md", "slides.md")
    )
    for name, metric in METRICS.items():
        module, _, function = metric.function.partition(":")
        assert (
            callable(getattr(import_module(f"tissuetalk.tools.measure.{module}"), function)) and metric.rule
        )
        assert f"`{name}`" in docs
    for name, entry in FORMATS.items():
        assert callable(entry.write) and f"`{name}`" in docs
    offered = tool_description("measure") + tool_description("library")
    assert all(f"{name} (" in offered for name in (*METRICS, *FORMATS)) and "{" not in offered
