"""Two slides at work: everything short answers beside them, what must wait says so with its place, nothing hangs."""

from __future__ import annotations

import os
import platform
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, check_output
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import anyio
import pytest
import slow_model as slow
from conftest import Place, SlowModel
from conversation import call, read, segmented, text_of, wait_for
from drawn import disc_image, discs, lattice, save
from mcp import Client

from tissuetalk.models.control import Control
from tissuetalk.models.errors import BusyError
from tissuetalk.server.app import build_server
from tissuetalk.server.service import WAIT_S
from tissuetalk.tools import jobs
from tissuetalk.tools.lanes import QUESTIONS_AT_ONCE, SMALL_PX, Lane, Lanes, Task
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.jobs import JobStore

pytestmark = pytest.mark.anyio
SIDE_PX = 2100
"""More pixels than a small picture may have; all but a corner of it is glass."""
SLIDE = {"targets": [{"words": "nuclei"}], "mpp": 0.5, "model": slow.NAME}
SMALL = {"image": "small.png", "targets": [{"words": "nuclei"}], "mpp": 0.5, "model": "classical-nuclei"}


@pytest.fixture
def slides(place: Place) -> Place:
    """Three slides that take as long as the gate is closed, and a small picture."""
    assert SIDE_PX**2 > SMALL_PX
    corner = discs(slow.SIDE_PX, slow.SIDE_PX, lattice(9))
    picture = corner[:1, :1].repeat(SIDE_PX, 0).repeat(SIDE_PX, 1) * 0 + 245
    picture[: slow.SIDE_PX, : slow.SIDE_PX] = corner
    for name in ("one.png", "two.png", "three.png"):
        picture[-1, -1] = len(name)  # three images
        save(place.root / name, picture)
    disc_image(place.root / "small.png", 5)
    return place


