"""Many slides in one call: a table at the end, broken slides beside the others, nothing done twice."""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from drawn import disc_image
from drawn_slides import Drawing, draw

from tissuetalk.models.control import Control
from tissuetalk.models.errors import (
    BusyError,
    CancelledError,
    InvalidArgumentError,
    TissuetalkError,
    UnknownImageError,
    UnreadableImageError,
    WorkspaceFullError,
)
from tissuetalk.prompts.target import Request, Target
from tissuetalk.server.commands import command_line
from tissuetalk.tools.cohort.cohort import Outcome, SlideJob, here, run_cohort, run_slide
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.storage import addresses

NUCLEI = SegmentRequest("", Request("request", (Target(None, "nuclei"),)), mpp=0.5, model="classical-nuclei")
ASK = ("nuclei", "--model", "classical-nuclei", "--mpp", "0.5")


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The command as its entry point runs it, in this process."""

    def command(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["tissuetalk", "segment", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return Ran(ended.value.code, *capfd.readouterr())

    return command


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Three pictures of 4, 5 and 6 nuclei."""
    for count in (4, 5, 6):
        disc_image(tmp_path / "in" / f"case{count}.png", count)
    return tmp_path / "in"


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "cohort.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cohort(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "cohort.json").read_text("utf-8"))


def paths(folder: Path) -> list[str]:
    return addresses.expand([str(folder / "*.png")])


def test_a_pattern_becomes_a_table_and_a_result_per_slide(
    run: Callable[..., Ran], slides: Path, tmp_path: Path
) -> None:
    done = run("--cohort", f"{slides}/*.png", *ASK, "--out", tmp_path / "out")
    assert done.status == 0 and "case5" in done.out and done.err == ""
    rows = table(tmp_path / "out")
    assert [(row["slide"], row["state"], row["count"]) for row in rows] == [
        (f"case{count}", "done", str(count)) for count in (4, 5, 6)
    ]
    for row in rows:
        density = float(row["count"]) / float(row["tissue_mm2"])
        assert float(row["density_per_mm2"]) == pytest.approx(density)
        answer = json.loads((tmp_path / "out" / row["result"] / "result.json").read_text("utf-8"))
        assert answer["masks"][0]["count"] == int(row["count"])
    totals = cohort(tmp_path / "out")
    assert totals["states"] == {"done": 3} and totals["targets"]["nuclei"]["count"] == 15
    assert totals["tissue_mm2"] == pytest.approx(sum(float(row["tissue_mm2"]) for row in rows))
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_json_is_the_whole_table(run: Callable[..., Ran], slides: Path, tmp_path: Path) -> None:
    done = run("--cohort", f"{slides}/case4.png", *ASK, "--out", tmp_path / "out", "--json")
    assert done.status == 0 and json.loads(done.out) == cohort(tmp_path / "out")


def test_broken_slides_are_rows_with_their_error_and_the_others_are_done(
    run: Callable[..., Ran], slides: Path, tmp_path: Path
) -> None:
    (slides / "case1.png").write_bytes(b"")
    (slides / "case2.png").write_bytes((slides / "case5.png").read_bytes()[:300])
    done = run("--cohort", f"{slides}/*.png", *ASK, "--out", tmp_path / "out")
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith("tissuetalk: 2 of 5 slides are not done (unreadable_image 2)")
    rows = {row["slide"]: row for row in table(tmp_path / "out")}
    assert [rows[f"case{n}"]["state"] for n in (1, 2, 4, 5, 6)] == ["failed"] * 2 + ["done"] * 3
    assert rows["case1"]["error_code"] == "unreadable_image" and "empty" in rows["case1"]["error_message"]
    assert cohort(tmp_path / "out")["errors"] == {"unreadable_image": 2}


