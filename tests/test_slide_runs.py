"""Slide runs that are stopped, killed, repeated, or go wrong: finished work is kept and the end is the same."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from drawn import HAEMATOXYLIN, discs, save
from slide_runs import DIE_AFTER, LOG, PAUSE, SMALL, SlideRun, bench_at, order_of, register, run

from tissuetalk.models.errors import (
    BusyError,
    CancelledError,
    ImageChangedError,
    UnreadableImageError,
    WorkspaceFullError,
    WorkspaceUnwritableError,
)
from tissuetalk.prompts.target import Relation, Target
from tissuetalk.tools.answers.explained import Preliminary
from tissuetalk.tools.masks import rasters
from tissuetalk.tools.segment import tiles as tile_files

CENTRES = [(x, y) for x in range(40, 700, 60) for y in range(40, 500, 60)]
STROMA = (225, 170, 205)
SCRIPT = Path(__file__).parent / "slide_runs.py"


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """720 x 520 px of stroma with 88 nuclei."""
    return save(tmp_path / "images" / "discs.png", discs(720, 520, CENTRES, 9.5, STROMA))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One line per encoded tile."""
    monkeypatch.setenv(LOG, str(tmp_path / "tiles.log"))
    return tmp_path / "tiles.log"


def tiles(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def slide(image: Path, workspace: Path, settings=SMALL, **asked: Any) -> SlideRun:
    bench = bench_at(image.parent, workspace, settings)
    try:
        return run(bench, order_of(image, model="counted-nuclei", **asked))
    finally:
        bench.close()


def runs_in(workspace: Path) -> list[Path]:
    return [path for path in (workspace / "unfinished").iterdir() if path.is_dir()]


def finished_in(workspace: Path) -> int:
    """Blocks and windows that are done."""
    return sum(
        len(list(folder.rglob("*.maps")) + list(folder.rglob("windows/*.json")))
        for folder in runs_in(workspace)
    )


def test_a_killed_run_goes_on_where_it_was_and_ends_the_same_bit_for_bit(
    image: Path, tmp_path: Path, log: Path
) -> None:
    command = [sys.executable, str(SCRIPT), str(image), str(tmp_path / "work")]
    slow = os.environ | {PAUSE: "0.4"}
    for kill_after in (5, 9):
        process = subprocess.Popen(command, env=slow, stdout=subprocess.DEVNULL)
        while finished_in_or_none(tmp_path / "work") < kill_after and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    before = tiles(log)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    again = tiles(log) - before
    (result,) = (tmp_path / "work" / "results").iterdir()
    assert result.name == done.stdout.strip() and runs_in(tmp_path / "work") == []
    at_once = slide(image, tmp_path / "other")
    all_tiles = tiles(log) - before - again
    assert 0 < again < all_tiles
    killed = SlideRun(at_once.result, result)
    assert killed.content() == at_once.content() and len(at_once.content()) > 5
    for name in ("overlay.png", f"masks/{at_once.mask().mask_id}.png"):
        assert (killed.folder / name).read_bytes() == (at_once.folder / name).read_bytes()


def finished_in_or_none(workspace: Path) -> int:
    return finished_in(workspace) if (workspace / "unfinished").is_dir() else 0


LATE = (
    "tissuetalk.tools.segment.slide:stitch",
    "tissuetalk.tools.segment.slide:paint",
    "tissuetalk.tools.segment.slide:write_tables",
    "tissuetalk.tools.storage.result_folder:ResultFolder.write_result",
    "tissuetalk.tools.segment.slide:remove",
)


def test_a_kill_after_the_last_block_costs_no_block(image: Path, tmp_path: Path, log: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(image), str(tmp_path / "work")]
    encoded = []
    for place in LATE:
        killed = subprocess.run(
            command, check=False, env=os.environ | {DIE_AFTER: place}, stdout=subprocess.DEVNULL
        )
        assert killed.returncode == -signal.SIGKILL, place
        encoded.append(tiles(log))
    done = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert all(later - earlier <= 2 for earlier, later in pairwise(encoded))  # only first looks
    assert [path.name for path in (tmp_path / "work" / "results").iterdir()] == [done]
    at_once = slide(image, tmp_path / "other")
    assert SlideRun(at_once.result, tmp_path / "work" / "results" / done).content() == at_once.content()


def test_a_cancelled_run_keeps_its_blocks(image: Path, tmp_path: Path, log: Path) -> None:
    bench = bench_at(image.parent, tmp_path / "work")
    order = order_of(image, model="counted-nuclei")
    with pytest.raises(CancelledError, match="kept"):
        run(bench, order, stop=lambda: tiles(log) >= 8)
    assert finished_in(tmp_path / "work") >= 6 and bench.workspace.results() == []
    first = tiles(log)
    found = run(bench, order)
    assert tiles(log) - first < first + 20 and found.mask().count == len(CENTRES)
    assert runs_in(tmp_path / "work") == []
    bench.close()


def test_a_second_question_reuses_stored_features(image: Path, tmp_path: Path, log: Path) -> None:
    bench = bench_at(image.parent, tmp_path / "work")
    first = run(bench, order_of(image, model="counted-nuclei"))
    encoded = tiles(log)
    second = run(bench, order_of(image, ["all nuclei"], model="counted-nuclei"))
    assert tiles(log) == encoded + 2  # the first look at a sample and at the whole
    assert second.outlines("all nuclei") == first.outlines()
    bench.close()


def test_a_question_about_a_region_touches_only_its_blocks(image: Path, tmp_path: Path, log: Path) -> None:
    region = (165, 170, 360, 250)
    part = slide(image, tmp_path / "work", region=region)
    about = json.loads((part.folder / "slide" / "slide.json").read_text())
    assert {block["id"] for block in about["blocks"]} == {"0.5:1_1", "0.5:2_1"}
    assert tiles(log) == 2 + 2
    bench = bench_at(image.parent, tmp_path / "work")
    run(bench, order_of(image, ["all nuclei"], model="counted-nuclei"))
    assert tiles(log) == 4 + 24 - 2 + 2
    bench.close()


def test_blocks_nearest_to_the_users_point_come_first(image: Path, tmp_path: Path) -> None:
    bench = bench_at(image.parent, tmp_path / "work")
    with pytest.raises(CancelledError):
        run(
            bench,
            order_of(image, model="counted-nuclei", points=((640.0, 460.0),)),
            stop=lambda: finished_in_or_none(tmp_path / "work") >= 2,
        )
    names = [path.stem for path in (tmp_path / "work").rglob("*.maps")]
    assert names and min(int(name.split("_")[0]) for name in names) >= 2
    bench.close()


def test_progress_never_falls_and_ends_near_one(image: Path, tmp_path: Path) -> None:
    said: list[float] = []
    bench = bench_at(image.parent, tmp_path / "work")
    run(bench, order_of(image, model="counted-nuclei"), progress=lambda done, what: said.append(done))
    assert said == sorted(said) and len(said) > 20 and 0.9 < said[-1] <= 1
    bench.close()


def test_an_overview_is_there_before_the_first_block(image: Path, tmp_path: Path) -> None:
    seen: list[Preliminary] = []

    def look() -> bool:
        for path in (tmp_path / "work").glob("unfinished/*/preliminary.json"):
            seen.append(Preliminary.model_validate_json(path.read_bytes()))
            assert path.with_suffix(".jpg").read_bytes().startswith(b"\xff\xd8")
        return bool(seen)

    bench = bench_at(image.parent, tmp_path / "work")
    with pytest.raises(CancelledError):
        run(bench, order_of(image, model="counted-nuclei"), stop=look)
    (finding,) = seen[0].findings
    assert seen[0].done_share == 0 and finding.count_so_far == 0 and "preliminary" in seen[0].caveat
    assert finding.estimated_per_mm2 == pytest.approx(len(CENTRES) / (720 * 520 * 0.25e-6), rel=0.25)
    assert seen[0].tissue_area_mm2 == pytest.approx(720 * 520 * 0.25e-6, rel=0.02)
    bench.close()


def test_one_order_is_worked_on_once_at_a_time(image: Path, tmp_path: Path) -> None:
    bench, order = bench_at(image.parent, tmp_path / "work"), order_of(image, model="counted-nuclei")
    refused: list[BusyError] = []

    def ask_again() -> bool:
        if not refused:
            with pytest.raises(BusyError) as error:
                run(bench, order)
            refused.append(error.value)
        return False

    assert run(bench, order, stop=ask_again).mask().count == len(CENTRES)
    assert len(refused) == 1
    bench.close()


def test_objects_are_chosen_by_points_boxes_and_relations(image: Path, tmp_path: Path) -> None:
    everything = slide(image, tmp_path / "work").rows()
    at = slide(image, tmp_path / "work", points=((101.0, 99.0), (165.0, 160.0 + 12), (70.0, 70.0)))
    assert sorted(np.rint(at.rows()["centroid_x"].to_numpy())) == [100, 160]
    boxed = slide(image, tmp_path / "work", boxes=((90.0, 90.0, 230.0, 170.0),))
    assert boxed.mask().count == 6 < everything.num_rows
    assert sorted(boxed.rows()["object_id"].to_pylist()) == list(range(1, 7))


def test_objects_inside_a_region_and_a_region_cut_by_objects(tmp_path: Path, image: Path) -> None:
    picture = np.full((500, 700, 3), STROMA, np.uint8)
    picture[50:450, 50:350] = (200, 160, 190)
    for x, y in ((100, 100), (340, 200), (200, 400), (355, 300), (600, 200)):
        picture[y : y + 16, x : x + 16] = HAEMATOXYLIN
    save(tmp_path / "images" / "bars.png", picture)
    inside = Target(None, "parts", relation=Relation("inside", "dark"))
    outside = Target(None, "parts", relation=Relation("outside", "dark"))
    cut = Target(None, "dark", relation=Relation("intersection", "parts"))
    bench = bench_at(tmp_path / "images", tmp_path / "work", replace(SMALL, tile_px=None))
    for target, count in ((inside, 3), (outside, 2)):
        order = order_of(
            tmp_path / "images" / "bars.png", model="dark-parts", targets=(target, Target(None, "dark"))
        )
        assert run(bench, order).mask("parts").count == count
    found = run(bench, order_of(tmp_path / "images" / "bars.png", model="dark-parts", targets=(cut,))).result
    assert found.not_segmented == []
    (common,) = [mask for mask in found.masks if mask.free_form == "dark"]
    assert common.area_px == 3 * 16 * 16 and common.count is None
    bench.close()


def pyramid(path: Path, **options: Any) -> Path:
    """Two levels of tiles, as JPEG so that damage shows."""
    picture = discs(1100, 1100, CENTRES, 9.5, STROMA)
    path.parent.mkdir(exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate((picture, picture[::4, ::4])):
            tiff.write(
                level,
                tile=(256, 256),
                compression="jpeg",
                photometric="rgb",
                subfiletype=int(number > 0),
                **options,
            )
    return path


def test_a_damaged_place_ends_in_a_named_error_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rasters, "VIEW_PX", 256)  # of a real slide, too, tissue is found on a smaller level
    path = pyramid(tmp_path / "images" / "slide.tif")
    with tifffile.TiffFile(path) as tiff:
        at, count = tiff.pages[0].dataoffsets[12], tiff.pages[0].databytecounts[12]
    content = bytearray(path.read_bytes())
    content[at : at + count] = b"\0" * count
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"slide\.tif"):
        slide(path, tmp_path / "work")
    assert finished_in(tmp_path / "work") > 0


