"""A workspace under several processes, and under kill -9."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from killer_jobs import Deed

from tissuetalk.models.errors import BusyError
from tissuetalk.tools import jobs as server_jobs
from tissuetalk.tools.lanes import Lanes
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.jobs import JobStore
from tissuetalk.tools.storage.workspace import Workspace

WORKER = Path(__file__).with_name("workspace_worker.py")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system has such a place: a kill is no power cut, and flushing to a busy disk takes long."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_four_processes_write_25_results_each_and_all_are_there(tmp_path: Path) -> None:
    writers = [start("write", tmp_path / "ws", 25, f"img_{number}") for number in range(4)]
    written = {}
    for number, writer in enumerate(writers):
        output, _ = writer.communicate()
        assert writer.returncode == 0
        written |= dict.fromkeys(output.split(), f"img_{number}")
    assert len(written) == 100
    with Workspace(tmp_path / "ws") as workspace:
        rows = workspace.results(1000)
        assert {row.result_id: row.image_id for row in rows} == written
        for row in rows:
            assert (row.folder / "a.bin").read_bytes().startswith(row.image_id.encode() + b"tissue")
            assert row.size_bytes == 2 * (len(row.image_id) + 6000)


def test_a_kill_at_any_line_leaves_the_whole_result_or_nothing(tmp_path: Path) -> None:
    process = start("die", tmp_path / "ws")
    output, _ = process.communicate()
    assert process.returncode == 0
    assert int(output) > 50  # the child that survived had more lines than that to be killed at


def test_kills_at_random_moments_leave_only_whole_results(tmp_path: Path) -> None:
    chance = random.Random(7)
    told = set()
    for _ in range(6):
        writer = start("write", tmp_path / "ws", 1000, "img")
        for _ in range(chance.randrange(1, 6)):
            told.add(read_line(writer))
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        told |= set(rest.split())
    with Workspace(tmp_path / "ws") as workspace:
        rows = workspace.results(10_000)
        assert told <= {row.result_id for row in rows}
        assert {row.result_id for row in rows} == {
            path.name for path in (tmp_path / "ws" / "results").iterdir()
        }
        for row in rows:
            assert manifest.problems(row.folder) == []
            assert sorted(path.stat().st_size for path in row.folder.glob("*.bin")) == [6003, 6003]


def test_the_half_written_work_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    with Workspace(tmp_path) as first, first.new_result(image_id="img", kind="segment") as draft:
        (draft.folder / "a").write_text("a")
        with Workspace(tmp_path) as second:
            assert second.results() == []
        (draft.folder / "b").write_text("b")
    with Workspace(tmp_path) as third:
        assert {path.name for path in third.result(draft.result_id).folder.iterdir()} == {
            *("a", "b"),
            manifest.NAME,
        }


def test_what_a_dead_server_was_reading_can_be_deleted_at_once(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        with workspace.new_result(image_id="img", kind="segment") as draft:
            (draft.folder / "a").write_text("a")
        reader = start("read", tmp_path, draft.result_id)
        assert read_line(reader) == "reading"
        with pytest.raises(BusyError):
            workspace.delete(draft.result_id)
        reader.send_signal(signal.SIGKILL)
        reader.communicate()
        workspace.delete(draft.result_id)


def test_two_processes_never_run_the_same_job(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        jobs = JobStore(workspace)
        job_ids = [jobs.create("segment", {}, "me") for _ in range(40)]
        claimers = [start("claim", tmp_path, *job_ids) for _ in range(3)]
        claimed = [job_id for claimer in claimers for job_id in claimer.communicate()[0].split()]
        assert sorted(claimed) == sorted(job_ids)
        assert all(jobs.get(job_id).state == "done" for job_id in job_ids)


def test_a_job_of_a_killed_process_can_be_claimed_at_once(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        jobs = JobStore(workspace)
        job_id = jobs.create("segment", {"image": "a.svs"}, "me")
        holder = start("hold", tmp_path, job_id)
        assert read_line(holder) == "True"
        assert not jobs.claim(job_id)
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        assert jobs.claim(job_id)
        assert jobs.get(job_id).attempts == 2
        assert jobs.get(job_id).request == {"image": "a.svs"}


def test_a_job_of_a_dead_server_goes_on_when_a_living_one_is_asked_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(server_jobs.VERBS, "segment", Deed)
    with Session(tmp_path, tmp_path / "ws") as session:
        living = server_jobs.Jobs(session, Lanes())
        with Workspace(tmp_path / "ws") as dying:
            its = JobStore(dying)
            job_id = its.create("segment", {"kills": False}, "me")
            assert its.claim(job_id)
            living.status(job_id)
            assert its.progress(job_id, 0.5)
        # asked twice, begun once; for a moment it may wait for a worker's thread to wake
        assert {living.status(job_id).result.state for _ in range(2)} <= {"queued", "running"}
        store = JobStore(session.workspace)
        until = time.monotonic() + 60
        while store.unfinished() and time.monotonic() < until:
            time.sleep(0.05)
        living.close()
        assert (store.get(job_id).state, store.get(job_id).attempts) == ("done", 2)


def test_a_job_that_kills_its_server_is_given_up_and_the_one_beside_it_is_not(tmp_path: Path) -> None:
    """A segment on a small TIFF killed the server; starts 2, 3 and 4 took the job up and died again."""
    with Workspace(tmp_path / "ws") as workspace:
        jobs = JobStore(workspace)
        killer = jobs.create("segment", {"kills": True}, "me")
        innocent = jobs.create("segment", {"kills": False}, "me")
    command = [sys.executable, str(WORKER.with_name("killer_jobs.py")), str(tmp_path / "ws")]
    deaths = 0
    while (status := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode) != 0:
        assert status == -signal.SIGKILL
        deaths += 1
        assert deaths <= 3
    with Workspace(tmp_path / "ws") as workspace:
        jobs = JobStore(workspace)
        ended = jobs.get(killer)
        assert (ended.state, ended.error_code, ended.attempts) == ("failed", "error", 3)
        assert jobs.get(innocent).state == "done"
