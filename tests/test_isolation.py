"""Every tool, resource and page that takes an id, by the server's own lists: another tenant's is as unknown as one that never was."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Place
from conversation import segmented, text_of
from drawn import disc_image
from http_server import http_server
from issuer import issuing
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from test_apps import SHOWS_APPS
from test_tenants import ANY_ANSWER, ASKED, OPENING, Shared, accounts_of

from tissuetalk.server.accounts import LEEWAY_S
from tissuetalk.server.app import build_server
from tissuetalk.server.http import http_app
from tissuetalk.server.keys import Keys
from tissuetalk.server.limits import PeerLimits
from tissuetalk.server.names import Names

ID = re.compile(r"(res|img|msk|job)_[0-9a-f]{32}")
OWN = {"image": "nuclei.png"}
NAMES_NOTHING = {
    *("words", "targets", "model", "reader", "mpp", "region", "points", "boxes", "organ", "dry_run", "action", "metrics"),
    *("kinds", "question", "classifier", "grid", "folder", "format", "name", "what", "tile", "columns", "number", "near"),
    *("path", "offset", "layers", "kind", "learn", "save_as", "teach", "mode", "language", "threshold", "refine"),
}  # fmt: skip
"""Arguments that hold no id of anything a tenant has."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("isolation")
    for name in ("north", "south"):
        (folder / name).mkdir()
    disc_image(folder / "north" / "nuclei.png", 7)
    disc_image(folder / "south" / "of-south.png", 12)
    with issuing() as issuer:
        accounts = accounts_of(folder, issuer, north=folder / "north", south=folder / "south")
        with http_server(
            Place(folder / "north", folder / "workspace"), "--accounts", str(accounts)
        ) as server:
            yield Shared(server, issuer)


@pytest.fixture(scope="module")
def of_south(shared: Shared) -> dict[str, str]:
    """Ids of the other tenant, by their kind; a job that was never there stands for one of his, whose id only he is told."""

    async def ask() -> dict[str, Any]:
        async with shared.client("south") as south:
            return await segmented(
                south, image="of-south.png", words="nuclei", model="classical-nuclei", mpp=0.5
            )

    found = asyncio.run(ask())
    return {
        "res": found["result_id"],
        "img": found["image"]["image_id"],
        "msk": found["masks"][0]["mask_id"],
    }


def never_was(text: str) -> str:
    return ID.sub(lambda found: f"{found.group(1)}_{secrets.token_hex(16)}", text)


def shape(text: str) -> str:
    """What is left of an answer without its ids."""
    return ID.sub(lambda found: f"{found.group(1)}_ID", text)


def calls(tool: str, field: str, ids: dict[str, str]) -> list[dict[str, Any]]:
    """Ways to hand an id to a field of a tool; each with what else the tool needs."""
    result, image, mask = ids["res"], ids["img"], ids["msk"]
    if tool == "viewer":
        asked: dict[str, list[dict[str, Any]]] = {
            "image": [
                {"what": "image", "image": f"image://{image}"},
                {"what": "image_tile", "image": image, "tile": [0, 0, 0]},
            ],
            "result_id": [
                {"what": "result", "result_id": result},
                {"what": "file", "result_id": result, "path": "overlay.png", "number": "1"},
            ],
            "mask_id": [
                {"what": "objects", "result_id": result, "mask_id": mask},
                {"what": "cover", "result_id": result, "mask_id": mask, "tile": [0, 0, 0]},
                {"what": "outlines", "result_id": result, "mask_id": mask, "tile": [0, 0, 0]},
                {"what": "object", "result_id": result, "mask_id": mask, "number": 1, "near": [5, 5]},
            ],
        }
        return asked[field]
    needed: dict[str, Any] = {"segment": {**OWN, "words": "nuclei"}, "library": {"action": "delete"}}.get(
        tool, {}
    )
    if tool == "job":
        return [{"job_id": "job_" + "0" * 32, "action": each} for each in ("status", "wait", "cancel")]
    if field == "image":
        return [{**needed, "image": f"image://{image}"}]
    if field in ("result_id", "base_result"):
        others = [{"action": "save", "folder": "kept", field: result}] if tool == "library" else []
        return [{**needed, field: result}, *others]
    if field == "mask_ids":
        return [{**needed, "result_id": result, "mask_ids": [mask]}]
    if field == "examples":
        return [{**needed, "examples": [{"mask_id": mask, "is": True}]}]
    raise AssertionError(f"{tool}.{field}: say here how an id is given to it, or that it holds none")


def test_no_tool_knows_another_tenants_ids(shared: Shared, of_south: dict[str, str]) -> None:
    asyncio.run(_every_tool(shared, of_south))


