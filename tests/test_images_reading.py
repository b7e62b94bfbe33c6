"""Every format gives the pixels that are in it, upright, as 8-bit RGB on white, at the size it says."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tissuetalk.models.errors import ImageChangedError, InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource, open_image

DATA = Path(__file__).parent / "data" / "images"
PURPLE, PINK, WHITE = (90, 40, 140), (240, 190, 210), (255, 255, 255)


def gradient(height: int = 60, width: int = 90) -> np.ndarray:
    """No two pixels alike in a way that a flip, a swap or a shift would hide."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 2, y * 4, (x + y) % 256], axis=2).astype(np.uint8)


def opened(path: Path) -> ImageSource:
    return open_image(path, name=path.name)


def pixels_of(path: Path) -> np.ndarray:
    with opened(path) as image:
        return image.read_region(image.box, width=image.width, height=image.height)


def save_tiff(path: Path, pixels: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, pixels, **{"photometric": "rgb", **options})
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
@pytest.mark.parametrize("shape", [(60, 90), (200, 7), (7, 200), (1, 1), (1, 50)])
def test_lossless_formats_give_back_every_pixel_and_never_swap_sides(
    tmp_path: Path, suffix: str, shape: tuple[int, int]
) -> None:
    truth = gradient(*shape)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(truth).save(path, **({"lossless": True} if suffix == "webp" else {}))
    with opened(path) as image:
        assert (image.height, image.width) == shape
    assert np.array_equal(pixels_of(path), truth)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (32, 16)},
        {"rowsperstrip": 7},
        {"compression": "deflate", "predictor": True},
        {"compression": "lzw", "tile": (16, 16)},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "tile": (16, 32), "compression": "zstd"},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"compression": "jpeg2000", "tile": (64, 64)},
    ],
    ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()) or "plain",
)
@pytest.mark.parametrize("shape", [(60, 90), (200, 7), (7, 200)])
def test_tiff_layouts_give_back_every_pixel(
    tmp_path: Path, options: dict[str, object], shape: tuple[int, int]
) -> None:
    truth = gradient(*shape)
    layout = dict(options)
    stored = np.ascontiguousarray(truth.transpose(2, 0, 1)) if "planarconfig" in options else truth
    path = save_tiff(tmp_path / "image.tif", stored, **layout)
    with opened(path) as image:
        assert (image.height, image.width) == shape
    assert np.array_equal(pixels_of(path), truth)


def test_real_jpeg_and_crop_equal_pillow() -> None:
    for name in ("OSCC_400x_401.jpg", "skin_crop_256x160.png"):
        with Image.open(DATA / name) as truth:
            assert np.array_equal(pixels_of(DATA / name), np.asarray(truth.convert("RGB")))


def test_real_ome_tiff_equals_tifffile_and_knows_its_scale() -> None:
    with opened(DATA / "HE_example.ome.tif") as image:
        truth = tifffile.imread(DATA / "HE_example.ome.tif")
        assert (image.height, image.width) == truth.shape[:2] == (1484, 1380)
        assert np.array_equal(image.read_region(image.box, width=1380, height=1484), truth)
        assert image.mpp == pytest.approx(0.5001, abs=1e-4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "tiled.tif"])
def test_all_eight_orientations_are_shown_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(gradient())
    path = tmp_path / f"image.{suffix}"
    if suffix.endswith("tif"):
        tile = {"tile": (16, 32)} if suffix == "tiled.tif" else {}
        save_tiff(path, gradient(), extratags=[(274, 3, 1, orientation, True)], **tile)
        exact = stored.copy()
        exact.getexif()[274] = orientation
        truth = ImageOps.exif_transpose(exact)
    else:
        stored.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
        with Image.open(path) as again:
            truth = ImageOps.exif_transpose(again)
    assert np.array_equal(pixels_of(path), np.asarray(truth))


