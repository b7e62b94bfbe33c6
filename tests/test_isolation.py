"""Every tool, resource and page that takes an id, by the server's own lists: another tenant's is as unknown as one that never was."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import slow_model as slow
from conftest import Place
from conversation import call, segmented, text_of
from drawn import STROMA, disc_image, discs, lattice, save
from drawn_archive import DrawnArchive, drawn_archive
from drawn_dicom import draw_dicom
from drawn_slides import Drawing
from http_server import http_server
from issuer import issuing
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from services import wait_until
from test_apps import SHOWS_APPS
from test_tenants import ANY_ANSWER, ASKED, OPENING, Shared, accounts_of

from tissuetalk.server.accounts import LEEWAY_S, Accounts
from tissuetalk.server.app import build_server
from tissuetalk.server.http import http_app
from tissuetalk.server.keys import Keys
from tissuetalk.server.limits import PeerLimits
from tissuetalk.server.names import Names
from tissuetalk.server.observing import Observing
from tissuetalk.server.service import Settings
from tissuetalk.server.tenants import Tenants
from tissuetalk.tools.storage.room import Keep
from tissuetalk.tools.storage.workspace import Workspace

ID = re.compile(r"(res|img|msk|job)_[0-9a-f]{32}")
OWN = {"image": "nuclei.png"}
QUICK = {"words": "nuclei", "model": "classical-nuclei", "mpp": 0.5}
WEST = {**OWN, **QUICK}
SLOW = {**QUICK, "image": "slow.png", "model": slow.NAME}
DAY_S = 86_400.0
NAMES_NOTHING = {
    *("words", "targets", "model", "reader", "mpp", "region", "points", "boxes", "organ", "dry_run", "action", "metrics"),
    *("kinds", "question", "classifier", "grid", "folder", "format", "name", "what", "tile", "columns", "number", "near"),
    *("path", "offset", "layers", "kind", "learn", "save_as", "teach", "mode", "language", "threshold", "refine"),
}  # fmt: skip
"""Arguments that hold no id of anything a tenant has."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrawnArchive]:
    drawing = Drawing(side_px=600, fragment_mm2=0.02, mpp=0.5, smallest_px=600)
    largest = draw_dicom(drawing, tmp_path_factory.mktemp("archive") / "slide")
    with drawn_archive(largest.parent) as serving:
        yield serving


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, archive: DrawnArchive) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("isolation")
    for name in ("north", "south", "west"):
        (folder / name).mkdir()
        (folder / f"{name}.secret").write_text(f"Bearer {name}")
    disc_image(folder / "north" / "nuclei.png", 7)
    disc_image(folder / "south" / "of-south.png", 12)
    disc_image(folder / "west" / "nuclei.png", 3)
    for name in ("south", "west"):
        save(folder / name / "slow.png", discs(512, 512, lattice(9), background=STROMA))
    others: dict[str, dict[str, Any]] = {"west": {"jobs_at_once": 1}}
    for name in ("north", "south"):
        secret = str(folder / f"{name}.secret")
        others[name] = {"archives": {"lab": {"url": archive.url, "credentials": secret}}}
    environment = {slow.GATE: str(folder / "gate"), slow.LOG: str(folder / "slow.log")}
    with issuing() as issuer:
        roots = {name: folder / name for name in ("north", "south", "west")}
        accounts = accounts_of(folder, issuer, others, **roots)
        place = Place(folder / "north", folder / "workspace")
        options = {"program": slow.PROGRAM, "environment": environment}
        with http_server(place, "--accounts", str(accounts), **options) as server:
            yield Shared(server, issuer)


async def job_of(client: Client) -> str:
    """Of work that goes on: two slow calls keep the workers until a third has become a job."""
    found: list[str] = []

    async def ask() -> None:
        answer = await client.call_tool("segment", SLOW)
        found.append(answer.structured_content["job_id"])
        calls.cancel_scope.cancel()

    async with anyio.create_task_group() as calls:
        for _ in range(3):
            calls.start_soon(ask)
    return found[0]


