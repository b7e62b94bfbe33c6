"""Every file of a slide is opened and checked once, is part of its identity, and belongs to nobody else: issue 11, class 4."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn_dicom import base_level
from drawn_mirax import Mirax, draw_mirax, slidedat
from drawn_slides import Drawing
from services import wait_until

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import swapping  # after the project is on the path
from tissuetalk.models.errors import (
    ImageChangedError,
    OutsideRootsError,
    TissuetalkError,
    UnreadableImageError,
)
from tissuetalk.models.images import Box, parts
from tissuetalk.models.worker import WORKER
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.roots import Roots

PINK, BLUE, GREEN = (200, 80, 160), (90, 60, 150), (40, 200, 60)
SMALL = Drawing(side_px=512, fragment_mm2=0.02, mpp=0.5, smallest_px=512)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A slide of two colours in a root, and another of the same size, green, outside."""
    draw_mirax(tmp_path / "root" / "slide.mrxs", (PINK, BLUE))
    draw_mirax(tmp_path / "outside" / "slide.mrxs", (GREEN, GREEN))
    return tmp_path / "root"


def colour(root: Path, at: int = 150) -> list[int]:
    with Roots([root]).open("slide.mrxs") as slide:
        pixels = slide.read_region(Box(at, 5, at + 10, 15), width=10, height=10)
        return [int(each) for each in pixels[5, 5]]


def test_a_mirax_slide_is_read_through_its_open_files(root: Path) -> None:
    with Roots([root]).open("slide.mrxs") as slide:
        assert slide.is_slide and (slide.width, slide.height, slide.mpp) == (512, 512, 0.5)
        assert slide.levels == (1.0, 2.0) and len(slide.files) == 5
        overview = slide.overview(256)
    near = np.abs(overview.astype(int)[:, :, None] - np.array([PINK, BLUE])).max(axis=-1).min(axis=-1)
    assert near.max() <= 2


