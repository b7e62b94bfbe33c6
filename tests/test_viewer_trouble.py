"""The viewer's server where things go wrong: browsers that go away, two pages that correct one result, tables of any size."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from conftest import Place
from drawn import stored
from http_server import HttpServer, http_server
from PIL import Image

from tissuetalk.models.errors import InvalidArgumentError, UnknownImageError
from tissuetalk.tools import Session
from tissuetalk.tools.view import Viewing
from tissuetalk.tools.view.viewing import MOST_POINTS

IMAGE = Path(__file__).parent / "data" / "images" / "OSCC_400x_401.jpg"
PROTOCOL = "2026-07-28"
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing tells the other side at once that nobody listens any more."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    folder = tmp_path_factory.mktemp("trouble")
    place = Place(folder / "images", folder / "workspace")
    place.root.mkdir()
    shutil.copy(IMAGE, place.root / "a.jpg")
    with http_server(place) as running:
        yield running


def call(server: HttpServer, name: str, **arguments: object) -> dict:
    """As the page calls: one request, no session."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": PROTOCOL,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": name, "arguments": arguments, "_meta": meta}
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": PROTOCOL,
        "Mcp-Method": "tools/call",
        "Mcp-Name": name,
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = httpx2.post(f"{server.url}/mcp", json=body, headers=headers, timeout=120)
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = [line[5:] for line in text.splitlines() if line.startswith("data:") and '"id":1' in line][-1]
    return json.loads(text)["result"]


def test_two_pages_correct_the_same_result_and_nothing_is_lost(server: HttpServer) -> None:
    options = {"image": "a.jpg", "words": "outline the nuclei", "model": "classical-nuclei", "mpp": 0.25}
    first = call(server, "segment", **options)["structuredContent"]
    result_id, mask_id = first["result_id"], first["masks"][0]["mask_id"]
    rows = httpx2.get(f"{server.url}/look/objects/{result_id}/{mask_id}", timeout=60).json()["rows"]
    places = [[rows["centroid_x"][at], rows["centroid_y"][at]] for at in (3, 60)]

    def correct(point: list[float]) -> dict:
        examples = [{"is": False, "point": point}]
        return call(
            server, "segment", image="a.jpg", words="nuclei", base_result=result_id, examples=examples
        )

    with ThreadPoolExecutor(2) as pool:
        answers = [each["structuredContent"] for each in pool.map(correct, places)]
    assert len({result_id, *(each["result_id"] for each in answers)}) == 3
    for answer, gone in zip(answers, places, strict=True):
        assert answer["parent"] == result_id
        assert answer["masks"][0]["count"] == first["masks"][0]["count"] - 1
        about = httpx2.get(f"{server.url}/look/result/{answer['result_id']}", timeout=60).json()
        mask = about["result"]["masks"][0]["mask_id"]
        left = httpx2.get(f"{server.url}/look/objects/{answer['result_id']}/{mask}", timeout=60).json()[
            "rows"
        ]
        kept = {(round(x), round(y)) for x, y in zip(left["centroid_x"], left["centroid_y"], strict=True)}
        other = next(each for each in places if each is not gone)
        assert (round(gone[0]), round(gone[1])) not in kept and (round(other[0]), round(other[1])) in kept
    # what they corrected is as it was
    about = httpx2.get(f"{server.url}/look/result/{result_id}", timeout=60).json()
    assert about["result"]["masks"][0]["count"] == first["masks"][0]["count"]


def descriptors(server: HttpServer) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def test_a_browser_that_goes_away_leaves_nothing_behind(server: HttpServer) -> None:
    about = httpx2.get(f"{server.url}/look/image", params={"image": "a.jpg"}, timeout=60).json()
    tile = f"/tiles/image/{about['image_id']}/0/%d/0"
    assert httpx2.get(server.url + tile % 0, timeout=60).status_code == 200
    time.sleep(0.5)
    before = descriptors(server)
    for number in range(60):
        connection = server.half_open(f"GET {tile % (number % 2)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if number % 3 == 0:
            connection.recv(100)  # in the middle of the answer
        connection.close()
    until = time.monotonic() + 60
    while descriptors(server) > before + 3 and time.monotonic() < until:
        time.sleep(0.2)
    assert descriptors(server) <= before + 3
    # every share of a caller is given back, or the next would be told to wait
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda at: httpx2.get(server.url + tile % (at % 2), timeout=60), range(16)))
    assert {each.status_code for each in answers} == {200}


def view_of(folder: Path, across: int) -> tuple[Session, str]:
    """A result of across x across small objects; 0: a mask in which there is no object any more."""
    labels = np.zeros((max(across, 10) * 5, max(across, 10) * 5), np.int32)
    for number in range(across**2):
        y, x = divmod(number, across)
        labels[y * 5 : y * 5 + 3, x * 5 : x * 5 + 3] = number + 1
    result = stored(folder / "found", {"nuclei": (labels > 0, labels)})
    shown = np.where(labels[..., None] > 0, (120, 80, 160), (240, 230, 240)).astype(np.uint8)
    Image.fromarray(shown).save(folder / "a.png")
    session = Session(folder, workspace=folder / "workspace")
    found = result.result()
    with session.open("a.png") as source:
        image = found.image.model_copy(update={"image_id": source.image_id})
    result.write_result(found.model_copy(update={"image": image}))
    result.write_request({"image": str(folder / "a.png")})
    return session, session.adopt(folder / "found")


@pytest.mark.parametrize("across", [0, 110])
def test_a_table_of_any_size_is_given(tmp_path: Path, across: int) -> None:
    session, result_id = view_of(tmp_path, across)
    with session:
        viewing = Viewing(session)
        about = viewing.about_result(result_id)
        assert about["image_problem"] is None
        (mask,) = about["result"]["masks"]
        found = viewing.objects(result_id, mask["mask_id"], ["area_px"])
        many = len(found["rows"]["id"])
        assert many <= MOST_POINTS and many == -(-(across**2) // found["every"])
        assert set(found["rows"]["area_px"]) == ({9} if across else set())
        with pytest.raises(InvalidArgumentError):
            viewing.object_row(result_id, mask["mask_id"], across**2 + 1, (1.0, 1.0))
        cover = viewing.cover_tile(result_id, mask["mask_id"], 0, 0, 0).content
        assert (cover is None) == (across == 0)
        viewing.close()


def test_a_result_whose_image_is_gone_is_shown_without_it(tmp_path: Path) -> None:
    session, result_id = view_of(tmp_path, 10)
    (tmp_path / "a.png").unlink()
    with session:
        viewing = Viewing(session)
        about = viewing.about_result(result_id)
        assert "put it back" in about["image_problem"] and str(tmp_path) not in about["image_problem"]
        (mask,) = about["result"]["masks"]
        assert viewing.cover_tile(result_id, mask["mask_id"], 0, 0, 0).content
        with pytest.raises(UnknownImageError):
            viewing.image_tile(about["result"]["image"]["image_id"], 0, 0, 0)
        viewing.close()
