"""The viewer inside a chat, as a host's client sees it: what is offered to whom, and what the page is brought as data."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from conftest import Place
from conversation import segmented, text_of
from drawn import disc_image
from mcp import Client
from mcp.client.extension import advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID

from tissuetalk.server.app import build_server
from tissuetalk.server.apps import PAGE, PART_BYTES, SHOWN_FOR
from tissuetalk.tools.view.tiles import MAGIC

pytestmark = pytest.mark.anyio
SHOWS_APPS = [advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})]
ASK: dict[str, Any] = {"targets": [{"words": "nuclei"}], "mpp": 0.5, "model": "classical-nuclei"}


async def brought(client: Client, **asked: Any) -> bytes:
    """The whole of what the page asks for, part by part."""
    content, offset = b"", 0
    while True:
        answer = await client.call_tool("viewer", {**asked, "offset": offset})
        assert not answer.is_error, text_of(answer)
        assert len(answer.model_dump_json()) < 200_000
        found = answer.structured_content
        content += base64.b64decode(found["data"])
        if found["next_offset"] is None:
            assert len(content) == found["size_bytes"]
            return content
        offset = found["next_offset"]


async def described(client: Client, **asked: Any) -> Any:
    return json.loads(await brought(client, **asked))


async def test_the_page_is_bound_to_what_is_seen_and_its_tool_is_for_it_alone(place: Place) -> None:
    async with Client(build_server(place.lazy()), extensions=SHOWS_APPS) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {*SHOWN_FOR, "job", "library", "viewer"}
        assert EXTENSION_ID in client.server_capabilities.extensions
        for name in SHOWN_FOR:
            assert tools[name].meta["ui"] == {"resourceUri": PAGE}
        assert tools["viewer"].meta["ui"] == {"resourceUri": PAGE, "visibility": ["app"]}
        assert "ui" not in (tools["job"].meta or {})
        (page,) = (await client.read_resource(PAGE)).contents
    assert page.mime_type == APP_MIME_TYPE and page.text.lstrip().lower().startswith("<!doctype html>")
    assert len(page.text.encode()) < 1_500_000
    assert 'src="http' not in page.text and 'href="http' not in page.text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_who_shows_no_apps_is_offered_none(place: Place, mode: str) -> None:
    for extensions in ([], [advertise(EXTENSION_ID, {"mimeTypes": ["text/html"]})]):
        async with Client(build_server(place.lazy()), mode=mode, extensions=extensions) as client:
            assert "viewer" not in {tool.name for tool in (await client.list_tools()).tools}


async def test_all_a_page_draws_comes_as_data(place: Place) -> None:
    disc_image(place.root / "a.png", 5)
    async with Client(build_server(place.lazy()), extensions=SHOWS_APPS) as client:
        found = await segmented(client, image="a.png", **ASK)
        result_id, (mask,) = found["result_id"], found["masks"]
        about = await described(client, what="result", result_id=result_id)
        assert about["result"]["masks"][0]["mask_id"] == mask["mask_id"] and about["image_problem"] is None
        image_id = about["result"]["image"]["image_id"]
        assert (await described(client, what="image", image="a.png"))["image_id"] == image_id
        assert (await brought(client, what="image_tile", image=image_id, tile=[0, 0, 0])).startswith(
            b"\xff\xd8"
        )
        of_mask = {"result_id": result_id, "mask_id": mask["mask_id"]}
        assert (await brought(client, what="cover", **of_mask, tile=[0, 0, 0])).startswith(b"\x89PNG")
        outlines = await brought(client, what="outlines", **of_mask, tile=[0, 0, 0])
        assert int.from_bytes(outlines[:4], "little") == MAGIC
        table = await described(client, what="objects", **of_mask, columns=["area_um2"])
        assert len(table["rows"]["area_um2"]) == mask["count"]
        x, y = table["rows"]["centroid_x"][0], table["rows"]["centroid_y"][0]
        row = await described(
            client, what="object", **of_mask, number=int(table["rows"]["id"][0]), near=[x, y]
        )
        assert row["area_um2"] == pytest.approx(table["rows"]["area_um2"][0], rel=1e-3)
        stored = await brought(client, what="file", result_id=result_id, path="result.json")
        assert json.loads(stored)["result_id"] == result_id


async def test_what_is_long_comes_in_parts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    disc_image(place.root / "a.png", 5)
    async with Client(build_server(place.lazy()), extensions=SHOWS_APPS) as client:
        found = await segmented(client, image="a.png", **ASK)
        whole = await brought(client, what="file", result_id=found["result_id"], path="result.json")
        monkeypatch.setattr("tissuetalk.server.apps.PART_BYTES", 700)
        assert len(whole) > 2100
        assert await brought(client, what="file", result_id=found["result_id"], path="result.json") == whole
        beyond = await client.call_tool(
            "viewer", {"what": "result", "result_id": found["result_id"], "offset": 10**8}
        )
        assert beyond.structured_content["data"] == "" and beyond.structured_content["next_offset"] is None
    assert PART_BYTES * 4 / 3 < 190_000


async def test_the_page_learns_where_the_assistant_looks(place: Place) -> None:
    disc_image(place.root / "a.png", 5)
    async with Client(build_server(place.lazy()), extensions=SHOWS_APPS) as client:
        found = await segmented(client, image="a.png", **ASK)
        asked = {"what": "look", "result_id": found["result_id"]}
        assert (await described(client, **asked))["number"] == 0
        seen = await client.call_tool("view", {"result_id": found["result_id"], "region": [10, 20, 60, 70]})
        assert not seen.is_error, text_of(seen)
        first = await described(client, **asked)
        assert first == {"number": 1, "region": [10, 20, 60, 70], "mask_ids": None}
        await client.call_tool("view", {"result_id": found["result_id"], "region": [9000, 9000, 9010, 9010]})
        assert await described(client, **asked) == first  # what was refused moves nothing


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"what": "result"}, "invalid_argument: what='result' needs result_id"),
        (
            {"what": "cover", "result_id": "res_" + "0" * 32, "mask_id": "m", "tile": [0, 0, 0]},
            "unknown_result",
        ),
        ({"what": "result", "result_id": "../../etc"}, "unknown_result"),
        ({"what": "file", "result_id": "..", "path": "x"}, "unknown_result"),
        ({"what": "image", "image": "/etc/passwd"}, "outside_roots"),
        ({"what": "image_tile", "image": "img_" + "0" * 32, "tile": [0, 0, 0]}, "unknown_image"),
        ({"what": "image_tile", "image": "a.png", "tile": [0, 0]}, "invalid_argument: tile"),
        ({"what": "steal"}, "invalid_argument: what"),
    ],
)
async def test_what_is_asked_wrongly_is_said(place: Place, asked: dict[str, Any], code: str) -> None:
    disc_image(place.root / "a.png", 3)
    async with Client(build_server(place.lazy()), extensions=SHOWS_APPS) as client:
        answer = await client.call_tool("viewer", asked)
    assert answer.is_error and text_of(answer).startswith(code), text_of(answer)


async def test_files_outside_the_result_are_not_read(place: Place) -> None:
    disc_image(place.root / "a.png", 3)
    async with Client(build_server(place.lazy()), extensions=SHOWS_APPS) as client:
        found = await segmented(client, image="a.png", **ASK)
        for path in ("../../workspace.sqlite", "/etc/passwd", "masks/../../x", "result.json/..", ""):
            answer = await client.call_tool(
                "viewer", {"what": "file", "result_id": found["result_id"], "path": path}
            )
            assert answer.is_error and "sqlite" not in text_of(answer)