def test_a_slide_cut_short_is_refused(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "images" / "slide.tif")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableImageError):
        slide(path, tmp_path / "work")


def test_a_slide_without_a_scale_is_worked_on_with_an_assumed_one(tmp_path: Path) -> None:
    found = slide(pyramid(tmp_path / "images" / "slide.tif"), tmp_path / "work", mpp=None)
    assert found.result.image.mpp_source == "assumed" and found.result.image.mpp == 0.5
    assert "scale_unknown" in [warning.code for warning in found.result.warnings]
    assert found.mask().area_um2 is None and "area_um2" not in found.rows().schema.names
    about = json.loads((found.folder / "slide" / "slide.json").read_text())
    assert about["tissue_area_mm2"] is None and about["tissue_area_px"] > 0


def test_a_slide_replaced_while_it_is_read_is_noticed(image: Path, tmp_path: Path, log: Path) -> None:
    def replaced() -> bool:
        if tiles(log) >= 3 and not (tmp_path / "images" / "old.png").exists():
            image.rename(tmp_path / "images" / "old.png")
            save(image, discs(720, 520, CENTRES[:5], 9.5, STROMA))
        return False

    bench = bench_at(image.parent, tmp_path / "work")
    with pytest.raises(ImageChangedError):
        run(bench, order_of(image, model="counted-nuclei"), stop=replaced)
    assert bench.workspace.results() == []
    after = run(bench, order_of(image, model="counted-nuclei"))
    assert after.mask().count == 5
    bench.close()