def test_a_second_run_does_only_what_is_not_finished(slides: Path, tmp_path: Path) -> None:
    broken = slides / "case9.png"
    broken.write_bytes(b"")
    done: list[str] = []

    def counting(jobs, control) -> Iterator[Outcome]:
        done.extend(job.name for job in jobs)
        yield from here(jobs, control)

    first = run_cohort(paths(slides), NUCLEI, tmp_path / "out", work=counting)
    disc_image(broken, 9)
    second = run_cohort(paths(slides), NUCLEI, tmp_path / "out", work=counting)
    assert done == ["case4", "case5", "case6", "case9", "case9"]
    assert (first.exit_status, second.exit_status) == (2, 0)
    assert first.slides[:3] == second.slides[:3] and second.slides[3].masks[0].count == 9


def test_a_slide_that_was_replaced_is_done_again(slides: Path, tmp_path: Path) -> None:
    run_cohort(paths(slides), NUCLEI, tmp_path / "out")
    disc_image(slides / "case5.png", 7)
    again = run_cohort(paths(slides), NUCLEI, tmp_path / "out")
    assert [slide.masks[0].count for slide in again.slides] == [4, 7, 6]


def test_an_unfinished_slide_goes_on_from_its_last_block(tmp_path: Path) -> None:
    slide = draw(Drawing(side_px=700, fragment_mm2=0.02, mpp=0.5, smallest_px=400), tmp_path / "slide.svs")
    small = SlideSettings(whole_px=0, tile_px=256, window_px=256)
    said: list[str] = []

    def stopped(jobs: list[SlideJob], control) -> Iterator[Outcome]:
        with pytest.raises(CancelledError) as cancelled:
            run_slide(
                jobs[0],
                Control(lambda done, what: said.append(what), lambda: "block 2 " in "".join(said)),
                slides=small,
            )
        yield jobs[0], cancelled.value

    def resumed(jobs: list[SlideJob], control) -> Iterator[Outcome]:
        said.clear()
        yield jobs[0], run_slide(jobs[0], Control(lambda done, what: said.append(what)), slides=small)

    first = run_cohort([str(slide)], NUCLEI, tmp_path / "out", work=stopped)
    assert first.errors == {"cancelled": 1} and (tmp_path / "out" / ".unfinished" / "slide").is_dir()
    second = run_cohort([str(slide)], NUCLEI, tmp_path / "out", work=resumed)
    assert said[0] == "going on with earlier work" and not any("block 1 " in what for what in said)
    assert second.exit_status == 0 and second.slides[0].masks[0].count and second.slides[0].tissue_mm2
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_slides_of_the_same_name_are_kept_apart(slides: Path, tmp_path: Path) -> None:
    other = disc_image(tmp_path / "other" / "case4.png", 8)
    found = run_cohort([*paths(slides), str(other)], NUCLEI, tmp_path / "out")
    assert sorted(slide.masks[0].count for slide in found.slides) == [4, 5, 6, 8]
    assert len({slide.result for slide in found.slides}) == 4


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(slides: Path, tmp_path: Path) -> None:
    def full_after_one(jobs, control) -> Iterator[Outcome]:
        yield jobs[0], run_slide(jobs[0])
        yield jobs[1], WorkspaceFullError("the disk is full; free some space")
        assert control.stop()

    ended = run_cohort(paths(slides), NUCLEI, tmp_path / "out", work=full_after_one)
    assert [slide.state for slide in ended.slides] == ["done", "failed", "pending"]
    assert ended.exit_status == 3 and ended.errors == {"workspace_full": 1}
    assert cohort(tmp_path / "out")["states"] == {"done": 1, "failed": 1, "pending": 1}


