"""Slides worked on block by block: what is found does not depend on how the work was cut."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely
import zarr
from drawn import HAEMATOXYLIN, STROMA, discs, save
from PIL import Image
from slide_runs import SMALL, SlideRun, bench_at, order_of, register, run

REAL = Path(__file__).parent / "data" / "images" / "HE_example.ome.tif"
CROP = (300, 350, 780, 830)
"""Dense tissue, 480 px a side, at 0.5 µm/px."""


@pytest.fixture(scope="module")
def models() -> None:
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crop of real tissue on glass, so that there are borders, and blocks without tissue."""
    import tifffile

    folder = tmp_path_factory.mktemp("slides")
    x0, y0, x1, y1 = CROP
    picture = np.full((700, 900, 3), 244, np.uint8)
    picture[110:590, 210:690] = tifffile.imread(REAL)[y0:y1, x0:x1, :3]
    save(folder / "tissue.png", picture)
    return folder


def slide(root: Path, workspace: Path, settings=SMALL, **asked) -> SlideRun:
    bench = bench_at(root, workspace, settings)
    try:
        return run(bench, order_of(root / asked.pop("image", "tissue.png"), **asked))
    finally:
        bench.close()


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SlideRun:
    """One tile and one window hold everything."""
    return slide(root, tmp_path_factory.mktemp("whole"), replace(SMALL, tile_px=1024, window_px=1024))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("tile_px", [128, 192, 320])
def test_every_tile_and_batch_size_gives_the_same_objects(
    root: Path, whole: SlideRun, models: None, tmp_path: Path, tile_px: int, batch: int
) -> None:
    settings = replace(SMALL, tile_px=tile_px, batch=batch, window_px=256)
    cut = slide(root, tmp_path, settings, model="counted-nuclei")
    assert len(whole.outlines()) == whole.mask().count > 300
    assert cut.outlines() == whole.outlines()
    assert np.array_equal(cut.labels() > 0, whole.labels() > 0)


def test_a_scale_between_pixels_changes_next_to_nothing(root: Path, tmp_path: Path) -> None:
    """Resampling rounds to 8 bits: a tolerance of 2 % of objects that differ by a pixel somewhere."""
    one = slide(root, tmp_path / "one", replace(SMALL, tile_px=1024, window_px=1024), mpp=0.43)
    cut = slide(root, tmp_path / "cut", SMALL, mpp=0.43)
    assert cut.mask().count == one.mask().count
    assert len(cut.outlines() & one.outlines()) >= 0.98 * len(one.outlines())


def test_no_object_is_cut_or_counted_twice(whole: SlideRun, root: Path, tmp_path: Path) -> None:
    cut = slide(root, tmp_path)
    labels, rows = cut.labels(), cut.rows()
    ids = rows["object_id"].to_numpy()
    assert sorted(ids) == list(range(1, cut.mask().count + 1)) == sorted(np.unique(labels[labels > 0]))
    areas = np.bincount(labels.ravel())
    assert np.array_equal(areas[ids], np.rint(rows["area_px"].to_numpy()))
    assert np.array_equal(areas[ids], np.rint(shapely.area(cut.shapes())))
    assert cut.mask().area_px == int((labels > 0).sum())


def test_every_row_says_where_it_comes_from_in_pixels_of_the_slide(root: Path, tmp_path: Path) -> None:
    part = slide(root, tmp_path, region=(200, 100, 500, 420))
    rows = part.rows().to_pylist()
    blocks = {
        block["id"]: block["box_xyxy"]
        for block in json.loads((part.folder / "slide/slide.json").read_text())["blocks"]
    }
    for row, shape in zip(rows, part.shapes(), strict=True):
        assert shapely.bounds(shape).tolist() == [
            row["bbox_x0"],
            row["bbox_y0"],
            row["bbox_x1"],
            row["bbox_y1"],
        ]
        assert shapely.box(200, 100, 500, 420).covers(shape)
        assert row["centroid_x"] + 0.5 == pytest.approx(shape.centroid.x)
        assert row["area_um2"] == pytest.approx(row["area_px"] * 0.25)
        x0, y0, x1, y1 = blocks[row["block"]]
        assert shape.intersects(shapely.box(x0, y0, x1, y1))


