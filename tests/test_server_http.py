"""Streamable HTTP in a real process: the conversation, many callers at once, uploads, and who is kept out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx2
import pytest
from conftest import Place
from conversation import call, converse, read, segmented
from drawn import disc_image
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tissuetalk.tools.answers.arguments import MAX_UPLOAD_BYTES

pytestmark = pytest.mark.anyio
COMMAND = str(Path(sys.executable).with_name("tissuetalk"))
TOKEN = "a-token-for-tests-only"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
CALLERS = 32


@dataclass(frozen=True)
class Served:
    place: Place
    url: str

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with (
            httpx2.AsyncClient(headers=AUTHORISED, timeout=httpx2.Timeout(120)) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http)) as client,
        ):
            yield client


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("http")
    place = Place(folder / "images", folder / "workspace")
    for count in range(1, CALLERS + 1):
        disc_image(place.root / f"{count:02}.png", count)
    address = f"127.0.0.1:{free_port()}"
    command = [
        COMMAND,
        "serve",
        "--http",
        address,
        "--root",
        str(place.root),
        "--workspace",
        str(place.workspace),
    ]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            command, stderr=log, stdout=log, env={**os.environ, "TISSUETALK_TOKEN": TOKEN}
        )
        try:
            until = time.monotonic() + 200
            while not answers(f"http://{address}/health"):
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
            yield Served(place, f"http://{address}")
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(60)
        log.seek(0)
        assert "Traceback" not in log.read()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


async def test_a_whole_conversation_over_http(served: Served) -> None:
    async with served.client() as client:
        await converse(client, "12.png", 12)


async def test_32_callers_at_once_each_get_their_own_image(served: Served) -> None:
    """The n-th image has n nuclei; every answer, file and number must say n."""
    said: dict[int, tuple[int, str]] = {}

    async def ask(client: Client, count: int) -> None:
        content = await segmented(
            client,
            image=f"{count:02}.png",
            targets=[{"words": "nuclei"}],
            mpp=0.5,
            model="classical-nuclei",
        )
        rows = (await read(client, content["masks"][0]["resources"]["table"])).decode().splitlines()
        measured = await call(client, "measure", result_id=content["result_id"], metrics=["count"])
        assert len(rows) - 1 == measured.structured_content["measurements"][0]["value"] == count
        said[count] = (content["masks"][0]["count"], content["image"]["image_id"])

    async with served.client() as one, served.client() as other, anyio.create_task_group() as calls:
        for count in range(1, CALLERS + 1):
            calls.start_soon(ask, one if count % 2 else other, count)
    assert {count: got for count, (got, _) in said.items()} == {n: n for n in range(1, CALLERS + 1)}
    assert len({image_id for _, image_id in said.values()}) == CALLERS


async def test_a_client_that_leaves_does_not_disturb_the_others(served: Served) -> None:
    async with served.client() as stays:
        async with served.client() as leaves:
            await call(leaves, "library", action="images")
        await call(stays, "segment", image="03.png", targets=[{"words": "nuclei"}], model="classical-nuclei")


async def test_an_uploaded_image_is_segmented_by_its_address(served: Served, tmp_path: Path) -> None:
    content = disc_image(tmp_path / "upload.png", 7).read_bytes()
    stored = httpx2.put(f"{served.url}/images", content=content, headers=AUTHORISED, timeout=60)
    assert stored.status_code == 201
    uri = stored.json()["image"]
    assert uri.startswith("image://img_") and (stored.json()["width"], stored.json()["height"]) == (260, 260)
    async with served.client() as client:
        await converse(client, uri, 7)
    assert (
        httpx2.put(f"{served.url}/images", content=content, headers=AUTHORISED, timeout=60).json()["image"]
        == uri
    )


@pytest.mark.parametrize(
    ("content", "headers", "status", "error"),
    [
        (b"", {}, 400, "unreadable_image"),
        (b"this is no picture", {}, 400, "unreadable_image"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 100, {}, 400, "unreadable_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, 400, "unreadable_image"),
    ],
)
def test_an_upload_that_is_no_image_is_not_kept(
    served: Served, content: bytes, headers: dict[str, str], status: int, error: str
) -> None:
    uploads = served.place.workspace / "images"
    before = set(uploads.glob("*"))
    refused = httpx2.put(f"{served.url}/images", content=content, headers=AUTHORISED | headers, timeout=60)
    assert (refused.status_code, refused.json()["error"]) == (status, error) and refused.json()["message"]
    assert set(uploads.glob("*")) == before


def test_an_upload_that_says_it_is_too_large_is_refused_unread(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    request = (
        f"PUT /images HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {MAX_UPLOAD_BYTES + 1}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(request.encode())
        with connection.makefile("rb") as stream:
            answer = stream.read().decode()
    assert answer.startswith("HTTP/1.1 413") and "image_too_large" in answer


def test_health_needs_no_token_and_says_nothing_private(served: Served) -> None:
    health = httpx2.get(f"{served.url}/health", timeout=60)
    assert health.status_code == 200 and set(health.json()) == {"status", "name", "version"}


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/mcp"), ("GET", "/mcp"), ("PUT", "/images"), ("GET", "/nowhere")]
)
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}],
)
def test_without_the_token_there_is_nothing(
    served: Served, method: str, path: str, headers: dict[str, str]
) -> None:
    refused = httpx2.request(method, f"{served.url}{path}", headers=headers, content=b"{}", timeout=60)
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/health", "/mcp", "/images"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", ""])
def test_a_rebound_host_name_is_not_served(served: Served, path: str, host: str) -> None:
    refused = httpx2.post(
        f"{served.url}{path}", headers=AUTHORISED | {"Host": host}, content=b"{}", timeout=60
    )
    assert refused.status_code in (400, 421)


def test_a_page_from_elsewhere_cannot_call_tools(served: Served) -> None:
    headers = {
        "Origin": "https://evil.example",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    refused = httpx2.post(f"{served.url}/mcp", headers=AUTHORISED | headers, json=asked, timeout=60)
    assert refused.status_code == 403
