"""Slow work: progress, cancelling, jobs that go on, a full queue, and a server that is killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import slow_model as slow
from conftest import Place, SlowModel
from conversation import call, converse, text_of, wait_for
from drawn import disc_image, discs, lattice, save
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError

from tissuetalk.server.app import build_server
from tissuetalk.server.service import Service

pytestmark = pytest.mark.anyio
NUCLEI = 9
ASK = {"image": "slow.png", "targets": [{"words": "nuclei"}], "mpp": 0.5, "model": slow.NAME}


@pytest.fixture
def images(place: Place) -> Place:
    save(place.root / "slow.png", discs(slow.SIDE_PX, slow.SIDE_PX, lattice(NUCLEI)))
    disc_image(place.root / "quick.png", 5)
    return place


QUICK = {"image": "quick.png", "targets": [{"words": "nuclei"}], "mpp": 0.5, "model": "classical-nuclei"}


def working(lazy: Service) -> int:
    """Pieces of work that have not ended."""
    return 0 if lazy._jobs is None else len(lazy._jobs.tasks)


async def test_slow_work_reports_growing_progress(images: Place, slow_model: SlowModel) -> None:
    said: list[float] = []

    async def hear(done: float, total: float | None, message: str | None) -> None:
        said.append(done)
        if len(said) >= 3:
            slow_model.open_gate()

    async with Client(build_server(images.lazy(patience_s=600))) as client:
        answer = await client.call_tool("segment", ASK, progress_callback=hear)
    assert answer.structured_content["masks"][0]["count"] == NUCLEI
    assert len(said) >= 3 and said == sorted(set(said)) and said[0] >= 0 and said[-1] <= 1


async def test_a_cancelled_call_frees_its_worker(
    images: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    lazy = images.lazy(patience_s=600, workers=1)
    async with Client(build_server(lazy)) as client:
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "segment", ASK)
            await eventually(lambda: slow_model.tiles() >= 2)
            calls.cancel_scope.cancel()
        await eventually(lambda: working(lazy) == 0)
        assert slow_model.tiles() < slow.TILES
        quick = await call(client, "segment", **QUICK)
        assert quick.structured_content["masks"][0]["count"] == 5
    assert images.half_written() == []


async def test_work_that_exceeds_patience_goes_on_as_a_job(
    images: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    async with Client(build_server(images.lazy(patience_s=0.3))) as client:
        started = await call(client, "segment", **ASK)
        answer = started.structured_content
        assert answer["result_id"] is None and answer["masks"] == [] and answer["job_id"] in text_of(started)
        await eventually(lambda: slow_model.tiles() >= 1)
        status = (await call(client, "job", job_id=answer["job_id"], action="status")).structured_content
        assert status["state"] == "running" and status["result"] is None
        slow_model.open_gate()
        done = await wait_for(client, answer["job_id"])
        result = done.structured_content["result"]
        assert result["masks"][0]["count"] == NUCLEI and result["masks"][0]["verdict"] in text_of(done)
        assert [block.type for block in done.content if block.type == "image"]
        measured = await call(client, "measure", result_id=result["result_id"], metrics=["count"])
        assert measured.structured_content["measurements"][0]["value"] == NUCLEI
        late = await call(client, "job", job_id=answer["job_id"], action="cancel")
        assert late.structured_content["state"] == "done"


async def test_a_cancelled_job_stops_and_leaves_nothing(
    images: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    lazy = images.lazy(patience_s=0.3, workers=1)
    async with Client(build_server(lazy)) as client:
        job_id = (await call(client, "segment", **ASK)).structured_content["job_id"]
        await eventually(lambda: slow_model.tiles() >= 1)
        await call(client, "job", job_id=job_id, action="cancel")
        ended = (await wait_for(client, job_id)).structured_content
        assert ended["state"] == "cancelled" and ended["result"] is None
        await eventually(lambda: working(lazy) == 0)
        assert slow_model.tiles() < slow.TILES
        assert images.results() == [] and images.half_written() == []


async def test_a_failed_job_says_why(images: Place, slow_model: SlowModel) -> None:
    async with Client(build_server(images.lazy(patience_s=0.3))) as client:
        job_id = (await call(client, "segment", **ASK)).structured_content["job_id"]
        save(images.root / "slow.png", discs(300, 300, lattice(2)))
        slow_model.open_gate()
        ended = (await wait_for(client, job_id)).structured_content
        assert ended["state"] == "failed" and ended["error"]["code"] == "image_changed"
        assert ended["error"]["message"]


async def test_a_full_queue_is_busy_and_recovers(
    images: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    lazy = images.lazy(patience_s=0.1, workers=1, most_waiting=1)
    async with Client(build_server(lazy)) as client:
        job_id = (await call(client, "segment", **ASK)).structured_content["job_id"]
        await eventually(lambda: slow_model.tiles() >= 1)
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "segment", QUICK)
            await eventually(lambda: lazy.jobs().lanes.small.lengths() == (1, 1))
            refused = await client.call_tool("segment", QUICK)
            assert refused.is_error and text_of(refused).startswith("busy: ")
            slow_model.open_gate()
        assert (await wait_for(client, job_id)).structured_content["state"] == "done"
        assert not (await client.call_tool("segment", QUICK)).is_error


async def test_a_job_goes_on_when_its_server_was_stopped_and_started(
    images: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    async with Client(build_server(images.lazy(patience_s=0.3))) as client:
        job_id = (await call(client, "segment", **ASK)).structured_content["job_id"]
        await eventually(lambda: slow_model.tiles() >= 1)
    slow_model.open_gate()
    async with Client(build_server(images.lazy())) as client:
        done = (await wait_for(client, job_id)).structured_content
        assert done["state"] == "done" and done["result"]["masks"][0]["count"] == NUCLEI


def slow_server(images: Place, slow_model: SlowModel, patience_s: float) -> StdioServerParameters:
    """A real process with the slow model, over stdio, with one worker."""
    script = str(Path(slow.__file__))
    arguments = [script, str(images.root), str(images.workspace), str(patience_s), "1"]
    return StdioServerParameters(
        command=sys.executable, args=arguments, env={**os.environ, **slow_model.environment}
    )


def pid_of(slow_model: SlowModel) -> int:
    return int(slow_model.log.with_suffix(".pid").read_text())


async def test_killed_in_the_middle_of_a_segment_nothing_is_half_written(
    images: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    failed: list[Exception] = []

    async def ask(client: Client) -> None:
        try:
            await client.call_tool("segment", ASK)
        except MCPError as error:
            failed.append(error)

    async with Client(stdio_client(slow_server(images, slow_model, 600))) as client:
        await call(client, "segment", **QUICK)
        async with anyio.create_task_group() as calls:
            calls.start_soon(ask, client)
            await eventually(lambda: slow_model.tiles() >= 2, 200)
            assert images.half_written() != []
            os.kill(pid_of(slow_model), signal.SIGKILL)
    assert len(failed) == 1 and len(images.results()) == 1

    async with Client(build_server(images.lazy())) as client:
        listed = (await call(client, "library", action="results")).structured_content["results"]
        assert [item["result_id"] for item in listed] == images.results()
        assert images.half_written() == []
        await converse(client, "quick.png", 5)
    assert images.half_written() == []


async def test_a_job_of_a_killed_server_is_finished_by_the_next(
    images: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    """Over a real process: a call is cancelled first, which frees the only worker for the job."""
    async with Client(stdio_client(slow_server(images, slow_model, 5.0))) as client:
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "segment", ASK)
            await eventually(lambda: slow_model.tiles() >= 1, 200)
            calls.cancel_scope.cancel()
        job_id = (await call(client, "segment", **ASK)).structured_content["job_id"]
        assert job_id and slow_model.tiles() < 2 * slow.TILES
        os.kill(pid_of(slow_model), signal.SIGKILL)
    assert images.results() == []

    slow_model.open_gate()
    async with Client(build_server(images.lazy())) as client:
        done = (await wait_for(client, job_id)).structured_content
        assert done["state"] == "done" and done["result"]["masks"][0]["count"] == NUCLEI
        assert images.results() == [done["result"]["result_id"]] and images.half_written() == []