async def _every_tool(shared: Shared, of_south: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {shared.issuer.token('north')}"}
    asked = 0
    async with (
        httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(120)) as http,
        Client(
            streamable_http_client(f"{shared.server.url}/mcp", http_client=http), extensions=SHOWS_APPS
        ) as north,
    ):
        tools = (await north.list_tools()).tools
        assert {"segment", "viewer", "library", "job"} <= {tool.name for tool in tools}
        for tool in tools:
            for field in sorted(set(tool.input_schema["properties"]) - NAMES_NOTHING):
                for foreign in calls(tool.name, field, of_south):
                    unknown = calls(
                        tool.name, field, {kind: never_was(each) for kind, each in of_south.items()}
                    )
                    other = unknown[calls(tool.name, field, of_south).index(foreign)]
                    said = [await north.call_tool(tool.name, each) for each in (foreign, other)]
                    texts = [shape(text_of(each)) for each in said]
                    assert said[0].is_error and texts[0] == texts[1], (tool.name, foreign, texts)
                    asked += 1
        assert asked >= 20
        for template in (await north.list_resource_templates()).resource_templates:
            uri = template.uri_template.replace("{result_id}", of_south["res"]).replace(
                "{image_id}", of_south["img"]
            )
            if "_id}" in template.uri_template:
                uri = uri.replace("{name}", f"{of_south['msk']}.png")
                errors = []
                for each in (uri, never_was(uri)):
                    with pytest.raises(MCPError) as refused:
                        await north.read_resource(each)
                    errors.append(shape(str(refused.value)))
                assert errors[0] == errors[1] and errors[0].startswith("unknown_"), errors


def test_no_page_knows_another_tenants_ids(shared: Shared, of_south: dict[str, str], tmp_path: Path) -> None:
    service = Place(tmp_path, tmp_path / "never-made").lazy()
    names = Names.of("127.0.0.1", 1, ())
    app = http_app(build_server(service), service, names, Keys(None), PeerLimits())
    values = {
        "result_id": of_south["res"],
        "image_id": of_south["img"],
        "mask_id": of_south["msk"],
        "path": "overlay.png",
        "number": "1",
    }
    asked = 0
    for route in app.routes:
        path, methods = route.path, getattr(route, "methods", None) or set()
        if "_id" not in path or path.startswith("/view/"):  # /view/ is the page alone, the same for everybody
            continue
        filled = re.sub(r"\{(\w+)(?::\w+)?\}", lambda slot: values.get(slot.group(1), "0"), path)
        for method in methods & {"GET", "POST", "PUT", "DELETE"}:
            there = shared.ask(method, f"{filled}?x=30&y=30", "south")
            assert there.status_code in (200, 204), (filled, there.text)
            found = [shared.ask(method, f"{each}?x=30&y=30", "north") for each in (filled, never_was(filled))]
            assert found[0].status_code == 404 == found[1].status_code, filled
            assert shape(found[0].text) == shape(found[1].text), filled
            asked += 1
    assert asked >= 7
    pages = [
        shared.ask("GET", f"/view/{each}", "north") for each in (of_south["res"], never_was(of_south["res"]))
    ]
    assert pages[0].content == pages[1].content
    images = [
        shared.ask("GET", f"/look/image?image=image://{each}", "north")
        for each in (of_south["img"], never_was(of_south["img"]))
    ]
    assert images[0].status_code == 404 and shape(images[0].text) == shape(images[1].text)


def test_a_token_that_has_ended_ends_its_session_too_and_clocks_may_differ_a_little(shared: Shared) -> None:
    now = int(time.time())
    for right in ({"iat": now + LEEWAY_S - 10}, {"exp": now - LEEWAY_S + 15}, {"nbf": now + LEEWAY_S - 10}):
        assert shared.knock(shared.issuer.token("south", **right)).status_code == 200, right
    for wrong in ({"iat": now + LEEWAY_S + 60}, {"exp": now - LEEWAY_S - 5}, {"nbf": now + LEEWAY_S + 60}):
        assert shared.knock(shared.issuer.token("south", **wrong)).status_code == 401, wrong
    ending = shared.issuer.token("south", exp=int(time.time()) - LEEWAY_S + 8)
    opened = shared.ask("POST", "/mcp", token=ending, headers=ANY_ANSWER, json=OPENING)
    assert opened.status_code == 200
    session = {"Mcp-Session-Id": opened.headers["mcp-session-id"], **ANY_ANSWER}
    time.sleep(9)
    assert shared.ask("POST", "/mcp", token=ending, headers=session, json=ASKED).status_code == 401