def test_a_box_of_an_oriented_tiff_is_cut_from_the_upright_image(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        path = save_tiff(
            tmp_path / f"{orientation}.tif",
            gradient(),
            extratags=[(274, 3, 1, orientation, True)],
            tile=(16, 16),
        )
        whole = pixels_of(path)
        with opened(path) as image:
            part = image.read_region(Box(5, 11, 38, 49), width=33, height=38)
        assert np.array_equal(part, whole[11:49, 5:38])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif", "tiled.tif"])
def test_deep_grey_is_scaled_by_the_bits_it_uses(tmp_path: Path, bits: int, suffix: str) -> None:
    white = 2**bits - 1
    stored = np.linspace(0, white, 64 * 48).reshape(48, 64).round().astype(np.uint16)
    path = tmp_path / f"image.{suffix}"
    if suffix == "png":
        Image.fromarray(stored).save(path)
    else:
        save_tiff(path, stored, photometric="minisblack", **({"tile": (16, 16)} if "tiled" in suffix else {}))
    truth = np.rint(stored.astype(np.float64) * 255 / white)
    shown = pixels_of(path).astype(int)
    assert np.abs(shown - truth[..., None]).max() <= 1
    assert shown[0, 0].tolist() == [0, 0, 0] and shown[-1, -1].tolist() == [255, 255, 255]


def test_deep_colour_keeps_its_colours(tmp_path: Path) -> None:
    from imagecodecs import png_encode

    stored = gradient().astype(np.uint16) * 257
    (tmp_path / "deep.png").write_bytes(png_encode(stored))
    save_tiff(tmp_path / "deep.tif", stored)
    save_tiff(tmp_path / "float.tif", (gradient() / 255).astype(np.float32))
    for name in ("deep.png", "deep.tif", "float.tif"):
        assert np.array_equal(pixels_of(tmp_path / name), gradient()), name


def test_what_counts_as_white_does_not_depend_on_the_region_read(tmp_path: Path) -> None:
    stored = np.full((64, 128), 100, np.uint16)
    stored[:, 64:] = 4000
    path = save_tiff(tmp_path / "halves.tif", stored, photometric="minisblack", tile=(64, 64))
    with opened(path) as image:
        dark = image.read_region(Box(0, 0, 64, 64), width=64, height=64)
    assert (dark == round(100 * 255 / 4095)).all()


def transparent(mode: str) -> Image.Image:
    """Left half opaque purple, right half fully transparent."""
    image = Image.new("RGBA", (40, 20), (*PURPLE, 255))
    image.paste((10, 200, 10, 0), (20, 0, 40, 20))
    if mode == "half":
        image.paste((0, 0, 0, 128), (20, 0, 40, 20))
    return image


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_transparent_means_white(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    image = transparent("full")
    if suffix == "tif":
        save_tiff(path, np.asarray(image), extrasamples=["unassalpha"])
    else:
        image.save(path, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    shown = pixels_of(path)
    assert (shown[:, :20] == PURPLE).all()
    assert (shown[:, 20:] == WHITE).all()


def test_half_transparent_black_is_mid_grey(tmp_path: Path) -> None:
    transparent("half").save(tmp_path / "half.png")
    assert (pixels_of(tmp_path / "half.png")[:, 20:] == 127).all()


def test_premultiplied_alpha_is_not_multiplied_again(tmp_path: Path) -> None:
    stored = np.zeros((16, 16, 4), np.uint8)
    stored[...] = (100, 50, 0, 128)
    path = save_tiff(tmp_path / "pre.tif", stored, extrasamples=["assocalpha"])
    assert (pixels_of(path) == (227, 177, 127)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_modes_equal_pillow(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    colour = Image.fromarray(gradient())
    if mode == "I;16":
        Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257).save(path)
        truth = Image.fromarray(gradient()[..., 0]).convert("RGB")
    else:
        image = colour.quantize(16) if mode == "P" else colour.convert(mode)
        image.save(path)
        truth = image.convert("RGB")
    assert np.array_equal(pixels_of(path), np.asarray(truth))


def test_palette_with_a_transparent_entry_is_put_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([0, 0, 0, *PINK])
    image.paste(0, (0, 0, 5, 10))
    image.save(tmp_path / "palette.png", transparency=0)
    shown = pixels_of(tmp_path / "palette.png")
    assert (shown[:, :5] == WHITE).all() and (shown[:, 5:] == PINK).all()


def test_palette_grey_and_inverted_tiff(tmp_path: Path) -> None:
    index = (gradient()[..., 0] % 4).astype(np.uint8)
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :4] = np.array([PURPLE, PINK, WHITE, (1, 2, 3)]).T * 257
    save_tiff(tmp_path / "palette.tif", index, photometric="palette", colormap=colours)
    assert np.array_equal(pixels_of(tmp_path / "palette.tif"), (colours.T >> 8).astype(np.uint8)[index])
    save_tiff(tmp_path / "inverted.tif", index, photometric="miniswhite")
    assert np.array_equal(pixels_of(tmp_path / "inverted.tif")[..., 0], 255 - index)
    Image.fromarray(gradient()).convert("1").save(tmp_path / "bilevel.tif")
    with Image.open(tmp_path / "bilevel.tif") as truth:
        assert np.array_equal(pixels_of(tmp_path / "bilevel.tif"), np.asarray(truth.convert("RGB")))


def test_cmyk_is_printed_on_white(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (32, 32), (0, 255, 0, 0))
    ink.save(tmp_path / "ink.jpg", quality=95)
    ink.save(tmp_path / "ink.tif")
    for name in ("ink.jpg", "ink.tif"):
        assert np.abs(pixels_of(tmp_path / name).astype(int) - (255, 0, 255)).max() <= 2, name


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(gradient()).save(path, format="PNG")
    assert np.array_equal(pixels_of(path), gradient())


def test_an_image_in_memory_reads_like_one_on_disk() -> None:
    for name in ("skin_crop_256x160.png", "HE_example.ome.tif"):
        with (
            open_image(io.BytesIO((DATA / name).read_bytes()), name=name) as memory,
            opened(DATA / name) as disk,
        ):
            assert memory.image_id == disk.image_id
            assert np.array_equal(memory.overview(200), disk.overview(200))
            memory.verify_unchanged()


def test_the_id_is_the_hash_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.png"
    copy.write_bytes((DATA / "skin_crop_256x160.png").read_bytes())
    with opened(copy) as one, opened(DATA / "skin_crop_256x160.png") as two:
        assert one.image_id == two.image_id
        assert len(one.image_id) == 36 and one.image_id == f"img_{one.sha256[:32]}"


def replaced(path: Path) -> None:
    other = path.with_name("other.png")
    Image.fromarray(gradient()[::-1]).save(other)
    other.replace(path)


def rewritten(path: Path) -> None:
    Image.fromarray(gradient()[::-1]).save(path)


def removed(path: Path) -> None:
    path.unlink()


def linked(path: Path) -> None:
    path.rename(path.with_name("moved.png"))
    path.symlink_to(path.with_name("moved.png"))


@pytest.mark.parametrize("change", [replaced, rewritten, removed, linked])
def test_a_changed_file_is_noticed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(gradient()).save(path)
    with opened(path) as image:
        assert image.image_id
        image.verify_unchanged()
        change(path)
        with pytest.raises(ImageChangedError):
            image.verify_unchanged()


def test_a_touched_or_copied_over_file_with_the_same_content_is_not_a_change(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(gradient()).save(path)
    with opened(path) as image:
        assert image.image_id
        path.touch()
        image.verify_unchanged()
        same = tmp_path / "same.png"
        same.write_bytes(path.read_bytes())
        same.replace(path)
        image.verify_unchanged()


@pytest.mark.parametrize("name", ["OSCC_400x_401.jpg", "HE_example.ome.tif", "CMU-1-Small-Region.svs"])
def test_eight_threads_read_what_one_reads(name: str) -> None:
    rng = np.random.default_rng(7)
    with opened(DATA / name) as image:
        corners = rng.integers(0, [image.width - 200, image.height - 200], (48, 2))
        boxes = [Box(int(x), int(y), int(x) + 200, int(y) + 150) for x, y in corners]
        serial = [image.read_region(box, width=90, height=60) for box in boxes]
    with opened(DATA / name) as image, ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(lambda box: image.read_region(box, width=90, height=60), boxes))
    assert all(np.array_equal(a, b) for a, b in zip(serial, parallel, strict=True))


@pytest.mark.parametrize("values", [[0, 0, 0, 5], [5, 5, 4, 9], [1, 2, 3], [-1, 0, -5, 5], "abcd"])
@pytest.mark.parametrize("twist", [None, float("nan"), float("inf"), "x", True])
def test_a_box_that_is_none_is_refused(values: object, twist: object) -> None:
    given = values if twist is None else [0, 0, 10, twist]
    with pytest.raises(InvalidArgumentError):
        Box.from_sequence(given)  # type: ignore[arg-type]  # what a caller may send


def test_boxes_widen_fractions_and_clip() -> None:
    assert Box.from_sequence([1.2, 2.0, 3.1, 4.9]).as_list() == [1, 2, 4, 5]
    assert Box(5, 5, 100, 200).clipped_to(50, 60).as_list() == [5, 5, 50, 60]
    assert (Box(5, 6, 9, 16).width, Box(5, 6, 9, 16).height) == (4, 10)
    with pytest.raises(InvalidArgumentError):
        Box(60, 0, 70, 5).clipped_to(50, 60)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (640, 480)])
@pytest.mark.parametrize(
    "options",
    [{"restart_marker_rows": 1}, {"progressive": True}, {"subsampling": 0, "quality": 100}, {"quality": 5}],
    ids=lambda options: "-".join(options),
)
def test_every_whole_jpeg_equals_pillow(
    tmp_path: Path, size: tuple[int, int], options: dict[str, object]
) -> None:
    path = tmp_path / "noise.jpg"
    Image.effect_noise(size, 60).convert("RGB").save(path, **options)
    with path.open("ab") as stream:
        stream.write(b"\xff\xd8 what cameras append")
    with Image.open(path) as truth:
        assert np.array_equal(pixels_of(path), np.asarray(truth))
