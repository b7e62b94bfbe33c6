"""A real slide reads as OpenSlide reads it, and nothing of its label, macro or text can be reached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from openslide import OpenSlide

from tissuetalk.models.errors import UnreadableImageError
from tissuetalk.models.images import Box, ImageSource, open_image

SLIDE = Path(__file__).parent / "data" / "images" / "CMU-1-Small-Region.svs"


def opened() -> ImageSource:
    return open_image(SLIDE, name="slide.svs")


def test_a_slide_knows_its_size_scale_and_identity() -> None:
    with opened() as image:
        assert (image.width, image.height) == (2220, 2967)
        assert image.is_slide and image.levels == (1.0,)
        assert image.mpp == pytest.approx(0.499)
        assert image.image_id == "img_ed92d5a9f2e86df67640d6f92ce3e231"


@pytest.mark.parametrize("corner", [(0, 0), (333, 1234), (2220 - 300, 2967 - 200)])
def test_a_slide_region_equals_openslide(corner: tuple[int, int]) -> None:
    x, y = corner
    with opened() as image, OpenSlide(SLIDE) as truth:
        part = image.read_region(Box(x, y, x + 300, y + 200), width=300, height=200)
        assert np.array_equal(part, np.asarray(truth.read_region(corner, 0, (300, 200)).convert("RGB")))


def test_the_overview_of_a_slide_is_the_mean_of_its_pixels() -> None:
    with opened() as image, OpenSlide(SLIDE) as truth:
        full = np.asarray(truth.read_region((0, 0), 0, (2220, 2960)).convert("RGB"))
        shrunk = image.read_region(Box(0, 0, 2220, 2960), width=222, height=296)
        mean = full.reshape(296, 10, 222, 10, 3).mean((1, 3))
        assert np.abs(shrunk - mean).max() <= 0.51


def test_label_macro_and_text_are_out_of_reach() -> None:
    with OpenSlide(SLIDE) as truth:
        hidden = {image.size for image in truth.associated_images.values()}
        user = truth.properties["aperio.User"]
    with opened() as image:
        assert (image.width, image.height) not in hidden
        public = {name: getattr(image, name) for name in dir(image) if not name.startswith("_")}
        assert not {name for name in public if "associated" in name or "propert" in name or "label" in name}
        assert user not in repr(public)


def test_a_slide_damaged_inside_says_so_when_that_part_is_read(tmp_path: Path) -> None:
    content = bytearray(SLIDE.read_bytes())
    content[20_000:900_000] = bytes(880_000)
    path = tmp_path / "damaged.svs"
    path.write_bytes(content)
    with open_image(path, name="damaged.svs") as image, pytest.raises(UnreadableImageError, match="damaged"):
        image.overview()
