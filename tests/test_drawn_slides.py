"""The slides other tests rely on are what they claim: tissue, scale and a pyramid, in a file both readers take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_slides import Drawing, draw, fragments_of

from tissuetalk.models.images import Box, open_image

SMALL = Drawing(side_px=3000, fragments=2, fragment_mm2=0.15, mpp=0.5, smallest_px=800)


@pytest.mark.parametrize("kind", ["svs", "tiff"])
def test_a_drawn_slide_has_its_scale_its_pyramid_and_its_tissue(tmp_path: Path, kind: str) -> None:
    path = draw(replace(SMALL, kind=kind), tmp_path / f"slide.{kind}")
    with open_image(path, name=path.name) as slide:
        assert (slide.width, slide.height, slide.is_slide) == (3000, 3000, True)
        assert slide.levels == (1.0, 4.0) and slide.mpp == pytest.approx(0.5, abs=1e-3)
        overview = slide.overview(750)
        dark_mm2 = (overview.min(axis=2) < 215).sum() * (4 * 0.5e-3) ** 2
        assert dark_mm2 == pytest.approx(SMALL.tissue_mm2, rel=0.1)


def test_levels_show_the_same_picture(tmp_path: Path) -> None:
    path = draw(SMALL, tmp_path / "slide.svs")
    piece = fragments_of(SMALL)[0]
    x, y = int(piece.x) // 4 * 4, int(piece.y) // 4 * 4
    with open_image(path, name=path.name) as slide:
        fine = slide.read_region(Box(x, y, x + 256, y + 256), width=256, height=256).astype(float)
        coarse = slide._reader.read(1, Box(x // 4, y // 4, x // 4 + 64, y // 4 + 64)).astype(float)
    averaged = fine.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.corrcoef(averaged.mean(axis=2).ravel(), coarse.mean(axis=2).ravel())[0, 1] > 0.95


def test_the_same_drawing_is_the_same_file_and_a_slide_may_keep_its_scale_to_itself(tmp_path: Path) -> None:
    first, second = draw(SMALL, tmp_path / "1.svs"), draw(SMALL, tmp_path / "2.svs")
    assert first.read_bytes() == second.read_bytes()
    silent = draw(replace(SMALL, says_mpp=False), tmp_path / "3.svs")
    with open_image(silent, name="3.svs") as slide:
        assert slide.mpp is None
