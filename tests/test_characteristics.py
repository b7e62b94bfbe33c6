"""Shapes whose area, outline, count and distances are arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from drawn import save
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.images import Box, open_image
from tissuetalk.models.masks.characteristics import (
    components,
    farthest_pair,
    largest,
    nearest_neighbour_px,
    survey,
    survey_of,
)
from tissuetalk.models.masks.object_table import (
    RULES,
    column_names,
    geometry,
    object_table,
    stain_od,
    staining,
)

Mask = NDArray[np.bool_]


def irregularity(mask: Mask) -> tuple[float, float]:
    return survey_of(mask).irregularity


def instance_count(mask: Mask) -> int:
    return len(survey_of(mask).part_areas)


def instance_ratio(mask: Mask) -> float:
    return survey_of(mask).mean_part_area / mask.size


def instance_dispersion(mask: Mask) -> float:
    return survey_of(mask).dispersion


def blank(height: int = 100, width: int = 100) -> Mask:
    return np.zeros((height, width), dtype=np.bool_)


def disc(radius: float, side: int = 201) -> Mask:
    y, x = np.mgrid[:side, :side]
    middle = side // 2
    return np.asarray((x - middle) ** 2 + (y - middle) ** 2 <= radius**2)


def star(outer: float, inner: float, points: int = 5, side: int = 201) -> Mask:
    y, x = np.mgrid[:side, :side] - side // 2
    wave = np.abs(((np.arctan2(y, x) * points / math.pi) % 2.0) - 1.0)
    return np.asarray(np.hypot(x, y) <= inner + (outer - inner) * wave)


def as_labels(mask: Mask) -> NDArray[np.int32]:
    return mask.astype(np.int32)


def whole(labels: NDArray[np.int32]) -> Box:
    return Box.whole(labels.shape[1], labels.shape[0])


def test_boundary_of_a_rectangle_is_its_outer_ring_of_pixels() -> None:
    mask = blank()
    mask[10:30, 20:70] = True
    assert survey_of(mask).boundary_px == 2 * (20 + 50) - 4


def test_irregularity_of_a_rectangle_is_arithmetic() -> None:
    mask = blank()
    mask[10:30, 20:70] = True
    clipped, raw = irregularity(mask)
    assert raw == pytest.approx(1 - 4 * math.pi * 1000 / 136**2)
    assert clipped == raw


def test_a_shape_more_compact_than_its_pixel_count_clips_to_zero() -> None:
    mask = blank()
    mask[10:20, 10:20] = True  # 100 px, 36 of them on the boundary
    clipped, raw = irregularity(mask)
    assert raw == pytest.approx(1 - 400 * math.pi / 36**2)
    assert raw > 0
    clipped, raw = irregularity(disc(40))
    assert raw < 0
    assert clipped == 0.0


def test_a_disc_is_less_irregular_than_a_star() -> None:
    assert irregularity(disc(60))[1] < irregularity(star(90, 25))[1]


def test_the_image_edge_counts_as_outside() -> None:
    assert survey_of(np.ones((5, 5), dtype=np.bool_)).boundary_px == 16


def test_an_empty_mask_has_characteristics_of_zero() -> None:
    assert irregularity(blank()) == (0.0, 0.0)
    assert instance_count(blank()) == 0
    assert instance_ratio(blank()) == 0.0
    assert instance_dispersion(blank()) == 0.0


def test_thirty_five_pixels_are_ignored_and_thirty_six_are_counted() -> None:
    mask = blank()
    mask[5:10, 5:12] = True
    assert instance_count(mask) == 0
    mask[50:56, 50:56] = True
    assert instance_count(mask) == 1
    assert instance_ratio(mask) == pytest.approx(36 / 10_000)
    assert instance_dispersion(mask) == 0.0


def test_squares_that_touch_by_a_corner_are_one_instance() -> None:
    mask = blank()
    mask[0:10, 0:10] = True
    mask[10:20, 10:20] = True
    assert instance_count(mask) == 1


def test_ratio_and_dispersion_of_three_squares_are_arithmetic() -> None:
    mask = blank()
    for x, y in ((0, 0), (30, 40), (80, 60)):
        mask[y : y + 10, x : x + 10] = True
    assert instance_count(mask) == 3
    assert instance_ratio(mask) == pytest.approx(100 / 10_000)
    assert instance_dispersion(mask) == pytest.approx(100.0)  # (0, 0) to (80, 60)


@pytest.mark.parametrize("side", [1, 2, 3, 7, 16, 40])
def test_a_mask_read_in_windows_has_the_same_characteristics(side: int) -> None:
    noise = np.random.default_rng(side).random((37, 53))
    for share in (0.3, 0.55, 0.8):
        mask = noise < share
        found = survey(lambda *at, mask=mask: mask[at], mask.shape, side=side, min_px=4)
        padded = np.pad(mask, 1)
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        assert found.area_px == mask.sum() and found.boundary_px == (mask & ~inside).sum()
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:]
        centres = np.array(ndimage.center_of_mass(mask, labels, range(1, count + 1)))[sizes >= 4][:, ::-1]
        assert sorted(found.part_areas) == sorted(sizes[sizes >= 4])
        assert np.allclose(sorted(found.part_centres.tolist()), sorted(centres.tolist()))


def test_components_are_numbered_in_reading_order_without_gaps() -> None:
    mask = blank()
    mask[0:10, 0:10] = True
    mask[0:2, 40:42] = True
    mask[50:60, 50:60] = True
    labels = components(mask)
    assert sorted(np.unique(labels)) == [0, 1, 2]
    assert labels[0, 0] == 1
    assert labels[0, 40] == 0
    assert labels[55, 55] == 2


def test_farthest_pair_agrees_with_all_pairs_when_there_are_many_points() -> None:
    points = np.random.default_rng(3).uniform(0, 1000, size=(300, 2))
    gaps = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    assert farthest_pair(points) == pytest.approx(gaps.max())
    line = np.stack([np.arange(100.0), np.zeros(100)], axis=1)
    assert farthest_pair(line) == pytest.approx(99.0)


def test_nearest_neighbours_are_arithmetic() -> None:
    points = np.array([[0.0, 0.0], [3.0, 4.0], [100.0, 0.0]])
    assert nearest_neighbour_px(points) == pytest.approx([5.0, 5.0, math.hypot(97, 4)])
    assert np.isnan(nearest_neighbour_px(points[:1])).all()


def test_row_of_a_rectangle_is_arithmetic() -> None:
    labels = np.zeros((200, 300), dtype=np.int32)
    labels[50:90, 100:200] = 7
    row = {name: column[0] for name, column in object_table(labels, whole(labels), mpp=0.5).items()}
    assert row["id"] == 7
    assert (row["centroid_x"], row["centroid_y"]) == (149.5, 69.5)
    assert [row[f"bbox_{edge}"] for edge in ("x0", "y0", "x1", "y1")] == [100, 50, 200, 90]
    assert row["area_px"] == 4000
    assert row["area_um2"] == 1000.0
    assert row["perimeter_px"] == pytest.approx(280, rel=0.03)
    assert row["perimeter_um"] == pytest.approx(row["perimeter_px"] / 2)
    assert row["major_axis_px"] == pytest.approx(4 * math.sqrt(100**2 / 12))
    assert row["minor_axis_px"] == pytest.approx(4 * math.sqrt(40**2 / 12))
    assert row["solidity"] == 1.0
    assert row["feret_max_px"] == pytest.approx(math.hypot(100, 40))
    assert row["feret_max_um"] == pytest.approx(math.hypot(50, 20))
    assert row["orientation_deg"] == pytest.approx(0.0)
    assert not row["touches_border"]
    assert math.isnan(row["nearest_neighbour_px"])


@pytest.mark.parametrize("radius", [6.5, 10.5, 20.5, 60.5])
def test_row_of_a_disc_is_close_to_the_true_circle(radius: float) -> None:
    row = {
        name: float(column[0])
        for name, column in geometry(as_labels(disc(radius)), Box.whole(201, 201)).items()
    }
    assert row["perimeter_px"] == pytest.approx(2 * math.pi * radius, rel=0.05)
    assert row["equivalent_diameter_px"] == pytest.approx(2 * radius, rel=0.02)
    assert row["major_axis_px"] == pytest.approx(2 * radius, rel=0.02)
    assert row["circularity"] > 0.93
    assert row["solidity"] == pytest.approx(1.0, abs=0.02)
    assert row["eccentricity"] < 0.1


def test_a_line_rising_on_screen_is_oriented_at_forty_five_degrees() -> None:
    labels = np.zeros((60, 60), dtype=np.int32)
    for step in range(40):
        labels[50 - step, 10 + step : 12 + step] = 1
    assert geometry(labels, whole(labels))["orientation_deg"][0] == pytest.approx(45.0, abs=1.5)
    assert geometry(np.ascontiguousarray(labels[:, ::-1]), whole(labels))["orientation_deg"][
        0
    ] == pytest.approx(135.0, abs=1.5)


def test_a_ring_has_two_outlines_and_little_solidity() -> None:
    ring = disc(60) & ~disc(40)
    row = {name: float(column[0]) for name, column in geometry(as_labels(ring), Box.whole(201, 201)).items()}
    assert row["perimeter_px"] == pytest.approx(2 * math.pi * (60 + 40), rel=0.04)
    assert row["solidity"] == pytest.approx(1 - (40 / 60) ** 2, abs=0.02)


def test_touching_objects_with_different_labels_are_measured_apart() -> None:
    labels = np.zeros((40, 60), dtype=np.int32)
    labels[10:20, 10:20] = 1
    labels[10:20, 20:40] = 2
    table = geometry(labels, whole(labels))
    assert table["area_px"].tolist() == [100, 200]
    assert table["nearest_neighbour_px"].tolist() == [15.0, 15.0]


def test_one_pixel_objects_and_border_objects_are_measured() -> None:
    labels = np.zeros((10, 10), dtype=np.int32)
    labels[0, 3] = 1
    labels[5, 5] = 2
    table = geometry(labels, whole(labels))
    assert table["touches_border"].tolist() == [True, False]
    assert table["circularity"].tolist() == [1.0, 1.0]
    assert table["feret_max_px"] == pytest.approx([math.sqrt(2)] * 2)


def test_no_objects_give_the_same_columns_with_no_rows(tmp_path: Path) -> None:
    labels = np.zeros((10, 10), dtype=np.int32)
    with open_image(save(tmp_path / "a.png", np.zeros((10, 10, 3), np.uint8)), name="a.png") as source:
        empty = object_table(labels, whole(labels), mpp=0.25, source=source)
        labels[2:8, 2:8] = 1
        full = object_table(labels, whole(labels), mpp=0.25, source=source)
    assert list(empty) == list(full) == column_names(0.25)
    assert all(len(column) == 0 for column in empty.values())
    in_pixels = {name.replace("_um2", "_px").replace("_um", "_px") for name in full}
    assert in_pixels == set(RULES), "every column has a rule"


@pytest.mark.parametrize("step", [1.0, 2.0, 2.3, 4.0])
def test_an_object_has_the_same_numbers_in_any_box(tmp_path: Path, step: float) -> None:
    random = np.random.default_rng(5)
    labels = np.zeros((200, 240), np.int32)
    for number in range(1, 31):
        y, x = random.integers(40, 150), random.integers(40, 190)
        labels[y : y + random.integers(1, 14), x : x + random.integers(1, 14)] = number
    pixels = random.integers(0, 256, (200, 240, 3)).astype(np.uint8)
    part = Box(31, 33, 229, 187)
    with open_image(save(tmp_path / "a.png", pixels), name="a.png") as source:
        whole_table = object_table(labels, whole(labels), mpp=0.3, source=source, step=step)
        part_table = object_table(labels[part.inside(whole(labels))], part, mpp=0.3, source=source, step=step)
    for name, column in whole_table.items():
        assert np.array_equal(column, part_table[name]), name
    stained = (pixels @ np.array([0.299, 0.587, 0.114])).mean()
    assert whole_table["mean_intensity"].mean() == pytest.approx(stained, rel=0.1)


def test_intensity_and_texture_of_a_checkerboard_are_arithmetic() -> None:
    rgb = np.zeros((20, 40, 3), dtype=np.uint8)
    rgb[:, :20] = 128  # flat
    rgb[:, 20:][(np.indices((20, 20)).sum(axis=0) % 2).astype(bool)] = 255
    labels = np.zeros((20, 40), dtype=np.int32)
    labels[:, :20] = 1
    labels[:, 20:] = 2
    table = staining(labels, rgb, np.array([1, 2], np.int32))
    assert table["mean_intensity"] == pytest.approx([128.0, 127.5], abs=1e-3)
    assert table["sd_intensity"] == pytest.approx([0.0, 127.5], abs=1e-3)
    assert table["texture_entropy_bits"] == pytest.approx([0.0, 1.0])
    assert table["texture_contrast"] == pytest.approx([0.0, 31.0**2])
    assert table["texture_homogeneity"] == pytest.approx([1.0, 1 / (1 + 31.0**2)])


def test_pure_stains_are_separated() -> None:
    hematoxylin = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
    eosin = np.array([0.07, 0.99, 0.11]) / np.linalg.norm([0.07, 0.99, 0.11])
    pixels = np.round(256 * 10 ** -np.stack([hematoxylin * 0.8, eosin * 0.5, hematoxylin * 0]) - 1)
    densities = stain_od(pixels.astype(np.uint8))
    assert densities == pytest.approx(np.array([[0.8, 0.0], [0.0, 0.5], [0.0, 0.0]]), abs=0.02)


@pytest.mark.parametrize("size", [1, 199, 200, 201, 12_799, 12_800, 300_001])
@pytest.mark.parametrize("kinds", [3, 1_000_000])
def test_the_largest_values_are_those_that_sorting_all_of_them_gives(size: int, kinds: int) -> None:
    values = np.random.default_rng(size).integers(0, kinds, size).astype(np.float32)
    assert np.array_equal(np.sort(largest(values, 200)), np.sort(values)[-200:])


def test_the_largest_values_are_found_where_the_sample_sees_none_of_them() -> None:
    values = np.zeros(64_000, np.float32)
    values[1:200:2] = np.arange(100)
    assert np.array_equal(np.sort(largest(values, 50)), np.arange(50, 100))
