"""Regions at a wanted scale are arithmetic, pyramids are used, and µm/px is believed only when it can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource, open_image

DATA = Path(__file__).parent / "data" / "images"
PURPLE, PINK = (90, 40, 140), (240, 190, 210)


def opened(path: Path) -> ImageSource:
    return open_image(path, name=path.name)


def halves(width: int = 512, height: int = 256) -> np.ndarray:
    """Left half nuclear purple, right half pale pink."""
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = PURPLE, PINK
    return image


def write_pyramid(
    path: Path, full: np.ndarray, factors: tuple[int, ...], *, subifds: bool, **options: object
) -> Path:
    """Each level is the exact mean of the full image, except that level k adds k to the red channel as a mark."""
    with tifffile.TiffWriter(path, ome=False) as writer:
        common = {"photometric": "rgb", "tile": (64, 64), **options}
        writer.write(full, subifds=len(factors) if subifds else None, **common)
        for mark, factor in enumerate(factors, start=1):
            high, wide = full.shape[0] // factor, full.shape[1] // factor
            cut = full[: high * factor, : wide * factor].reshape(high, factor, wide, factor, 3)
            level = cut.mean((1, 3)).round().astype(np.uint8)
            level[..., 0] += mark
            writer.write(level, subfiletype=1, **common)
    return path


@pytest.mark.parametrize("shift", range(5))
def test_an_edge_is_where_it_is_after_a_shift_of_the_box(tmp_path: Path, shift: int) -> None:
    path = tmp_path / "halves.png"
    Image.fromarray(halves()).save(path)
    with opened(path) as image:
        part = image.read_region(Box(246 + shift, 10, 266 + shift, 30), width=20, height=20)
        edge = 10 - shift
        assert (part[:, :edge] == PURPLE).all() and (part[:, edge:] == PINK).all()


def test_shrinking_averages_exactly_what_is_covered(tmp_path: Path) -> None:
    path = tmp_path / "halves.png"
    Image.fromarray(halves()).save(path)
    with opened(path) as image:
        shrunk = image.read_region(Box(254, 0, 264, 8), width=2, height=2)
        mixed = np.rint((2 * np.array(PURPLE) + 3 * np.array(PINK)) / 5)
        assert (shrunk[:, 0] == mixed).all() and (shrunk[:, 1] == PINK).all()
        odd = image.read_region(Box(250, 0, 260, 8), width=4, height=3)
        mixed = np.rint((1.0 * np.array(PURPLE) + 1.5 * np.array(PINK)) / 2.5)
        assert (odd[:, 2] == mixed).all()


def test_enlarging_is_bilinear_between_pixel_centres(tmp_path: Path) -> None:
    path = tmp_path / "ramp.png"
    ramp = np.repeat((np.arange(50) * 4).astype(np.uint8)[None, :, None], 3, axis=2)
    Image.fromarray(np.repeat(ramp, 40, axis=0)).save(path)
    with opened(path) as image:
        part = image.read_region(Box(10, 0, 20, 10), width=40, height=40)
        assert np.abs(part[0, :, 0] - (10 + (np.arange(40) + 0.5) / 4 - 0.5) * 4).max() <= 0.5


@pytest.mark.parametrize("step", [0.5, 1.0, 2.0, 3.7, 8.0])
@pytest.mark.parametrize("name", ["OSCC_400x_401.jpg", "pyramid"])
def test_tiles_fit_together_without_a_seam(tmp_path: Path, step: float, name: str) -> None:
    path = DATA / name
    if name == "pyramid":
        full = np.asarray(Image.open(DATA / "OSCC_400x_401.jpg"))
        path = write_pyramid(tmp_path / "p.tif", full, (2, 4), subifds=True)
    with opened(path) as image:
        side = round(60 * step)
        whole = image.read_region(Box(100, 50, 100 + 2 * side, 50 + side), width=120, height=60)
        left = image.read_region(Box(100, 50, 100 + side, 50 + side), width=60, height=60)
        right = image.read_region(Box(100 + side, 50, 100 + 2 * side, 50 + side), width=60, height=60)
        assert np.abs(np.concatenate([left, right], axis=1).astype(int) - whole).max() <= 1


def test_a_block_larger_than_is_read_at_once_has_no_seam(tmp_path: Path) -> None:
    full = np.zeros((6, 9000, 3), np.uint8)
    full[..., 0] = np.arange(9000) // 40
    Image.fromarray(full).save(tmp_path / "long.png")
    with opened(tmp_path / "long.png") as image:
        shrunk = image.read_region(image.box, width=900, height=2)
        assert np.array_equal(shrunk[0, :, 0], np.arange(900) // 4)


@pytest.mark.parametrize("subifds", [True, False])
def test_the_smallest_level_with_enough_detail_is_read(tmp_path: Path, subifds: bool) -> None:
    path = write_pyramid(tmp_path / "p.tif", halves(), (2, 4, 8), subifds=subifds)
    with opened(path) as image:
        assert image.is_slide and image.levels == (1.0, 2.0, 4.0, 8.0)
        for scale, mark in [
            (2.0, 0),
            (1.0, 0),
            (0.6, 0),
            (0.5, 1),
            (0.3, 1),
            (0.25, 2),
            (0.125, 3),
            (0.05, 3),
        ]:
            red = image.read_scaled(Box(0, 0, 200, 200), scale)[..., 0]
            assert (red == PURPLE[0] + mark).all(), scale


def test_a_level_with_a_rounded_size_is_not_stretched(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    full = rng.integers(0, 255, (1003, 2001, 3)).astype(np.uint8)
    path = write_pyramid(tmp_path / "p.tif", full, (4,), subifds=True)
    with opened(path) as image:
        assert image.levels == (1.0, 4.0)
        far = image.read_region(Box(1900, 900, 2000, 1000), width=25, height=25)
        truth = full[900:1000, 1900:2000].reshape(25, 4, 25, 4, 3).mean((1, 3)).round().astype(np.uint8)
        assert np.array_equal(far[..., 1:], truth[..., 1:])


def test_pyramids_turned_by_a_tag_keep_their_levels(tmp_path: Path) -> None:
    turned = [(274, 3, 1, 6, True)]
    path = write_pyramid(tmp_path / "p.tif", halves(), (2, 4), subifds=True, extratags=turned)
    with opened(path) as image:
        assert (image.width, image.height) == (256, 512)
        small = image.overview(128)
        assert small.shape == (128, 64, 3)
        assert (small[:64, :, 1] == PURPLE[1]).all() and (small[64:, :, 1] == PINK[1]).all()


def test_outside_the_image_is_white(tmp_path: Path) -> None:
    path = tmp_path / "halves.png"
    Image.fromarray(halves()).save(path)
    with opened(path) as image:
        part = image.read_region(Box(-10, -20, 10, 20), width=20, height=40)
        assert (part[:20] == 255).all() and (part[:, :10] == 255).all() and (part[20:, 10:] == PURPLE).all()
        assert (image.read_region(Box(600, 600, 700, 700), width=10, height=10) == 255).all()


def test_an_overview_keeps_the_proportions_and_never_enlarges(tmp_path: Path) -> None:
    Image.fromarray(halves(2000, 500)).save(tmp_path / "wide.png")
    with opened(tmp_path / "wide.png") as image:
        assert image.overview().shape == (256, 1024, 3)
        assert image.overview(5000).shape == (500, 2000, 3)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, -1), (100_000, 100_000)])
def test_an_absurd_output_size_is_refused(tmp_path: Path, width: int, height: int) -> None:
    Image.fromarray(halves()).save(tmp_path / "halves.png")
    with opened(tmp_path / "halves.png") as image, pytest.raises(InvalidArgumentError):
        image.read_region(Box(0, 0, 10, 10), width=width, height=height)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_an_absurd_scale_is_refused(tmp_path: Path, scale: float) -> None:
    Image.fromarray(halves()).save(tmp_path / "halves.png")
    with opened(tmp_path / "halves.png") as image, pytest.raises(InvalidArgumentError):
        image.read_scaled(Box(0, 0, 10, 10), scale)


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [
        ("CENTIMETER", 20_000, 0.5),
        ("INCH", 101_600, 0.25),
        ("INCH", 72, None),
        ("INCH", 96, None),
        ("INCH", 300, None),
        ("CENTIMETER", 118, None),
        ("NONE", 20_000, None),
        ("CENTIMETER", 0, None),
        ("CENTIMETER", 10**9, None),
    ],
)
def test_tiff_resolution_counts_only_when_a_microscope_can_have_it(
    tmp_path: Path, unit: str, per_unit: int, mpp: float | None
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, halves(), photometric="rgb", resolution=((per_unit, 1), (per_unit, 1)), resolutionunit=unit
    )
    with opened(path) as image:
        assert image.mpp == (None if mpp is None else pytest.approx(mpp))


def test_a_scale_that_differs_by_direction_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, halves(), photometric="rgb", resolution=(20_000, 40_000), resolutionunit="CENTIMETER"
    )
    with opened(path) as image:
        assert image.mpp is None


@pytest.mark.parametrize(
    ("size", "unit", "mpp"), [(0.25, "µm", 0.25), (250, "nm", 0.25), (0.0005, "mm", 0.5)]
)
def test_ome_units_are_converted(tmp_path: Path, size: float, unit: str, mpp: float) -> None:
    path = tmp_path / "image.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
    metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(path, halves(), photometric="rgb", metadata=metadata)
    with opened(path) as image:
        assert image.mpp == pytest.approx(mpp)


def test_imagej_microns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, halves()[..., 0], imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    with opened(path) as image:
        assert image.mpp == pytest.approx(0.25)


@pytest.mark.parametrize(("dpi", "mpp"), [(50_800, 0.5), (72, None), (96, None), (300, None)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_png_and_jpeg_density_counts_only_when_plausible(
    tmp_path: Path, dpi: int, mpp: float | None, suffix: str
) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(halves()).save(path, dpi=(dpi, dpi))
    with opened(path) as image:
        assert image.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-3))


def test_an_image_that_does_not_say_has_no_scale() -> None:
    with opened(DATA / "skin_crop_256x160.png") as image:
        assert image.mpp is None