def test_a_label_pyramid_is_ngff_and_invents_no_object(whole: SlideRun) -> None:
    path = whole.folder / "slide" / "labels" / f"{whole.mask().mask_id}.ome.zarr"
    described = zarr.open_group(str(path), mode="r").attrs["ome"]
    levels = [whole.labels(level=int(each["path"])) for each in described["multiscales"][0]["datasets"]]
    assert described["version"] == "0.5" and levels[0].shape == (700, 900) and levels[0].dtype == np.int32
    for finer, coarser in pairwise(levels):
        assert np.array_equal(coarser, finer[::2, ::2])
    scale, translation = described["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    assert scale["scale"] == [1.0, 1.0] and translation["translation"] == [0.25, 0.25]


def ring(picture: np.ndarray, x: int, y: int, outer: float, inner: float) -> int:
    """Draw a ring and return its pixels."""
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    distance = np.hypot(columns - x, rows - y)
    marked = (distance <= outer) & (distance > inner)
    picture[marked] = HAEMATOXYLIN
    return int(marked.sum())


@pytest.mark.parametrize("word", ["dark", "parts"])
def test_a_part_larger_than_a_window_is_one_part(models: None, tmp_path: Path, word: str) -> None:
    picture = discs(900, 800, [(60, 60), (850, 760)], 9.5, STROMA)
    pixels = ring(picture, 450, 400, 330, 200)
    save(tmp_path / "images" / "ring.png", picture)
    found = slide(
        tmp_path / "images",
        tmp_path / "work",
        replace(SMALL, tile_px=None),
        image="ring.png",
        words=[word],
        model="dark-parts",
    )
    rows = {round(row["area_px"]): row for row in found.rows(word).to_pylist()}
    assert len(rows) == 2 and pixels in rows and found.rows(word).num_rows == 3
    large = rows[pixels]
    assert [large[f"bbox_{edge}"] for edge in ("x0", "y0", "x1", "y1")] == [120, 70, 781, 731]
    assert large["centroid_x"] == pytest.approx(450) and large["centroid_y"] == pytest.approx(400)
    assert large["solidity"] == pytest.approx(pixels / (np.pi * 330.5**2), rel=0.02)
    shape = found.shapes(word)[found.rows(word)["object_id"].to_pylist().index(large["object_id"])]
    assert (
        shape.is_valid and shape.geom_type == "Polygon" and len(shape.interiors) == 1 and shape.area == pixels
    )
    labels = found.labels(word)
    assert np.array_equal(labels > 0, (picture == HAEMATOXYLIN).all(axis=2))
    assert labels.dtype == (np.uint8 if word == "dark" else np.int32)
    assert found.mask(word).count == (None if word == "dark" else 3)


def test_touching_large_objects_stay_apart_across_windows(models: None, tmp_path: Path) -> None:
    picture = np.full((600, 900, 3), STROMA, np.uint8)
    picture[40:560, 30:460] = HAEMATOXYLIN
    picture[40:560, 463:870] = HAEMATOXYLIN
    save(tmp_path / "images" / "two.png", picture)
    found = slide(
        tmp_path / "images",
        tmp_path / "work",
        replace(SMALL, tile_px=None),
        image="two.png",
        words=["parts"],
        model="dark-parts",
    )
    assert sorted(found.rows("parts")["area_px"].to_pylist()) == [520 * 407, 520 * 430]


def test_a_slide_without_tissue_is_answered_not_refused(tmp_path: Path) -> None:
    save(tmp_path / "images" / "glass.png", np.full((700, 800, 3), 246, np.uint8))
    found = slide(tmp_path / "images", tmp_path / "work", image="glass.png")
    mask = found.mask()
    assert (mask.found, mask.count, mask.area_px, mask.bbox) == (False, 0, 0, None)
    assert "not_histology" in [warning.code for warning in found.result.warnings]
    assert any("no tissue" in note for note in found.result.notes)
    assert found.rows().num_rows == 0 and not found.labels().any()


def test_only_tissue_is_read_and_the_mask_is_kept(whole: SlideRun) -> None:
    about = json.loads((whole.folder / "slide" / "slide.json").read_text())
    tissue = np.asarray(Image.open(whole.folder / "slide" / "tissue.png")) > 0
    assert tissue.shape == (700, 900)
    assert about["tissue_area_px"] == tissue.sum() == pytest.approx(480 * 480, rel=0.1)
    assert about["tissue_area_mm2"] == pytest.approx(tissue.sum() * 0.25e-6)


def test_blocks_of_glass_are_not_worked_on(root: Path, tmp_path: Path) -> None:
    about = json.loads((slide(root, tmp_path).folder / "slide" / "slide.json").read_text())
    assert about["block_px"] == 128
    assert {block["id"] for block in about["blocks"]} == {
        f"0.5:{column}_{row}" for column in range(1, 6) for row in range(5)
    }


def test_thumbnails_and_overlay_show_the_slide(whole: SlideRun) -> None:
    mask = np.asarray(Image.open(whole.folder / "masks" / f"{whole.mask().mask_id}.png"))
    assert mask.shape == (700, 900) and (mask > 0).sum() == whole.mask().area_px
    assert (whole.folder / "overlay.png").stat().st_size > 10_000
