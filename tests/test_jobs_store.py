"""Jobs move forward only, are run by one worker, and tell the truth after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tissuetalk.models.errors import UnknownJobError
from tissuetalk.tools.storage.jobs import JobStore
from tissuetalk.tools.storage.workspace import Workspace


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workspace(tmp_path: Path, clock: Clock) -> Iterator[Workspace]:
    with Workspace(tmp_path, clock=clock) as opened:
        yield opened


@pytest.fixture
def jobs(workspace: Workspace) -> JobStore:
    return JobStore(workspace)


def test_a_job_goes_from_queued_over_running_to_done(jobs: JobStore, clock: Clock) -> None:
    job_id = jobs.create("segment", {"image": "a.png"}, "session 1")
    assert jobs.get(job_id).state == "queued"
    assert jobs.claim(job_id)
    assert jobs.progress(job_id, 0.4, 12.0, "tile 4 of 10")
    job = jobs.get(job_id)
    assert (job.state, job.progress, job.eta_s, job.message) == ("running", 0.4, 12.0, "tile 4 of 10")
    assert jobs.finish(job_id, {"result_id": "res"})
    job = jobs.get(job_id)
    assert (job.state, job.progress, job.result, job.owner) == (
        "done",
        1.0,
        {"result_id": "res"},
        "session 1",
    )


def test_progress_is_written_seldom_and_never_falls(jobs: JobStore, clock: Clock) -> None:
    job_id = jobs.create("segment", {}, "me")
    jobs.claim(job_id)
    jobs.progress(job_id, 0.5)
    jobs.progress(job_id, 0.9)
    assert jobs.get(job_id).progress == 0.5
    clock.now += 1
    jobs.progress(job_id, 0.3)
    assert jobs.get(job_id).progress == 0.5


def test_an_ended_job_stays_ended(jobs: JobStore) -> None:
    job_id = jobs.create("segment", {}, "me")
    jobs.claim(job_id)
    jobs.fail(job_id, "workspace_full", "free some space")
    assert not jobs.claim(job_id)
    assert not jobs.progress(job_id, 0.1)
    assert not jobs.finish(job_id, {})
    assert jobs.request_cancel(job_id) == "already_ended"
    job = jobs.get(job_id)
    assert (job.state, job.error_code, job.error_message) == ("failed", "workspace_full", "free some space")


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_told(jobs: JobStore) -> None:
    queued, running = jobs.create("segment", {}, "me"), jobs.create("segment", {}, "me")
    jobs.claim(running)
    assert jobs.request_cancel(queued) == "cancelled"
    assert not jobs.claim(queued)
    assert jobs.request_cancel(running) == "requested"
    assert jobs.cancel_requested(running)
    assert jobs.cancelled(running, {"kept": 3})
    assert (jobs.get(running).state, jobs.get(running).result) == ("cancelled", {"kept": 3})


def test_a_worker_seen_silent_loses_its_job_and_its_late_answer_does_not_count(
    workspace: Workspace, jobs: JobStore
) -> None:
    looked = Clock()
    with Workspace(workspace.folder) as second:
        other = JobStore(second, monotonic=looked)
        job_id = jobs.create("segment", {}, "me")
        assert jobs.claim(job_id)
        assert not other.claim(job_id)
        looked.now += 40
        assert jobs.progress(job_id, 0.5)
        assert not other.claim(job_id)
        looked.now += 40
        assert not other.claim(job_id)
        looked.now += 40
        assert other.claim(job_id)
        assert not jobs.finish(job_id, "late")
        assert other.finish(job_id, "right")
        assert jobs.get(job_id).result == "right"


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0, 400 * 24 * 3600.0])
def test_a_server_whose_clock_is_wrong_steals_nothing(tmp_path: Path, ahead_s: float) -> None:
    clock = Clock()
    with (
        Workspace(tmp_path, clock=clock) as right,
        Workspace(tmp_path, clock=lambda: clock() + ahead_s) as wrong,
    ):
        mine, others = JobStore(right), JobStore(wrong)
        job_id = mine.create("segment", {}, "me")
        assert mine.claim(job_id)
        for _ in range(3):
            assert not others.claim(job_id)
            assert mine.progress(job_id, 0.5)
        assert others.get(job_id).state == "running"
        assert mine.finish(job_id, "right")
        theirs = others.create("segment", {}, "me")
        assert others.claim(theirs)
        assert not mine.claim(theirs)


def test_the_third_attempt_that_dies_ends_the_job_with_the_reason(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        job_id = JobStore(workspace).create("segment", {}, "me")
    for attempt in (1, 2, 3):
        with Workspace(tmp_path) as workspace:
            assert JobStore(workspace).claim(job_id)
            # counted before the work, by whoever looks
            assert JobStore(workspace).get(job_id).attempts == attempt
    with Workspace(tmp_path) as workspace:
        jobs = JobStore(workspace)
        assert not jobs.claim(job_id)
        job = jobs.get(job_id)
        assert (job.state, job.error_code) == ("failed", "error")
        assert "3 times" in (job.error_message or "")
        assert jobs.unfinished() == []


def test_a_job_given_back_by_a_server_that_closes_is_not_counted(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        job_id = JobStore(workspace).create("segment", {}, "me")
    for _ in range(5):
        with Workspace(tmp_path) as workspace:
            jobs = JobStore(workspace)
            assert jobs.claim(job_id)
            assert jobs.release(job_id)
            assert not jobs.finish(job_id, "late")
            assert (jobs.get(job_id).state, jobs.get(job_id).attempts) == ("queued", 0)


def test_jobs_survive_a_restart(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        jobs = JobStore(workspace)
        running, queued = jobs.create("segment", {"n": 1}, "me"), jobs.create("segment", {"n": 2}, "me")
        jobs.claim(running)
    with Workspace(tmp_path) as workspace:
        jobs = JobStore(workspace)
        assert [job.job_id for job in jobs.unfinished()] == [running, queued]
        assert jobs.claim(running)
        assert jobs.claim(queued)


def test_a_job_that_was_cancelled_before_a_crash_is_not_run_again(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        jobs = JobStore(workspace)
        job_id = jobs.create("segment", {}, "me")
        jobs.claim(job_id)
        jobs.request_cancel(job_id)
    with Workspace(tmp_path) as workspace:
        jobs = JobStore(workspace)
        assert not jobs.claim(job_id)
        assert jobs.get(job_id).state == "cancelled"


def test_of_many_threads_one_gets_the_job(jobs: JobStore) -> None:
    job_id = jobs.create("segment", {}, "me")
    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(lambda _: jobs.claim(job_id), range(16))) == 1


@pytest.mark.parametrize("job_id", ["", "job_", "../job", "job_" + "0" * 32, "res_" + "0" * 32])
def test_an_unknown_job_is_named_so(jobs: JobStore, job_id: str) -> None:
    for call in (jobs.get, jobs.claim, jobs.request_cancel, jobs.cancel_requested):
        with pytest.raises(UnknownJobError, match="start the work again"):
            call(job_id)
