"""Slides that are damaged, replaced or silent, and places that cannot be written: a named error, and finished work kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tifffile
from drawn_slides import Drawing, draw

from tissuetalk.models.control import Control
from tissuetalk.models.errors import (
    CancelledError,
    ImageChangedError,
    UnreadableImageError,
    WorkspaceFullError,
    WorkspaceUnwritableError,
)
from tissuetalk.models.images import open_image
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.answers.results import Mask, SegmentResult
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session

NUCLEI = Request("request", (Target(None, "nuclei"),))
SMALL_BLOCKS = SlideSettings(whole_px=0, tile_px=256, window_px=256)
DRAWING = Drawing(side_px=900, fragment_mm2=0.04, mpp=0.5, smallest_px=400)
Progress = Callable[[float, str], None]


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return draw(DRAWING, tmp_path / "in" / "slide.svs")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Mask]:
    """What the slide holds when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return segmented(draw(DRAWING, folder / "slide.svs"), folder / "w").masks


@contextmanager
def at_work(slide: Path, workspace: Path) -> Iterator[Session]:
    with closing(Session(slide.parent, workspace, slides=SMALL_BLOCKS)) as bench:
        yield bench


def segmented(
    slide: Path, workspace: Path, progress: Progress = lambda done, what: None, mpp: float | None = None
) -> SegmentResult:
    order = SegmentRequest(str(slide), NUCLEI, None, mpp, "classical-nuclei")
    with at_work(slide, workspace) as bench:
        return segment(bench, order, Control(progress))


def kept(workspace: Path) -> set[str]:
    """Names of finished blocks and windows of unfinished work, and of finished results."""
    names = {path.name for path in (workspace / "unfinished").rglob("*") if path.suffix in (".maps", ".json")}
    assert not list((workspace / "partial").glob("*/*")), "nothing is half written"
    return names - {"plan.json"}


def after_block(number: int, then: Callable[[], None]) -> Progress:
    """Progress that does something once, when so many blocks are done."""
    done: list[str] = []

    def progress(share: float, what: str) -> None:
        if not done and what.startswith(f"block {number} "):
            done.append(what)
            then()

    return progress


def with_blank(path: Path, level: int, share: float) -> None:
    """Overwrite the stored tile at ``share`` of a level with zeros: it no longer decodes."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level]
        index = int(len(page.dataoffsets) * share)
        offset, count = page.dataoffsets[index], page.databytecounts[index]
    with path.open("rb+") as file:
        file.seek(offset)
        file.write(bytes(count))


def test_a_slide_cut_off_in_the_middle_is_refused_by_name(slide: Path, tmp_path: Path) -> None:
    content = slide.read_bytes()
    slide.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableImageError, match="fresh copy"):
        segmented(slide, tmp_path / "w")


@pytest.mark.parametrize("kind", ["svs", "tiff"])
def test_a_part_that_does_not_decode_is_named_and_finished_blocks_are_kept(tmp_path: Path, kind: str) -> None:
    slide = draw(replace(DRAWING, side_px=1600, kind=kind), tmp_path / f"slide.{kind}")
    with_blank(slide, 0, 0.6)
    with pytest.raises(UnreadableImageError, match="damaged") as refused:
        segmented(slide, tmp_path / "w")
    assert slide.name in str(refused.value) and "\n" not in str(refused.value)
    assert kept(tmp_path / "w")


def test_a_small_level_that_does_not_decode_is_named(tmp_path: Path) -> None:
    slide = draw(replace(DRAWING, side_px=9000, smallest_px=3000), tmp_path / "slide.svs")
    with_blank(slide, 1, 0.5)
    with pytest.raises(UnreadableImageError, match="damaged"):
        segmented(slide, tmp_path / "w")


def test_without_a_scale_the_work_goes_on_in_pixels_with_a_warning(tmp_path: Path) -> None:
    slide = draw(replace(DRAWING, says_mpp=False), tmp_path / "slide.svs")
    result = segmented(slide, tmp_path / "w")
    assert result.image.mpp_source == "assumed" and "scale_unknown" in {w.code for w in result.warnings}
    (mask,) = result.masks
    assert mask.count and mask.area_px and mask.area_um2 is None
    given = segmented(slide, tmp_path / "w", mpp=0.5)
    assert given.image.mpp_source == "given" and given.masks[0].area_um2


def test_a_slide_without_tissue_is_an_answer_that_says_so(tmp_path: Path) -> None:
    slide = draw(replace(DRAWING, fragments=0), tmp_path / "empty.svs")
    result = segmented(slide, tmp_path / "w")
    (mask,) = result.masks
    assert (mask.found, mask.count, mask.area_px) == (False, 0, 0)
    assert "not_histology" in {warning.code for warning in result.warnings}
    assert any("no tissue" in note for note in result.notes)


def test_a_slide_replaced_while_it_is_read_ends_the_work(slide: Path, tmp_path: Path) -> None:
    other = draw(replace(DRAWING, seed=5), tmp_path / "other.svs")
    with pytest.raises(ImageChangedError, match="slide.svs".replace(".", r"\.")):
        segmented(slide, tmp_path / "w", after_block(3, lambda: other.replace(slide)))
    assert kept(tmp_path / "w")
    again = segmented(slide, tmp_path / "w")
    with open_image(slide, name="slide.svs") as now:
        assert again.image.image_id == now.image_id


def test_a_full_disk_is_named_and_the_work_goes_on_when_there_is_room(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[Mask]
) -> None:
    written = Path.write_bytes
    left = iter(range(8))

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".partial" and next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(path, data)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.raises(WorkspaceFullError, match="full"):
            segmented(slide, tmp_path / "w")
    before = kept(tmp_path / "w")
    assert before
    said: list[str] = []
    result = segmented(slide, tmp_path / "w", lambda done, what: said.append(what))
    assert said[0] == "going on with earlier work"
    assert result.masks == undisturbed


def test_a_workspace_that_cannot_be_written_is_named(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceUnwritableError, match="writable"):
        segmented(slide, tmp_path / "file" / "w")


def test_a_workspace_that_becomes_read_only_on_the_way_is_named(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, data: bytes) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as disk, pytest.raises(WorkspaceUnwritableError, match="writable"):
        segmented(slide, tmp_path / "w", after_block(2, lambda: disk.setattr(Path, "write_bytes", read_only)))
    assert kept(tmp_path / "w")


def test_cancelled_work_is_kept_and_ends_with_the_same_objects(
    slide: Path, tmp_path: Path, undisturbed: list[Mask]
) -> None:
    stopping: list[bool] = []
    order = SegmentRequest(str(slide), NUCLEI, None, None, "classical-nuclei")
    with at_work(slide, tmp_path / "w") as bench:
        with pytest.raises(CancelledError, match="kept"):
            segment(
                bench,
                order,
                Control(after_block(4, lambda: stopping.append(True)), lambda: bool(stopping)),
            )
        assert kept(tmp_path / "w")
        said: list[str] = []
        resumed = segment(bench, order, Control(lambda done, what: said.append(what)))
    assert "going on with earlier work" in said and "block 1 of" not in " ".join(said)
    assert resumed.masks == undisturbed
