"""A slide through the server: a job with an overview while it runs, taken up again by the next server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Place
from conversation import call, text_of, wait_for
from drawn import discs, save
from mcp import Client
from slide_runs import LOG, PAUSE, SMALL, register

from tissuetalk.server.app import build_server

pytestmark = pytest.mark.anyio
CENTRES = [(x, y) for x in range(40, 600, 60) for y in range(40, 400, 60)]
ASK = {"image": "slide.png", "targets": [{"words": "nuclei"}], "mpp": 0.5, "model": "counted-nuclei"}
UNDER_WAY = ("queued", "running")  # it moves to the lane of slides once it is known to be one


@pytest.fixture
def slides(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    register(monkeypatch)
    monkeypatch.setenv(LOG, str(tmp_path / "tiles.log"))
    monkeypatch.setenv(PAUSE, "0.3")
    save(place.root / "slide.png", discs(620, 420, CENTRES, 9.5, (225, 170, 205)))
    return place


def tiles(place: Place) -> int:
    return len((place.root.parent / "tiles.log").read_text().splitlines())


async def test_a_slide_is_a_job_that_says_what_it_knows_while_it_runs(
    slides: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PAUSE, "2")
    async with Client(build_server(slides.lazy(patience_s=0.2, slides=SMALL))) as client:
        job = (await call(client, "segment", **ASK)).structured_content
        assert job["result_id"] is None and job["masks"] == []
        early = None
        while early is None:
            answer = await call(client, "job", job_id=job["job_id"], action="status")
            assert answer.structured_content["state"] in UNDER_WAY
            early = answer.structured_content["preliminary"]
        assert early["findings"][0]["name"] == "nuclei" and early["tissue_area_mm2"] > 0
        assert "preliminary" in text_of(answer) and any(part.type == "image" for part in answer.content)
        monkeypatch.setenv(PAUSE, "0")
        done = (await wait_for(client, job["job_id"])).structured_content
        assert done["state"] == "done" and done["preliminary"] is None
        (mask,) = done["result"]["masks"]
        assert mask["count"] == len(CENTRES)
        result_id = done["result"]["result_id"]
        numbers = await call(client, "measure", result_id=result_id, metrics=["count"])
        assert numbers.structured_content["measurements"][0]["value"] == len(CENTRES)
        seen = await call(client, "view", result_id=result_id, region=[0, 0, 200, 200])
        assert seen.structured_content["mask_ids"] == [mask["mask_id"]]


async def test_the_next_server_goes_on_with_a_slide(
    slides: Place, monkeypatch: pytest.MonkeyPatch, eventually: Callable
) -> None:
    async with Client(build_server(slides.lazy(patience_s=0.2, slides=SMALL))) as client:
        job = (await call(client, "segment", **ASK)).structured_content["job_id"]
        await eventually(lambda: tiles(slides) >= 8)
    before = tiles(slides)
    monkeypatch.setenv(PAUSE, "0")
    async with Client(build_server(slides.lazy(patience_s=60, slides=SMALL))) as client:
        done = (await wait_for(client, job)).structured_content
        assert done["state"] == "done", json.dumps(done)
        assert done["result"]["masks"][0]["count"] == len(CENTRES)
    assert tiles(slides) - before <= 4 + 20 + 2 - (before - 3)


async def test_a_cancelled_slide_keeps_its_work(
    slides: Place, monkeypatch: pytest.MonkeyPatch, eventually: Callable
) -> None:
    async with Client(build_server(slides.lazy(patience_s=0.2, slides=SMALL))) as client:
        job = (await call(client, "segment", **ASK)).structured_content["job_id"]
        await eventually(lambda: tiles(slides) >= 6)
        monkeypatch.setenv(PAUSE, "2")
        await call(client, "job", job_id=job, action="cancel")
        assert (await wait_for(client, job)).structured_content["state"] == "cancelled"
    assert list((slides.workspace / "unfinished").rglob("*.maps"))
    assert slides.results() == []