@pytest.mark.parametrize("name", ["Data0000.dat", "Data0001.dat", "Slidedat.ini", "Index.dat"])
def test_the_id_changes_with_any_file_even_of_the_same_size_and_time(root: Path, name: str) -> None:
    path = root / "slide" / name
    content, status = path.read_bytes(), path.stat()
    with Roots([root]).open("slide.mrxs") as slide:
        before = slide.image_id
    path.write_bytes(content)  # the content decides, not the time
    with Roots([root]).open("slide.mrxs") as slide:
        assert slide.image_id == before
    if name.startswith("Data"):
        other = (root.parent / "outside" / "slide" / name).read_bytes()
        path.write_bytes((other + bytes(len(content)))[: len(content)])
    else:
        path.write_bytes(content + b"\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with Roots([root]).open("slide.mrxs") as slide:
        assert slide.image_id != before


def replace_by_link(root: Path) -> None:
    (root / "slide" / "Data0001.dat").unlink()
    (root / "slide" / "Data0001.dat").symlink_to(root.parent / "outside" / "slide" / "Data0001.dat")


def replace_by_file(root: Path) -> None:
    shutil.copy(root.parent / "outside" / "slide" / "Data0001.dat", root / "slide" / "new")
    (root / "slide" / "new").replace(root / "slide" / "Data0001.dat")


def replace_folder_by_link(root: Path) -> None:
    (root / "slide").rename(root / "away")
    (root / "slide").symlink_to(root.parent / "outside" / "slide")


@pytest.mark.parametrize("swap", [replace_by_link, replace_by_file, replace_folder_by_link])
def test_what_is_swapped_in_while_it_is_read_is_never_seen_and_is_said(
    root: Path, swap: Callable[[Path], None]
) -> None:
    with Roots([root]).open("slide.mrxs") as slide:
        slide.verify_unchanged()
        assert slide.image_id
        swap(root)
        pixels = slide.read_region(Box(150, 5, 160, 15), width=10, height=10)
        assert np.abs(pixels.astype(int) - BLUE).max() <= 2
        with pytest.raises(ImageChangedError):
            slide.verify_unchanged()
    if swap is replace_by_file:
        assert np.abs(np.array(colour(root)) - GREEN).max() <= 2
    else:
        with pytest.raises(OutsideRootsError):
            colour(root)


def test_no_view_shows_a_slide_from_outside_while_its_folder_is_swapped(tmp_path: Path) -> None:
    assert swapping.viewed(tmp_path, 3.0)[0] == 0


def test_a_view_of_a_slide_that_changes_meanwhile_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tissuetalk.tools.drawing import drawing

    read = drawing.pixels_of

    def change_then_read(*given: object) -> object:
        with (root / "slide" / "Data0001.dat").open("ab") as file:
            file.write(b"more")
        return read(*given)  # type: ignore[arg-type]  # whatever it was given

    monkeypatch.setattr(drawing, "pixels_of", change_then_read)
    with Session(root) as session, pytest.raises(ImageChangedError):
        session.view("slide.mrxs")


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of this process and of its worker, which other tests on this machine do not share."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    WORKER.stop()
    yield folder
    WORKER.stop()


def test_nothing_of_a_slide_is_left_open_or_lying_about(root: Path, own_temporary_folder: Path) -> None:
    def held() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def lying() -> list[Path]:
        return list(own_temporary_folder.glob("tissuetalk-slide-*"))

    with Roots([root]).open("slide.mrxs"):
        assert lying()
    colour(root)
    descriptors = held()
    for _ in range(5):
        colour(root)
    (root / "slide" / "Index.dat").write_bytes(b"nonsense")
    for _ in range(5):
        with pytest.raises(TissuetalkError):
            colour(root)
    assert held() <= descriptors + 1
    # the worker tidies up behind a process that has ended
    wait_until(lambda: not lying())


@pytest.mark.parametrize(
    "line",
    [
        b"FILE_7 = ../../outside/slide/Data0000.dat",
        b"  file_7=/etc/passwd",
        b"FILE_7 = a\r/../../etc/passwd",
        b"FILE_7 = ..",
        b"INDEXFILE = ..\\Index.dat",
        b"FILE_7 =",
        b"\tFILE_7\t=\tb/c\t",
        b"FILE_7 = a\0b",
    ],
)
def test_a_name_in_the_index_is_never_a_path(line: bytes) -> None:
    with pytest.raises(OutsideRootsError):
        parts.names_in(b"[DATAFILE]\nFILE_0 = Data0000.dat\n" + line + b"\n", "slide.mrxs")


def test_names_are_found_as_the_reader_finds_them() -> None:
    assert parts.names_in(Mirax(slidedat(files=2)).slidedat(), "slide.mrxs") == [
        "Data0000.dat",
        "Data0001.dat",
        "Index.dat",
    ]
    assert parts.names_in(b"FILENAME = a/b\nOBJECTIVE_NAME = 20x/0.8\nFILE_COUNT = 2\n", "slide.mrxs") == []


@pytest.mark.parametrize("filler", [b"\n", b" ", b"\r\n", b"FILE_", b"=", b"FILE_1 = a\n", b"\t\n"])
def test_the_index_is_read_in_linear_time(filler: bytes) -> None:
    started = time.process_time()
    parts.names_in(filler * (2_000_000 // len(filler)), "slide.mrxs")
    assert time.process_time() - started < 2.5


def test_a_slide_that_lacks_a_file_it_names_says_so(root: Path) -> None:
    (root / "slide" / "Data0001.dat").unlink()
    with pytest.raises(UnreadableImageError, match="needs the whole of its data folder"):
        colour(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_files_of_another_user_are_never_part_of_a_slide(root: Path) -> None:
    os.chown(root / "slide" / "Data0001.dat", 12345, 12345)
    with pytest.raises(UnreadableImageError, match="different users"):
        colour(root)


def dicom_files(folder: Path) -> tuple[Path, Path]:
    """A level of one caller, and a file of another that says it belongs to the same series, larger and black."""
    folder.mkdir(exist_ok=True)
    own = base_level(SMALL)
    own.save_as(folder / "own.dcm", enforce_file_format=True)
    strange = base_level(Drawing(side_px=1024, fragment_mm2=0.0, fragments=0, mpp=0.5, smallest_px=1024))
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(strange, name, getattr(own, name))
    strange.save_as(folder / "strange.dcm", enforce_file_format=True)
    return folder / "own.dcm", folder / "strange.dcm"


def test_an_upload_is_never_part_of_anothers_slide(tmp_path: Path) -> None:
    own, strange = dicom_files(tmp_path / "sent")
    (tmp_path / "root").mkdir()
    with Session(tmp_path / "root", tmp_path / "work") as session:
        mine = session.upload(own.read_bytes())
        with session.open(mine["image"]) as slide:
            before = slide.overview()
        theirs = session.upload(strange.read_bytes())
        assert mine["image_id"] != theirs["image_id"]
        assert (theirs["width"], mine["width"]) == (1024, 512)
        with session.open(mine["image"]) as slide:
            assert slide.image_id == mine["image_id"] and np.array_equal(slide.overview(), before)
            assert len(slide.files) == 1


def test_a_series_has_one_id_whichever_file_is_opened_and_another_with_another_file(tmp_path: Path) -> None:
    _, strange = dicom_files(tmp_path)
    roots = Roots([tmp_path])
    with roots.open("own.dcm") as one, roots.open("strange.dcm") as other:
        assert one.image_id == other.image_id and (one.width, len(one.files)) == (1024, 2)
        both = one.image_id
    strange.unlink()
    with roots.open("own.dcm") as alone:
        assert alone.image_id != both and alone.width == 512


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_a_file_of_another_user_does_not_join_a_series(tmp_path: Path) -> None:
    _, strange = dicom_files(tmp_path)
    os.chown(strange, 12345, 12345)
    with Roots([tmp_path]).open("own.dcm") as slide:
        assert slide.width == 512 and len(slide.files) == 1


@pytest.mark.parametrize(
    "damage",
    [b"", b"\xff" * 2000, b"\x20\x00\x0e\x00UI\xff\xff", b"\x08\x00\x05\x00SQ\0\0\xff\xff\xff\xff" * 5000],
)
def test_a_header_that_cannot_be_read_belongs_to_no_series(damage: bytes) -> None:
    assert parts.series_in(bytes(128) + b"DICM" + damage) is None


def test_the_series_is_that_of_the_file_not_of_one_it_refers_to(tmp_path: Path) -> None:
    own = base_level(SMALL)
    other = pydicom.Dataset()
    other.SeriesInstanceUID = "1.2.3"
    own.ReferencedSeriesSequence = [other]
    own.save_as(tmp_path / "own.dcm", enforce_file_format=True)
    assert parts.series_of(tmp_path / "own.dcm") == own.SeriesInstanceUID
