"""A DICOM whole slide is read like any other slide; what is not one is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn_dicom import draw_dicom
from drawn_slides import Drawing, draw
from wsidicom import WsiDicom

from tissuetalk.models.errors import UnreadableImageError
from tissuetalk.models.images import Box, open_image
from tissuetalk.tools.storage.addresses import expand

DRAWING = Drawing(side_px=2048, fragment_mm2=0.3, mpp=0.5, smallest_px=600)


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dicom(DRAWING, tmp_path_factory.mktemp("dicom") / "slide")


def test_its_pixels_scale_and_levels_are_those_wsidicom_reads(dicom: Path) -> None:
    box = Box(900, 900, 1300, 1200)
    with open_image(dicom, name=dicom.name) as slide, WsiDicom.open(dicom.parent) as reference:
        assert slide.is_slide and (slide.width, slide.height) == (2048, 2048)
        assert slide.mpp == pytest.approx(0.5) and len(slide.levels) == len(reference.levels) >= 2
        ours = slide.read_region(box, width=400, height=300).astype(int)
        theirs = np.asarray(reference.read_region((900, 900), 0, (400, 300))).astype(int)
    assert np.abs(ours - theirs).mean() < 2 and ours.std() > 20


def test_it_shows_the_tissue_the_same_drawing_has_as_svs(dicom: Path, tmp_path: Path) -> None:
    svs = draw(DRAWING, tmp_path / "slide.svs")
    with open_image(dicom, name="slide.dcm") as one, open_image(svs, name="slide.svs") as other:
        difference = one.overview(512).astype(int) - other.overview(512).astype(int)
    assert np.abs(difference).mean() < 4


def test_any_file_of_the_series_opens_the_whole_slide(dicom: Path) -> None:
    for part in dicom.parent.iterdir():
        with open_image(part, name=part.name) as slide:
            assert (slide.width, slide.height) == (2048, 2048)


def test_a_dicom_slide_without_its_image_type_is_refused(dicom: Path, tmp_path: Path) -> None:
    header = pydicom.dcmread(dicom)
    del header.ImageType
    header.save_as(tmp_path / "incomplete.dcm")
    with pytest.raises(UnreadableImageError, match="incomplete"):
        open_image(tmp_path / "incomplete.dcm", name="incomplete.dcm")


def test_a_cohort_takes_the_files_of_one_series_for_one_slide(dicom: Path) -> None:
    files = list(dicom.parent.glob("*.dcm"))
    assert len(files) >= 2 and expand([str(dicom.parent / "*.dcm")]) == [str(dicom)]
