"""Measures of a slide: the same numbers as of the same objects in one picture, and those only a slide has."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from drawn import HAEMATOXYLIN, save, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from slide_folder import STEP, as_slide, coarse

from tissuetalk.models.errors import InvalidArgumentError, UnknownMaskError, UnknownResultError
from tissuetalk.models.images import open_image
from tissuetalk.prompts.measures import place_measures_in
from tissuetalk.tools.answers.results import MeasureResult, NotSegmented
from tissuetalk.tools.export import FORMATS, export
from tissuetalk.tools.masks import layer as mask_layer
from tissuetalk.tools.masks.rasters import Raster
from tissuetalk.tools.masks.stored import open_masks
from tissuetalk.tools.measure import hotspot, measure
from tissuetalk.tools.measure.metrics import METRICS
from tissuetalk.tools.storage.result_folder import ResultFolder

HEIGHT, WIDTH, ORIGIN_XY = 600, 800, (40, 24)
SIDE = 400
"""Tissue is the left part of the region, so wide; the tumour the upper half of it, the stroma the lower one."""


def nuclei(count: int = 60, seed: int = 0) -> np.ndarray:
    """Labels of small squares of even size on the tissue, at even places: exact at half the scale."""
    random, labels = np.random.default_rng(seed), np.zeros((HEIGHT, WIDTH), np.int32)
    cells = [(x, y) for x in range(0, SIDE, 20) for y in range(0, HEIGHT, 20)]
    for number, at in enumerate(random.permutation(len(cells))[:count], start=1):
        x, y = cells[at]
        side = 2 * int(random.integers(2, 8))
        labels[y : y + side, x : x + side] = number
    return labels


def pictures(
    path: Path, mpp: float | None = 2.0, count: int = 60, *, parts: bool = False, step: int = STEP
) -> tuple[ResultFolder, ResultFolder, Path]:
    """The same result as one picture and as a slide, and the image of both."""
    labels = coarse(nuclei(count))
    rgb = np.full((ORIGIN_XY[1] + HEIGHT, ORIGIN_XY[0] + WIDTH, 3), 255, np.uint8)
    tissue = np.zeros((HEIGHT, WIDTH), bool)
    tissue[:, :SIDE] = True
    inside = rgb[ORIGIN_XY[1] :, ORIGIN_XY[0] :]
    inside[tissue] = (215, 150, 190)
    inside[labels > 0] = HAEMATOXYLIN
    image = save(path / "picture.png", rgb)
    tumour, stroma = tissue.copy(), tissue.copy()
    tumour[HEIGHT // 2 :], stroma[: HEIGHT // 2] = False, False
    masks = {"lymphocytes": (labels > 0, labels), "tumour": (tumour, None), "stroma": (stroma, None)}
    folders = [stored(path / name, masks, mpp=mpp, origin_xy=ORIGIN_XY) for name in ("ordinary", "slide")]
    for folder in folders:
        folder.write_request({"image": str(image)})
    return folders[0], as_slide(folders[1], tissue, inside, parts=parts, step=step), image


def measured(
    folder: ResultFolder, image: Path, *metrics: str, mask_ids: list[str] | None = None
) -> MeasureResult:
    return measure.measure_folder(
        folder, metrics=metrics, mask_ids=mask_ids, open_image=lambda: open_image(image, name="picture.png")
    )


def rows(result: MeasureResult) -> dict[tuple[str, str], float | None]:
    return {(row.name, row.metric): row.value for row in result.measurements}


NEEDS_STORED_TISSUE = ("area_fraction.tissue", "density.tissue")
"""Come along on a slide, whose run has told tissue from glass; of a picture on request, because that opens the image."""


@pytest.mark.parametrize("mpp", [2.0, None])
def test_a_slide_measures_like_a_picture_of_the_same_objects(tmp_path: Path, mpp: float | None) -> None:
    """Every metric of the table, with labels of half the scale on the slide."""
    ordinary, slide, image = pictures(tmp_path, mpp)
    metrics = [name for name, metric in METRICS.items() if mpp or "scale" not in metric.needs]
    expected, found = (measured(folder, image, *metrics) for folder in (ordinary, slide))
    here = {key: value for key, value in rows(found).items() if key[1] not in NEEDS_STORED_TISSUE}
    there = {key: value for key, value in rows(expected).items() if key[1] not in NEEDS_STORED_TISSUE}
    assert set(here) == set(there) and {metric.partition(".")[0] for _, metric in here} >= set(metrics) - {
        "tissue"
    }
    # on a picture tissue is seen through a blur, and the outline of coarse labels is half as long in label pixels
    coarse_here = (
        "tissue.",
        "hotspot.tissue",
        "heatmap.m",
        "irregularity",
        "distance_to",
        "instance_dispersion",
    )
    for key, value in there.items():
        if not key[1].startswith(coarse_here):
            assert here[key] == (value and pytest.approx(value, rel=1e-9)), key
    units = {(row.name, row.metric): row.unit for row in found.measurements}
    assert units == {(row.name, row.metric): row.unit for row in expected.measurements} | {
        key: unit for key, unit in units.items() if key[1] in NEEDS_STORED_TISSUE
    }
    assert units["lymphocytes", "size.mean"] == ("px" if mpp is None else "µm²")


def test_one_result_in_both_forms_gives_the_same_numbers_rows_and_outlines(tmp_path: Path) -> None:
    """With labels of full resolution nothing differs: written as pictures, or as pyramid and object file."""
    ordinary, slide, image = pictures(tmp_path, step=1)
    opener = lambda: open_image(image, name="picture.png")
    expected, found = (rows(measured(each, image, *METRICS)) for each in (ordinary, slide))
    for key, value in expected.items():
        if not key[1].startswith(("tissue.", "hotspot.tissue", "heatmap.m")) and "tissue" not in key[1]:
            assert found[key] == value, key
    for format in ("csv", "geojson"):
        first, second = (
            export(each, format, tmp_path / f"{number}.{format}", opener).read_text()
            for number, each in enumerate((ordinary, slide))
        )
        if format == "csv":
            one, other = (list(csv.DictReader(io.StringIO(text))) for text in (first, second))
            assert len(one) == len(other) == 62
            for row, same in zip(one, other, strict=True):
                assert row.keys() == same.keys()
                assert [_number(each) for each in row.values()] == [_number(each) for each in same.values()]
        else:
            assert json.loads(first) == json.loads(second)
    for format in FORMATS:
        export(slide, format, tmp_path / f"again-{format}", opener)


def _number(text: str) -> float | str:
    try:
        return text if text == "nan" else float(text)
    except ValueError:
        return text


def test_the_stain_of_a_region_is_that_of_all_its_pixels(tmp_path: Path) -> None:
    ordinary, slide, image = pictures(tmp_path, parts=True)
    expected, found = rows(measured(ordinary, image, "intensity")), rows(measured(slide, image, "intensity"))
    assert ("tumour", "intensity.mean_eosin_od") in found and set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-6), key


def test_figures_over_tissue_leave_the_glass_out(tmp_path: Path) -> None:
    _, slide, image = pictures(tmp_path)
    result = measured(slide, image, "density", "area_fraction", "tissue")
    found = rows(result)
    tissue_mm2 = SIDE * HEIGHT * 4 / 1e6
    assert found["tissue", "tissue.area"] == pytest.approx(tissue_mm2)
    assert found["lymphocytes", "density.tissue"] == pytest.approx(60 / tissue_mm2)
    assert found["lymphocytes", "density"] == pytest.approx(60 / (tissue_mm2 * WIDTH / SIDE))
    assert found["tumour", "area_fraction.tissue"] == pytest.approx(0.5)
    assert found["tumour", "area_fraction"] == pytest.approx(0.25)
    rules = {row.metric: row.rule for row in result.measurements}
    assert "0.96 mm²" in rules["density.tissue"] and "drawn by the test" in rules["density.tissue"]
    assert "glass included" in rules["density"]


def test_the_same_figures_over_tissue_exist_for_one_picture(tmp_path: Path) -> None:
    ordinary, _, image = pictures(tmp_path)
    found = rows(measured(ordinary, image, "tissue"))
    assert found["tissue", "tissue.area"] == pytest.approx(SIDE * HEIGHT * 4 / 1e6, rel=0.02)
    assert found["tumour", "area_fraction.tissue"] == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("kind", [0, 1])
def test_objects_in_a_region_are_counted_per_area_of_that_region(tmp_path: Path, kind: int) -> None:
    *folders, image = pictures(tmp_path)
    result = measured(folders[kind], image, "density_in")
    found = rows(result)
    upper = len(np.unique(nuclei()[: HEIGHT // 2])) - 1
    assert found["lymphocytes in tumour", "density_in.count"] == upper
    assert found["lymphocytes in tumour", "density_in"] == pytest.approx(
        upper / (SIDE * HEIGHT / 2 * 4 / 1e6)
    )
    assert found["lymphocytes in stroma", "density_in.count"] == 60 - upper
    (row,) = [r for r in result.measurements if r.metric == "density_in" and r.name.endswith("tumour")]
    assert row.unit == "per mm²" and "area of tumour (0.48 mm²)" in row.rule


@pytest.mark.parametrize("kind", [0, 1])
def test_distances_to_a_region_are_negative_inside_it(tmp_path: Path, kind: int) -> None:
    *folders, image = pictures(tmp_path)
    found = rows(measured(folders[kind], image, "distance_to"))
    labels = nuclei()
    y, x = np.array([np.argwhere(labels == number).mean(axis=0) + 0.5 for number in range(1, 61)]).T
    to_tumour = np.where(y > HEIGHT / 2, y - HEIGHT / 2, -np.minimum.reduce([HEIGHT / 2 - y, x, SIDE - x, y]))
    assert found["lymphocytes to tumour", "distance_to.mean"] == pytest.approx(
        to_tumour.mean() * 2, abs=2 * 2
    )
    assert found["lymphocytes to tumour", "distance_to.inside"] == pytest.approx(np.mean(to_tumour < 0))


def test_tumour_and_stroma_are_compared_where_both_are_regions(tmp_path: Path) -> None:
    _, slide, image = pictures(tmp_path)
    found = rows(measured(slide, image, "tumour_stroma"))
    assert found["tumour : stroma", "tumour_stroma.stroma_fraction"] == pytest.approx(0.5)
    assert found["tumour : stroma", "tumour_stroma.ratio"] == pytest.approx(1.0)


def test_tumour_stroma_without_stroma_says_why(tmp_path: Path) -> None:
    _, slide, image = pictures(tmp_path)
    result = slide.result()
    tumour = [mask for mask in result.masks if mask.free_form == "tumour"]
    slide.write_result(result.model_copy(update={"masks": tumour}))
    with pytest.raises(
        InvalidArgumentError, match="this result has none; segment tumour and stroma in one call"
    ):
        measured(slide, image, "tumour_stroma")
    refused = NotSegmented(
        label=None,
        free_form="stroma",
        evidence="stroma",
        code="unsupported",
        reason="never trained for it",
        nearest=[],
    )
    slide.write_result(result.model_copy(update={"masks": tumour, "not_segmented": [refused]}))
    with pytest.raises(InvalidArgumentError, match=r"stroma .* \(unsupported\): never trained for it"):
        measured(slide, image, "tumour_stroma")


def test_measures_that_need_a_scale_or_a_second_mask_say_so(tmp_path: Path) -> None:
    _, slide, image = pictures(tmp_path, mpp=None)
    for metric in ("hotspot", "density_in", "tissue", "heatmap"):
        with pytest.raises(InvalidArgumentError, match="segment again with mpp"):
            measured(slide, image, metric)
    alone = [slide.result().masks[1].mask_id]
    with pytest.raises(
        InvalidArgumentError, match="two masks, one of them separate objects; this result has: tumour"
    ):
        measured(slide, image, "distance_to", mask_ids=alone)


def test_an_unknown_metric_is_refused_with_what_there_is(tmp_path: Path) -> None:
    _, slide, image = pictures(tmp_path)
    with pytest.raises(InvalidArgumentError, match="tumour_stroma, heatmap, histogram"):
        measured(slide, image, "beauty")
    with pytest.raises(UnknownMaskError):
        measured(slide, image, mask_ids=["msk_" + "f" * 32])


def test_a_region_too_large_for_one_piece_has_an_area_and_says_what_to_do_about_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, slide, image = pictures(tmp_path)
    monkeypatch.setattr(mask_layer, "MOST_MEASURED_PX", 1000)
    tumour = [mask.mask_id for mask in slide.result().masks if mask.name == "tumour"]
    assert rows(measured(slide, image, "area", mask_ids=tumour))["tumour", "area"] == SIDE * HEIGHT / 2 * 4
    with pytest.raises(InvalidArgumentError, match=r"intensity cannot be had of tumour: .* region=\[x0"):
        measured(slide, image, "intensity", mask_ids=tumour)
    both = rows(measured(slide, image, "intensity"))
    assert {name for name, _ in both} == {"lymphocytes"}
    out = export(slide, "csv", tmp_path / "o.csv", lambda: open_image(image, name="p"))
    parts = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["area_px"] for row in parts if row["name"] == "tumour"] == [str(SIDE * HEIGHT // 2)]


def test_a_damaged_slide_folder_is_named(tmp_path: Path) -> None:
    _, slide, image = pictures(tmp_path)
    (slide.path / "slide" / "tissue.png").write_bytes(b"no picture")
    with pytest.raises(UnknownResultError, match="segment the slide again"):
        measured(slide, image, "tissue")
    (parquet,) = (slide.path / "slide" / "objects").iterdir()
    parquet.unlink()
    with pytest.raises(UnknownMaskError, match="segment the slide again"):
        measured(slide, image, "size")


@pytest.mark.parametrize("kind", [0, 1])
def test_the_densest_two_square_millimetres_are_found(tmp_path: Path, kind: int) -> None:
    """At 8 µm/px the region is 30.7 mm² and the circle has a radius of 99.7 px."""
    *folders, image = pictures(tmp_path, mpp=8.0)
    result = measured(folders[kind], image, "hotspot", mask_ids=[folders[kind].result().masks[0].mask_id])
    found = {row.metric: row for row in result.measurements}
    labels = nuclei()
    centres = np.array([np.argwhere(labels == n).mean(axis=0)[::-1] + 0.5 for n in range(1, 61)])
    grid = np.stack(np.meshgrid(np.arange(0, WIDTH, 4), np.arange(0, HEIGHT, 4)), -1).reshape(-1, 2)
    radius = hotspot.RADIUS_UM / 8
    by_trying = (np.hypot(*(grid[:, None] - centres[None]).transpose(2, 0, 1)) <= radius).sum(1).max()
    assert found["hotspot.count"].value >= by_trying
    spot = np.array([found["hotspot.x"].value, found["hotspot.y"].value]) - ORIGIN_XY
    assert (np.hypot(*(centres - spot).T) <= radius + 1e-6).sum() == found["hotspot.count"].value
    assert found["hotspot.density"].value == found["hotspot.count"].value / 2
    assert "circle of 2 mm²" in found["hotspot.count"].rule
    with Image.open(folders[kind].path / next(iter(result.pictures.values()))) as picture:
        assert picture.width > 600


def test_a_region_smaller_than_the_hotspot_is_said_to_be(tmp_path: Path) -> None:
    _, slide, image = pictures(tmp_path)
    result = measured(slide, image, "hotspot", mask_ids=[slide.result().masks[0].mask_id])
    found = {row.metric: row for row in result.measurements}
    assert found["hotspot.count"].value == 60
    assert "all tissue here is 0.96 mm²" in found["hotspot.count"].rule
    assert found["hotspot.tissue_area"].value == pytest.approx(0.96, rel=0.02)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), size=st.floats(1.0, 20.0))
@settings(max_examples=60)
def test_the_exact_hotspot_is_never_beaten(seed: int, count: int, size: float) -> None:
    random = np.random.default_rng(seed)
    points = np.round(random.random((count, 2)) * size, 2)
    (x, y), held = hotspot.densest_exact(points, 1.0)
    assert np.count_nonzero(np.hypot(points[:, 0] - x, points[:, 1] - y) <= 1 + 1e-6) >= held
    tried = np.concatenate([random.random((4000, 2)) * size, points])
    best = (np.hypot(*(tried[:, None] - points[None]).transpose(2, 0, 1)) <= 1.0).sum(1).max()
    assert held >= best


def test_the_lattice_finds_nearly_what_the_exact_search_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, slide, image = pictures(tmp_path, mpp=8.0, count=500)
    layer = open_masks(slide, lambda: open_image(image, name="picture.png")).layers[0]
    exact = hotspot.hotspot(layer, 8.0)
    monkeypatch.setattr(hotspot, "MOST_EXACT", 10)
    lattice = hotspot.hotspot(layer, 8.0)
    assert exact is not None and exact.exact and lattice is not None and not lattice.exact
    assert 0.9 * exact.count <= lattice.count <= exact.count


def test_nearest_neighbours_do_not_depend_on_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary, slide, image = pictures(tmp_path, count=300)
    opened = [open_masks(each, lambda: open_image(image, name="picture.png")) for each in (ordinary, slide)]
    expected, whole = (np.sort(each.layers[0].numbers("nearest_neighbour_px")) for each in opened)
    monkeypatch.setattr(mask_layer, "ROWS_PER_BATCH", 7)
    monkeypatch.setattr(mask_layer, "HALO_PX", 1.0)
    batches = np.sort(opened[1].layers[0].numbers("nearest_neighbour_px"))
    assert len(whole) == 300 and np.array_equal(whole, expected) and np.array_equal(whole, batches)


@pytest.mark.parametrize("kind", [0, 1])
def test_heat_maps_and_histograms_are_drawn_and_summarised(tmp_path: Path, kind: int) -> None:
    *folders, image = pictures(tmp_path)
    result = measured(folders[kind], image, "heatmap", "histogram")
    found = rows(result)
    assert 0.4 <= found["tumour", "heatmap.max"] <= 1.0
    assert found["lymphocytes", "heatmap.max"] >= 60 / 0.96
    areas = np.bincount(coarse(nuclei()).ravel())[1:] * 4
    assert found["lymphocytes", "histogram.size.p50"] == pytest.approx(np.median(areas))
    kinds = sorted(title.split()[0] for title in result.pictures)
    assert kinds == ["heatmap", "heatmap", "heatmap", "histogram"]
    for path in result.pictures.values():
        with Image.open(folders[kind].path / path) as picture:
            assert picture.format == "PNG" and min(picture.size) > 200


def test_a_raster_answers_only_inside_itself() -> None:
    raster = Raster(np.ones((2, 3), bool), 10.0, 20.0, 5.0, 5.0)
    points = np.array([[10.0, 20.0], [24.9, 29.9], [25.0, 20.0], [9.9, 20.0], [10.0, 30.0]])
    assert raster.at(points).tolist() == [True, True, False, False, False]
    assert raster.area_px == 6 * 25


def test_a_picture_without_its_image_is_drawn_on_the_tissue(tmp_path: Path) -> None:
    _, slide, image = pictures(tmp_path, mpp=8.0)
    image.unlink()
    result = measured(slide, image, "hotspot", "density_in")
    assert len(result.pictures) == 1 and math.isfinite(result.measurements[0].value)
    assert json.loads((slide.path / "slide" / "slide.json").read_text())["version"] == 1


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("count the mitoses in the hottest 2 mm²", ("hotspot",)),
        ("what is the mitotic count?", ("hotspot",)),
        ("TIL density in the tumour", ("density_in",)),
        ("how far are the lymphocytes from the tumour", ("distance_to",)),
        ("tumour-stroma ratio please", ("tumour_stroma",)),
        ("heat map and size distribution of the nuclei", ("heatmap", "histogram")),
        ("nuclei per mm² of tissue", ("tissue",)),
        ("count the nuclei", ()),
        ("outline the tumour stroma cells", ()),
    ],
)
def test_words_name_the_measures_of_a_slide(words: str, wanted: tuple[str, ...]) -> None:
    assert place_measures_in(words) == wanted
    assert set(wanted) <= set(METRICS)