def test_a_crash_of_one_slide_is_a_row_too(
    slides: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def crashing(jobs, control) -> Iterator[Outcome]:
        yield jobs[0], RuntimeError("no reader should do this")
        yield from here(jobs[1:], control)

    ended = run_cohort(paths(slides), NUCLEI, tmp_path / "out", work=crashing)
    assert [slide.state for slide in ended.slides] == ["failed", "done", "done"]
    assert ended.exit_status == 3 and ended.errors == {"error": 1}
    assert "no reader should do this" in caplog.text


def test_another_request_and_a_folder_in_use_are_refused(
    run: Callable[..., Ran], slides: Path, tmp_path: Path
) -> None:
    run_cohort(paths(slides)[:1], NUCLEI, tmp_path / "out")
    refused = run("--cohort", f"{slides}/*.png", "tumour", "--out", tmp_path / "out")
    assert refused.status == 2 and "another request" in refused.err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    refused = run("--cohort", f"{slides}/*.png", *ASK, "--out", tmp_path / "mine")
    assert refused.status == 2 and "in use" in refused.err


def test_what_cannot_be_asked_of_many_slides_is_refused(
    run: Callable[..., Ran], slides: Path, tmp_path: Path
) -> None:
    pattern = ("--cohort", f"{slides}/*.png")
    out = ("--out", tmp_path / "out")
    for arguments in (
        (*pattern, *ASK, "--point", "1,2", *out),
        (*pattern, *ASK, "--engine", "quantum", *out),
        (*pattern, *ASK, "--ray-address", "somewhere:1", *out),
        (slides / "case4.png", *ASK, "--engine", "quantum", *out),
        (slides / "case4.png", *ASK, "--ray-address", "somewhere:1", *out),
        (*ASK[1:], *out),
    ):
        refused = run(*arguments)
        assert refused.status == 2 and refused.err.startswith("tissuetalk: invalid_argument: ")
    missing = run("--cohort", f"{slides}/*.svs", *ASK, *out)
    assert missing.status == 2 and missing.err.startswith("tissuetalk: unknown_image: ")
    assert not (tmp_path / "out").exists()


def test_two_runs_never_write_to_one_folder(slides: Path, tmp_path: Path) -> None:
    def another(jobs: list[SlideJob], control) -> Iterator[Outcome]:
        with pytest.raises(BusyError):
            run_cohort(paths(slides), NUCLEI, tmp_path / "out")
        yield from here(jobs, control)

    assert run_cohort(paths(slides)[:1], NUCLEI, tmp_path / "out", work=another).exit_status == 0


def test_a_cohort_in_a_read_only_place_is_refused_by_name(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TissuetalkError) as refused:
        run_cohort(paths(slides), NUCLEI, tmp_path / "file" / "out")
    assert refused.value.code == "workspace_unwritable"


def test_slides_in_an_archive_are_copied_first_and_read(slides: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "slides.zip", "w") as archive:
        for path in slides.iterdir():
            archive.write(path, f"batch/{path.name}")
    inside = addresses.expand([f"zip://batch/*.png::file://{tmp_path}/slides.zip"])
    found = run_cohort([*inside, f"file://{slides}/case4.png"], NUCLEI, tmp_path / "out")
    assert found.exit_status == 0 and sorted(slide.masks[0].count for slide in found.slides) == [4, 4, 5, 6]
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_results_may_go_to_an_address_and_are_known_there(
    run: Callable[..., Ran], slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/slides/case4.png", (slides / "case4.png").read_bytes())
    try:
        for cache in ("one", "two"):  # the second machine has never seen the cohort
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
            done = run("--cohort", "memory://slides/*.png", *ASK, "--out", "memory://results/run")
            assert done.status == 0, done.err
        row = json.loads(memory.cat("/results/run/slides/case4.json"))
        assert row["masks"][0]["count"] == 4
        assert memory.isfile("/results/run/cohort.csv") and memory.isfile(
            "/results/run/slides/case4/result.json"
        )
        assert not list((tmp_path / "two").rglob("result.json"))
    finally:
        memory.rm("/slides", recursive=True)
        memory.rm("/results", recursive=True)


def test_addresses_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="nosuch"):
        addresses.expand(["nosuch://bucket/*.svs"])
    with pytest.raises(UnknownImageError):
        addresses.fetch("memory://nothing/here.svs", tmp_path)
    with pytest.raises(UnreadableImageError, match="several files"):
        addresses.fetch("memory://slides/scan.mrxs", tmp_path)
    with pytest.raises(UnknownImageError):
        addresses.stamp(str(tmp_path / "gone.svs"))