@asynccontextmanager
async def over_http(place: Place, slow_model: SlowModel) -> AsyncIterator[tuple[Client, str]]:
    """A client of a real server in a process of its own that has the slow model, and its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    script = [str(Path(slow.__file__)), str(place.root), str(place.workspace), "60", "2", address]
    process = await anyio.open_process(
        [sys.executable, *script],
        stdout=DEVNULL,
        stderr=DEVNULL,
        env={**os.environ, **slow_model.environment, slow.TILE_TAKES: "1000"},
    )
    try:
        with anyio.fail_after(100):
            while not await anyio.to_thread.run_sync(is_up, address):
                assert process.returncode is None, "the server ended"
                await anyio.sleep(0.1)
        async with Client(f"http://{address}/mcp") as client:
            yield client, address
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def is_up(address: str) -> bool:
    try:
        urlopen(f"http://{address}/health", timeout=60).close()
    except OSError:
        return False
    return True


async def test_everything_short_answers_while_two_slides_are_worked_on(
    slides: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    """Protects from: two long jobs make segment, view, library and resources hang without a job id."""
    async with over_http(slides, slow_model) as (client, address):
        result = await segmented(client, **SMALL)  # loads what everything needs

        async def work_on(image: str) -> None:
            found = await segmented(client, image=image, **SLIDE)
            assert found["masks"][0]["count"] == 9

        async with anyio.create_task_group() as working:
            working.start_soon(work_on, "one.png")
            working.start_soon(work_on, "two.png")
            await eventually(lambda: slow_model.tiles() == 2)
            waiting = (await call(client, "segment", image="three.png", **SLIDE)).structured_content
            assert waiting["job_id"] and "queued at place 1" in waiting["notes"][0]
            small = await segmented(client, **SMALL)
            assert small["masks"][0]["count"] == 5
            found = {"result_id": result["result_id"]}
            await call(client, "measure", **found)
            await call(client, "explain", **found)
            await call(client, "view", image="small.png")
            await call(client, "view", image="one.png")
            await call(client, "view", **found)
            await call(client, "library", action="images")
            await call(client, "library", action="results")
            await call(client, "segment", image="one.png", words="glands", dry_run=True)
            asked = {"job_id": waiting["job_id"]}
            queued = (await call(client, "job", **asked, action="status")).structured_content
            assert queued["state"] == "queued" and queued["queue_place"] == 1
            for uri in (small["overlay"], small["masks"][0]["resources"]["table"], "taxonomy://labels"):
                assert await read(client, uri)
            assert await anyio.to_thread.run_sync(is_up, address)
            ended = (await call(client, "job", **asked, action="cancel")).structured_content
            assert ended["state"] == "cancelled"
            assert slow_model.tiles() == 2  # both slides were at work all the while
            slow_model.open_gate()


async def test_a_queued_job_is_taken_up_by_the_next_server(
    slides: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    async with Client(build_server(slides.lazy(patience_s=0.1, workers=1))) as client:
        await call(client, "segment", image="one.png", **SLIDE)
        await eventually(lambda: slow_model.tiles() >= 1)
        waiting = (await call(client, "segment", image="two.png", **SLIDE)).structured_content["job_id"]
    slow_model.open_gate()
    async with Client(build_server(slides.lazy(workers=1))) as client:
        done = (await wait_for(client, waiting)).structured_content
        assert done["state"] == "done" and done["result"]["masks"][0]["count"] == 9


async def test_a_question_that_would_wait_is_told_busy(slides: Place, eventually: Callable) -> None:
    lazy = slides.lazy()
    async with Client(build_server(lazy)) as client:
        await call(client, "library", action="images")
        gate = threading.Event()
        held = [lazy.jobs().ask(lambda session: gate.wait()) for _ in range(QUESTIONS_AT_ONCE)]
        await eventually(lambda: all(task.place() is None for task in held))
        begun = time.monotonic()
        try:
            refused = await client.call_tool("library", {"action": "images"})
        finally:
            gate.set()
        assert refused.is_error and text_of(refused).startswith("busy: ") and "place 1" in text_of(refused)
        assert time.monotonic() - begun > WAIT_S - 0.1
        await eventually(lambda: all(task.future.done() for task in held))
        await call(client, "library", action="images")


def test_places_are_told_and_a_withdrawn_task_never_begins() -> None:
    gate, ran = threading.Event(), []
    lane = Lane("test", 1, 2)
    first: Task[Any] = Task(lambda control: gate.wait())
    lane.enter(first)
    while first.place() is not None:
        time.sleep(0.01)
    second, third = (Task(lambda control, name=name: ran.append(name)) for name in ("second", "third"))
    lane.enter(second)
    lane.enter(third)
    assert (second.place(), third.place()) == (1, 2)
    with pytest.raises(BusyError):
        lane.enter(Task(lambda control: None))
    assert second.withdraw() and third.place() == 1 and not first.withdraw()
    gate.set()
    third.future.result(60)
    assert ran == ["third"]
    lane.close()


def test_owners_take_turns_however_much_one_of_them_has_queued() -> None:
    """Protects from: one person's cohort stands before everybody else's question."""
    gate, ran = threading.Event(), []
    lane = Lane("test", 1, 50)
    first: Task[Any] = Task(lambda control: gate.wait(), "cohort")
    lane.enter(first)
    while first.place() is not None:
        time.sleep(0.01)
    many = [Task(lambda control, n=n: ran.append(("cohort", n)), "cohort") for n in range(4)]
    others = [Task(lambda control, who=who: ran.append((who, 0)), who) for who in ("one", "two")]
    for task in (*many, *others):
        lane.enter(task)
    assert [task.place() for task in others] == [1, 2] and many[0].place() == 3
    assert lane.tasks("one") == [others[0]]
    gate.set()
    many[-1].future.result(60)
    lane.close()
    assert ran == [("one", 0), ("two", 0), *(("cohort", n) for n in range(4))]


class Large:
    """A job that covers more than a small picture may."""

    @classmethod
    def from_json(cls, stored: Any) -> Large:
        return cls()

    def run(self, session: Session, control: Control) -> Any:
        control.covers(SMALL_PX + 1)
        control.check()
        return SimpleNamespace(result=SimpleNamespace(result_id="res"))


@pytest.fixture
def moving(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[jobs.Jobs, JobStore, str]]:
    """Workers, their store, and a large job that nobody has begun."""
    monkeypatch.setitem(jobs.VERBS, "segment", Large)
    with Session(place.root, place.workspace) as session:
        store = JobStore(session.workspace)
        job_id = store.create("segment", {}, "test")
        working = jobs.Jobs(session, Lanes())
        yield working, store, job_id
        working.close()


def ended(store: JobStore, job_id: str) -> str:
    until = time.monotonic() + 60
    while not store.get(job_id).ended and time.monotonic() < until:
        time.sleep(0.05)
    return store.get(job_id).state


def test_a_job_that_moves_to_another_lane_is_not_taken_for_lost(
    moving: tuple[jobs.Jobs, JobStore, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects from: looked at between being given back and waiting again, it was dropped and stayed queued for ever."""
    working, store, job_id = moving
    release = JobStore.release

    def slowly(self: JobStore, job_id: str) -> bool:
        released = release(self, job_id)
        time.sleep(4 * jobs.LOOK_EVERY_S)
        return released

    monkeypatch.setattr(JobStore, "release", slowly)
    assert working.resume() == [job_id]
    assert ended(store, job_id) == "done"


def test_a_job_that_finds_no_room_where_it_moves_to_says_so(
    moving: tuple[jobs.Jobs, JobStore, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects from: it had been given back, so its end was not written and it stayed queued for ever."""
    working, store, job_id = moving
    large = working.lanes.large
    monkeypatch.setattr(large, "_most_waiting", -large._workers)
    assert working.resume() == [job_id]
    assert ended(store, job_id) == "failed"
    assert store.get(job_id).error_code == "busy"


FAULTS = """
import ctypes, resource, sys, threading
import numpy as np
from tissuetalk.models.memory import keep_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: every page has 4096 bytes
if sys.argv[1] == "kept":
    keep_memory()

def work():
    np.ones(5_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(5_000_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other rules")
def test_kept_memory_is_not_fetched_again() -> None:
    """In a thread, as slides are worked on: pages that the system hands out again, with and without."""
    kept, fetched = (int(check_output([sys.executable, "-c", FAULTS, how])) for how in ("kept", "fetched"))
    assert fetched > 20 * 5_000_000 * 8 // 4096 // 2 > 100 * kept
