"""Slides on Ray: the same result as on one machine, also when a worker is killed on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import zarr
from drawn import disc_image
from drawn_slides import Drawing, draw

from tissuetalk.models.control import Control
from tissuetalk.models.errors import (
    BusyError,
    InvalidArgumentError,
    ModelUnavailableError,
    UnreadableImageError,
)
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.cohort.cohort import run_cohort, work_on
from tissuetalk.tools.segment import ray_runner
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.segment.ray_runner import Cluster
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session

NUCLEI = Request("request", (Target(None, "nuclei"),))
SMALL_BLOCKS = SlideSettings(whole_px=0, tile_px=256, window_px=512)
DRAWING = Drawing(side_px=800, fragment_mm2=0.03, mpp=0.5, smallest_px=600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray", reason="needs tissuetalk[ray]")
    with Cluster(workers=2) as started:
        yield started


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(DRAWING, tmp_path_factory.mktemp("slides") / "slide.svs")


def objects_and_labels(slide: Path, workspace: Path, **options: object) -> tuple[pyarrow.Table, np.ndarray]:
    """What a run writes: the rows of all objects and the finest labels."""
    progress = options.pop("progress", lambda done, what: None)
    with closing(Session(slide.parent, workspace, slides=SMALL_BLOCKS, **options)) as bench:
        result = segment(
            bench, SegmentRequest(str(slide), NUCLEI, None, None, "classical-nuclei"), Control(progress)
        )
        (mask,) = result.masks
        folder = bench.workspace.result(result.result_id).folder / "slide"
        table = pyarrow.parquet.read_table(folder / "objects" / f"{mask.mask_id}.parquet")
        labels = zarr.open_group(folder / "labels" / f"{mask.mask_id}.ome.zarr", mode="r")["0"][:]
    assert mask.count == table.num_rows > 100
    return table, np.asarray(labels)


@pytest.fixture(scope="module")
def alone(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pyarrow.Table, np.ndarray]:
    return objects_and_labels(slide, tmp_path_factory.mktemp("alone"))


def same(one: tuple[pyarrow.Table, np.ndarray], other: tuple[pyarrow.Table, np.ndarray]) -> bool:
    return one[0].equals(other[0], check_metadata=True) and np.array_equal(one[1], other[1])


def test_blocks_on_two_workers_give_the_same_objects_bit_for_bit(
    cluster: Cluster, slide: Path, alone: tuple[pyarrow.Table, np.ndarray], tmp_path: Path
) -> None:
    assert same(objects_and_labels(slide, tmp_path, runner=cluster.runner), alone)


def test_the_blocks_of_a_killed_worker_are_done_again(
    cluster: Cluster, slide: Path, alone: tuple[pyarrow.Table, np.ndarray], tmp_path: Path
) -> None:
    ray = ray_runner.ray_library()
    victim = ray.get(cluster.models.actors[0].pid.remote())
    killed: list[int] = []

    def kill_once(done: float, what: str) -> None:
        if not killed and what.startswith("block 2 "):
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    found = objects_and_labels(slide, tmp_path, runner=cluster.runner, progress=kill_once)
    assert killed and same(found, alone)
    assert ray.get(cluster.models.actors[0].pid.remote()) != victim


def test_what_a_worker_refuses_arrives_as_our_own_error(cluster: Cluster, tmp_path: Path) -> None:
    path = draw(DRAWING, tmp_path / "slide.svs")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match="damaged") as refused:
        objects_and_labels(path, tmp_path / "work", runner=cluster.runner)
    assert "\n" not in str(refused.value)


def taught_on(slide: Path, workspace: Path, **options: object) -> tuple[np.ndarray, str]:
    """The finest labels of a target shown by two boxes, and what it was taught."""
    with closing(Session(slide.parent, workspace, slides=SMALL_BLOCKS, **options)) as bench:
        result = bench.segment(
            str(slide),
            "necrosis",
            model="classical-nuclei",
            examples=[{"box": [340, 340, 380, 380], "is": True}, {"box": [430, 430, 470, 470], "is": False}],
        ).result
        (mask,) = result.masks
        folder = bench.workspace.result(result.result_id).folder / "slide"
        labels = zarr.open_group(folder / "labels" / f"{mask.mask_id}.ome.zarr", mode="r")["0"][:]
    assert mask.taught is not None and mask.taught.learned_sha256 is not None
    return np.asarray(labels), mask.taught.learned_sha256


def test_a_taught_target_is_the_same_on_workers_as_on_one_machine(
    cluster: Cluster, slide: Path, tmp_path: Path
) -> None:
    here, told = taught_on(slide, tmp_path / "here")
    there, told_there = taught_on(slide, tmp_path / "there", runner=cluster.runner)
    assert told == told_there and np.array_equal(here, there)
    assert 0.01 < (here > 0).mean() < 0.9


def test_a_cohort_on_ray_has_the_table_of_one_machine(cluster: Cluster, tmp_path: Path) -> None:
    slides = [str(disc_image(tmp_path / "in" / f"case{count}.png", count)) for count in (4, 5, 6)]
    order = SegmentRequest("", NUCLEI, mpp=0.5, model="classical-nuclei")
    here = run_cohort(slides, order, tmp_path / "here")
    there = run_cohort(slides, order, tmp_path / "there", work=partial(work_on, cluster))
    assert [slide.masks for slide in there.slides] == [slide.masks for slide in here.slides]
    assert there.exit_status == 0 and there.targets == here.targets


def test_without_ray_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tissuetalk.server.commands import command_line

    picture = disc_image(tmp_path / "case4.png", 4)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModelUnavailableError, match=r"tissuetalk\[ray\]"):
        ray_runner.ray_library()
    out = tmp_path / "out"
    arguments = ["segment", "--cohort", str(picture), "nuclei", "--out", str(out), "--engine", "ray"]
    monkeypatch.setattr(sys, "argv", ["tissuetalk", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 3 and "pip install 'tissuetalk[ray]'" in capfd.readouterr().err


def test_a_cluster_that_does_not_answer_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCluster:
        @staticmethod
        def init(**_: object) -> None:
            raise ConnectionError("nobody there")

    with pytest.raises(InvalidArgumentError, match="nobody:1"):
        ray_runner._connect(NoCluster, "nobody:1", None)


def test_a_machine_too_busy_to_start_ray_is_refused_by_name() -> None:
    class TooSlow:
        @staticmethod
        def init(**_: object) -> None:
            raise Exception("The current node timed out during startup.")  # noqa: TRY002  # what Ray raises

        @staticmethod
        def shutdown() -> None: ...

    with pytest.raises(BusyError, match="too busy"):
        ray_runner._connect(TooSlow, None, None)