@pytest.fixture(scope="module")
def of_south(shared: Shared) -> dict[str, str]:
    """Ids of the other tenant, by their kind; his job is at work."""

    async def ask() -> tuple[dict[str, Any], str]:
        async with shared.client("south") as south:
            return await segmented(south, image="of-south.png", **QUICK), await job_of(south)

    found, job_id = asyncio.run(ask())
    return {
        "job": job_id,
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
        return [{"job_id": ids["job"], "action": each} for each in ("status", "wait", "cancel")]
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
    async with shared.client("south") as south:  # whoever asked has not stopped it
        said = await south.call_tool("job", {"job_id": of_south["job"], "action": "status"})
        assert not said.is_error, text_of(said)
        assert said.structured_content["state"] in ("queued", "running", "done"), text_of(said)
        await south.call_tool("job", {"job_id": of_south["job"], "action": "cancel"})


def test_a_tenant_has_so_many_jobs_at_once_and_holds_up_nobody_else(shared: Shared) -> None:
    asyncio.run(_jobs_at_once(shared))


async def _jobs_at_once(shared: Shared) -> None:
    refused: list[str] = []

    async def ask(west: Client) -> None:
        said = text_of(await west.call_tool("segment", SLOW))
        if said.startswith("busy: "):  # the one that is taken may have become a job
            refused.append(said)

    async with shared.client("west") as west, shared.client("north") as north:
        async with anyio.create_task_group() as calls:
            for _ in range(4):  # all at once: one is taken
                calls.start_soon(ask, west)
            with anyio.fail_after(60):
                while len(refused) < 3:
                    await anyio.sleep(0.05)
            assert all(said.startswith("busy: 1 pieces of work") for said in refused), refused
            assert not (await west.call_tool("view", OWN)).is_error
            await segmented(north, **OWN, **QUICK)
            assert len(refused) == 3
            calls.cancel_scope.cancel()
        assert (await segmented(west, **WEST))["masks"][0]["count"] == 3  # asks again while it is busy


def test_a_slide_in_an_archive_is_its_tenants_own(shared: Shared, archive: DrawnArchive) -> None:
    pytest.importorskip("dicomweb_client", reason="needs tissuetalk[service]")
    asyncio.run(_of_archive(shared, archive))


async def _of_archive(shared: Shared, archive: DrawnArchive) -> None:
    asked = {"image": archive.address, **QUICK}
    async with shared.client("north") as north, shared.client("south") as south:
        listed = (await call(north, "library", action="images")).structured_content["images"]
        assert archive.address in [image["path"] for image in listed]
        found = await segmented(north, **asked)
        assert found["masks"][0]["count"] > 0
        image, result = found["image"]["image_id"], found["result_id"]
        for tool, given in (
            ("measure", {"result_id": result}),
            ("view", {"image": f"image://{image}"}),
            (
                "library",
                {"action": "save", "result_id": result, "folder": "dicomweb:lab", "format": "dicom-seg"},
            ),
        ):
            answer = await south.call_tool(tool, given)
            assert answer.is_error and text_of(answer).startswith("unknown_"), text_of(answer)
        assert archive.authorizations == {"Bearer north"}
        # the copy of one is no copy of another: who opened a slide before cannot be told from how long it takes
        before = len(archive.asked)
        own = await segmented(south, **asked)
        assert len(archive.asked) > before and own["result_id"] != result
        assert archive.authorizations == {"Bearer north", "Bearer south"}
        assert result not in text_of(await call(south, "library", action="results"))
    async with shared.client("west") as west:
        before = len(archive.asked)
        assert archive.address not in text_of(await call(west, "library", action="images"))
        refused = await west.call_tool("segment", asked)
        assert text_of(refused).startswith("outside_roots: "), text_of(refused)
        assert len(archive.asked) == before


def test_each_tenants_things_are_kept_for_its_own_time_and_looked_at_every_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tissuetalk.server.service.RETIRE_EVERY_S", 0.2)
    kept = {"north": {"keep_results_days": 5}, "west": {"keep_uploads_days": 5}}
    with issuing() as issuer:
        file = accounts_of(tmp_path, issuer, kept, north=tmp_path, south=tmp_path, west=tmp_path)
        accounts = Accounts.read(file)
    settings = Settings(None, tmp_path / "workspace", keep=Keep(results_s=20 * DAY_S))
    old = {name: [_result(settings.workspace, name, days) for days in (10, 30)] for name in accounts.tenants}
    tenants = Tenants(accounts, settings, Names.of("127.0.0.1", 1, ()), PeerLimits(), Observing())

    def there() -> dict[str, set[str]]:
        return {
            name: {path.name for path in (settings.workspace / "tenants" / name / "results").iterdir()}
            for name in old
        }

    async def serve() -> None:
        async with tenants._front.router.lifespan_context(tenants._front):
            expected = {"north": set(), "south": {old["south"][0]}, "west": {old["west"][0]}}
            await asyncio.to_thread(wait_until, lambda: there() == expected)
            later = _result(settings.workspace, "north", 6)
            await asyncio.to_thread(wait_until, lambda: later not in there()["north"])

    asyncio.run(serve())


def _result(workspace: Path, tenant: str, days: float) -> str:
    """One that a tenant's server finished so long ago."""
    place = workspace / "tenants" / tenant
    with (
        Workspace(place, clock=lambda: time.time() - days * DAY_S) as opened,
        opened.new_result(image_id="img_1", kind="test") as draft,
    ):
        (draft.folder / "result.json").write_text("{}")
    return draft.result_id


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