def test_a_full_disk_is_named_and_the_work_goes_on_later(
    image: Path, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own answer to a write that does not fit, at the one place where work is written."""
    write, written = tile_files.write_whole, []

    def no_space(path: Path, content: bytes) -> None:
        if path.suffix == ".maps":
            if len(written) == 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            written.append(path)
        write(path, content)

    monkeypatch.setattr(tile_files, "write_whole", no_space)
    with pytest.raises(WorkspaceFullError, match="free some space"):
        slide(image, tmp_path / "work")
    monkeypatch.setattr(tile_files, "write_whole", write)
    assert finished_in(tmp_path / "work") == 4
    assert slide(image, tmp_path / "work").mask().count == len(CENTRES)


def test_a_read_only_workspace_is_named(image: Path, tmp_path: Path) -> None:
    bench = bench_at(image.parent, tmp_path / "work")
    (tmp_path / "work" / "unfinished").rmdir()
    (tmp_path / "work" / "unfinished").write_text(
        "in the way: as unwritable as a read-only disk, also for root"
    )
    with pytest.raises(WorkspaceUnwritableError, match="--workspace"):
        run(bench, order_of(image))
    bench.close()


def test_old_unfinished_work_is_cleared_away(image: Path, tmp_path: Path, log: Path) -> None:
    bench = bench_at(image.parent, tmp_path / "work")
    with pytest.raises(CancelledError):
        run(bench, order_of(image, model="counted-nuclei"), stop=lambda: tiles(log) >= 3)
    (lock,) = (tmp_path / "work" / "unfinished").glob("*.lock")
    os.utime(lock, (0, 0))
    run(bench, order_of(image, ["all nuclei"], model="counted-nuclei"))
    assert runs_in(tmp_path / "work") == []
    bench.close()


def test_no_thread_outlives_a_run(image: Path, tmp_path: Path) -> None:
    slide(image, tmp_path / "work")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("slide-")] == []
