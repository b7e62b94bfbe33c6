"""A slide through a real MCP server: a job with progress, killed in the middle, resumed, with the same objects."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import slide_server
import slow_model as slow
from conftest import Place, SlowModel
from conversation import call, wait_for
from drawn_slides import Drawing, draw
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session

pytestmark = pytest.mark.anyio
DRAWING = Drawing(side_px=900, fragment_mm2=0.04, mpp=0.5, smallest_px=400)
ASK = {"image": "slide.svs", "targets": [{"words": "nuclei"}], "model": slow.NAME}


@pytest.fixture
def slides(place: Place) -> Place:
    draw(DRAWING, place.root / "slide.svs")
    return place


def server(place: Place, slow_model: SlowModel) -> StdioServerParameters:
    arguments = [str(Path(slide_server.__file__)), str(place.root), str(place.workspace), "0.3"]
    return StdioServerParameters(
        command=sys.executable, args=arguments, env={**os.environ, **slow_model.environment}
    )


def pid_of(slow_model: SlowModel) -> int:
    return int(slow_model.log.with_suffix(".pid").read_text())


def objects(workspace: Path) -> pyarrow.Table:
    """The rows of all objects of the only result."""
    (path,) = (workspace / "results").glob("*/slide/objects/*.parquet")
    return pyarrow.parquet.read_table(path)


def uninterrupted(place: Place, workspace: Path) -> pyarrow.Table:
    with closing(Session(place.root, workspace, slides=slide_server.SMALL_BLOCKS)) as bench:
        asked = Request("request", (Target(None, "nuclei", reason="named by the caller"),))
        segment(bench, SegmentRequest("slide.svs", asked, None, None, slow.NAME))
    return objects(workspace)


async def test_a_killed_job_goes_on_in_the_next_server_with_the_same_objects(
    slides: Place, slow_model: SlowModel, eventually: Callable, tmp_path: Path
) -> None:
    async with Client(stdio_client(server(slides, slow_model))) as client:
        started = (await call(client, "segment", **ASK)).structured_content
        assert started["job_id"] and started["masks"] == []
        await eventually(lambda: list(slides.workspace.rglob("*.maps")), 200)
        status = (await call(client, "job", job_id=started["job_id"], action="status")).structured_content
        assert status["state"] == "running" and 0 <= status["progress"] < 1
        os.kill(pid_of(slow_model), signal.SIGKILL)
    assert slides.results() == []
    before, maps = slow_model.tiles(), list(slides.workspace.rglob("*.maps"))
    assert maps

    slow_model.open_gate()
    async with Client(stdio_client(server(slides, slow_model))) as client:
        done = (await wait_for(client, started["job_id"])).structured_content
        assert done["state"] == "done" and done["progress"] == 1
        count = done["result"]["masks"][0]["count"]
    resumed, tiles = objects(slides.workspace), slow_model.tiles() - before
    assert resumed.num_rows == count > 100
    again = slow_model.tiles()
    assert uninterrupted(slides, tmp_path / "fresh").equals(resumed)
    assert tiles < slow_model.tiles() - again, "blocks that were finished were not done again"


async def test_two_servers_on_one_workspace_do_a_job_once(
    slides: Place, slow_model: SlowModel, eventually: Callable, tmp_path: Path
) -> None:
    async with Client(stdio_client(server(slides, slow_model))) as first:
        job_id = (await call(first, "segment", **ASK)).structured_content["job_id"]
        await eventually(lambda: slow_model.tiles() >= 2, 200)
        async with Client(stdio_client(server(slides, slow_model))) as second:
            seen = (await call(second, "job", job_id=job_id, action="status")).structured_content
            assert seen["state"] == "running"
            slow_model.open_gate()
            done = (await wait_for(second, job_id)).structured_content
            assert done["state"] == "done" and len(slides.results()) == 1
        assert (await wait_for(first, job_id)).structured_content["result"] == done["result"]
    tiles = slow_model.tiles()
    assert uninterrupted(slides, tmp_path / "fresh").num_rows == done["result"]["masks"][0]["count"]
    assert slow_model.tiles() - tiles == tiles, "no tile was asked about twice"
