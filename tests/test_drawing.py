"""Pictures for an assistant: small enough, and with what the words say they show."""

from __future__ import annotations

import io

import numpy as np
import pytest
from drawn import rectangles
from PIL import Image

from tissuetalk.models.images import Box
from tissuetalk.tools.drawing import drawing

NOISE = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)


@pytest.mark.parametrize("budget_bytes", [140_000, 60_000, 12_000])
def test_even_noise_fits_the_budget(budget_bytes: int) -> None:
    data = drawing.as_jpeg_within(Image.fromarray(NOISE), budget_bytes)
    assert len(data) <= budget_bytes
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "JPEG" and max(picture.size) <= drawing.LONGEST_SIDE_PX


def test_a_plain_picture_keeps_its_size() -> None:
    data = drawing.as_jpeg_within(Image.new("RGB", (1000, 800), "white"), 100_000)
    assert Image.open(io.BytesIO(data)).size == (1000, 800)


def test_text_structure_and_picture_share_the_bytes_of_a_result() -> None:
    text, structured = "x" * 1000, 20_000
    budget = drawing.picture_budget(text, structured)
    assert budget * 4 / 3 + len(text) + structured <= drawing.RESULT_BYTES
    assert drawing.picture_budget("x" * 500_000, 0) > 0


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(0, 0, 4096, 2048), (1024, 512)),
        (Box(0, 0, 100, 50), (400, 200)),
        (Box(5, 5, 100_005, 6), (1024, 1)),
    ],
)
def test_a_view_is_at_most_1024_px_and_small_regions_are_enlarged(box: Box, size: tuple[int, int]) -> None:
    assert drawing.picture_size(box) == size


def test_outlines_lie_on_the_edge_of_the_object_and_nowhere_else() -> None:
    labels = rectangles((200, 200), [(50, 60, 120, 140)])
    picture = drawing.draw(
        np.full((200, 200, 3), 255, np.uint8),
        Box(0, 0, 200, 200),
        layers=[drawing.DrawnMask(labels, "#0066ff", "x")],
    )
    blue = (np.asarray(picture)[:200, :200] == (0, 0x66, 255)).all(axis=2)
    rows, columns = np.nonzero(blue)
    assert abs(rows.min() - 60) <= 2 and abs(rows.max() - 139) <= 2
    assert abs(columns.min() - 50) <= 2 and abs(columns.max() - 119) <= 2
    assert not blue[65:135, 55:115].any()


def test_touching_objects_keep_a_line_between_them() -> None:
    labels = rectangles((100, 100), [(10, 10, 50, 90), (50, 10, 90, 90)])
    picture = drawing.draw(
        np.full((100, 100, 3), 255, np.uint8),
        Box(0, 0, 100, 100),
        layers=[drawing.DrawnMask(labels, "#ff2d55", "x")],
    )
    row = np.asarray(picture)[50, :100]
    assert (row[48:52] == (0xFF, 0x2D, 0x55)).all(axis=1).any()


def test_the_legend_grows_with_the_masks() -> None:
    pixels, box = np.full((100, 400, 3), 255, np.uint8), Box(0, 0, 400, 100)
    labels = rectangles((100, 400), [(10, 10, 50, 50)])
    layers = [drawing.DrawnMask(labels, drawing.colour_of(n), f"mask {n}") for n in range(3)]
    heights = [drawing.draw(pixels, box, layers=layers[:n]).height for n in (0, 1, 2, 3)]
    assert heights == sorted(set(heights)) and heights[0] == 100


def test_the_scale_bar_is_a_round_length() -> None:
    """200 px at 0.5 µm/px are 100 µm; a fifth of that is a bar of 20 µm, 40 px."""
    picture = drawing.draw(np.full((200, 200, 3), 200, np.uint8), Box(0, 0, 200, 200), mpp=0.5)
    bar = (np.asarray(picture)[200 - 14] == 0).all(axis=1)
    assert 40 <= bar.sum() <= 41


def test_grid_lines_lie_on_the_pixels_they_name() -> None:
    box = Box(1000, 2000, 1100, 2100)
    picture = np.asarray(drawing.draw(np.full((400, 400, 3), 255, np.uint8), box, grid=True))
    vertical = np.flatnonzero((picture[390] == 20).all(axis=1))
    assert vertical.tolist() == [(value - 1000) * 4 for value in (1000, 1020, 1040, 1060, 1080)]


def test_colours_differ_until_the_palette_is_used_up() -> None:
    assert len({drawing.colour_of(number) for number in range(len(drawing.PALETTE))}) == len(drawing.PALETTE)
    assert drawing.colour_of(len(drawing.PALETTE)) == drawing.colour_of(0)
