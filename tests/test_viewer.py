"""What the viewer is given over HTTP: tiles that fit the picture, addresses that open nothing else, and who is let in."""

from __future__ import annotations

import io
import shutil
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx2
import numpy as np
import pytest
from conftest import Place
from http_server import HttpServer, http_server
from PIL import Image

from tissuetalk.server.keys import Keys
from tissuetalk.tools import Session
from tissuetalk.tools.session import Segmentation
from tissuetalk.tools.view import tiles

IMAGES = Path(__file__).parent / "data" / "images"
TOKEN = "a-token-for-tests-only"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Served:
    server: HttpServer
    found: Segmentation
    doomed: str
    image: np.ndarray

    @property
    def result_id(self) -> str:
        return self.found.result.result_id

    @property
    def mask_id(self) -> str:
        return self.found.result.masks[0].mask_id

    def get(self, path: str, **options: object) -> httpx2.Response:
        options.setdefault("headers", AUTHORISED)
        return httpx2.get(self.server.url + path, timeout=60, **options)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("viewer")
    place = Place(folder / "images", folder / "workspace")
    place.root.mkdir()
    shutil.copy(IMAGES / "OSCC_400x_401.jpg", place.root / "a.jpg")
    with Session(place.root, place.workspace) as session:
        options = {"model": "classical-nuclei", "mpp": 0.25}
        found = session.segment("a.jpg", "outline the nuclei", **options)
        doomed = session.segment("a.jpg", "outline the nuclei", region=[0, 0, 200, 200], **options)
    image = np.asarray(Image.open(place.root / "a.jpg").convert("RGB"))
    with http_server(place, environment={"TISSUETALK_TOKEN": TOKEN}) as server:
        yield Served(server, found, doomed.result.result_id, image)


def labels(served: Served) -> np.ndarray:
    path = (
        served.server.place.workspace / "results" / served.result_id / "instances" / f"{served.mask_id}.png"
    )
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def outlines(content: bytes) -> dict[int, list[np.ndarray]]:
    """Rings of every object of an object tile, in image pixels."""
    magic, objects, rings, points = struct.unpack_from("<4I", content)
    step, x0, y0, _ = struct.unpack_from("<4f", content, 16)
    assert magic == tiles.MAGIC
    words = np.frombuffer(content, "<u4", 2 * objects + rings + 2, 32)
    numbers, first_ring, first_point = np.split(words, [objects, 2 * objects + 1])
    at = np.frombuffer(content, "<i2", 2 * points, 32 + words.nbytes).reshape(-1, 2) * step + (x0, y0)
    return {
        int(number): [
            at[first_point[ring] : first_point[ring + 1]]
            for ring in range(first_ring[index], first_ring[index + 1])
        ]
        for index, number in enumerate(numbers)
    }


def signed_area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def test_tiles_are_the_picture(served: Served) -> None:
    height, width = served.image.shape[:2]
    about = served.get("/look/image", params={"image": "a.jpg"}).json()
    assert (about["width"], about["height"]) == (width, height)
    for z, x, y in ((0, 0, 0), (0, (width - 1) // 512, (height - 1) // 512), (1, 0, 0)):
        answer = served.get(f"/tiles/image/{about['image_id']}/{z}/{x}/{y}")
        assert answer.headers["content-type"] == "image/jpeg"
        seen = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(float)
        side = 512 * 2**z
        part = served.image[y * side : (y + 1) * side, x * side : (x + 1) * side]
        expected = cv2.resize(part, seen.shape[1::-1], interpolation=cv2.INTER_AREA).astype(float)
        assert np.abs(seen - expected).mean() < 6


def test_cover_and_outlines_are_the_mask(served: Served) -> None:
    whole, at = labels(served), f"{served.result_id}/{served.mask_id}/0/0/0"
    cover = cv2.imdecode(
        np.frombuffer(served.get(f"/tiles/cover/{at}").content, np.uint8), cv2.IMREAD_UNCHANGED
    )
    part = whole[:512, :512]
    assert np.array_equal(cover[1 : 1 + part.shape[0], 1 : 1 + part.shape[1]] > 0, part > 0)
    found = outlines(served.get(f"/tiles/objects/{at}").content)
    for number, rings in found.items():
        # holes run the other way round, so their areas are taken away
        area = abs(sum(signed_area(ring) for ring in rings))
        assert area == pytest.approx(np.count_nonzero(whole == number), abs=1e-3)
    centres = [np.argwhere(whole == number).mean(axis=0) for number in np.unique(whole)[1:]]
    assert len(found) == sum(bool((centre < 511.5).all()) for centre in centres)


def test_tiles_are_kept_by_browsers_and_given_in_part(served: Served) -> None:
    path = f"/tiles/cover/{served.result_id}/{served.mask_id}/0/0/0"
    first = served.get(path)
    tag = first.headers["etag"]
    assert "immutable" in first.headers["cache-control"] and "private" in first.headers["cache-control"]
    again = served.get(path, headers={**AUTHORISED, "If-None-Match": tag})
    assert again.status_code == 304 and not again.content
    part = served.get(path, headers={**AUTHORISED, "Range": "bytes=4-9"})
    assert part.status_code == 206 and part.content == first.content[4:10]
    assert part.headers["content-range"] == f"bytes 4-9/{len(first.content)}"
    last = served.get(path, headers={**AUTHORISED, "Range": "bytes=-5"})
    assert last.content == first.content[-5:]
    beyond = served.get(path, headers={**AUTHORISED, "Range": f"bytes={len(first.content)}-"})
    assert beyond.status_code == 416


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/tiles/image/img_" + "0" * 32 + "/0/0/0", 404, "unknown_image"),
        ("/tiles/image/..%2f..%2fetc%2fpasswd/0/0/0", 404, None),
        ("/tiles/cover/{result}/{mask}/0/99/0", 400, "invalid_argument"),
        ("/tiles/cover/{result}/{mask}/40/0/0", 400, "invalid_argument"),
        ("/tiles/cover/{result}/{mask}/0/99999999999999999999/0", 400, "invalid_argument"),
        ("/tiles/cover/{result}/{mask}/0/-1/0", 404, None),
        ("/tiles/objects/{result}/{mask}/9/0/0", 400, "invalid_argument"),
        ("/tiles/cover/{result}/msk_" + "0" * 32 + "/0/0/0", 404, "unknown_mask"),
        ("/tiles/cover/{result}/..%2f..%2fworkspace/0/0/0", 404, None),
        ("/tiles/cover/res_" + "0" * 32 + "/{mask}/0/0/0", 404, "unknown_result"),
        ("/look/image?image=/etc/passwd", 404, "outside_roots"),
        ("/look/image?image=%00", 400, "invalid_argument"),
        ("/look/image", 400, "invalid_argument"),
        ("/look/result/..%2f..%2fetc", 404, None),
        ("/look/objects/{result}/{mask}?column=geometry", 400, "invalid_argument"),
        ("/look/object/{result}/{mask}/1", 400, "invalid_argument"),
        ("/look/object/{result}/{mask}/999999?x=1&y=1", 400, "invalid_argument"),
        ("/files/{result}/../../workspace.sqlite", 404, None),
        ("/files/{result}/request.json", 404, "unknown_mask"),
        ("/files/{result}/masks/..%2f..%2f..%2fworkspace.sqlite", 404, "unknown_mask"),
    ],
)
def test_addresses_open_nothing_else(served: Served, path: str, status: int, code: str | None) -> None:
    answer = served.get(path.format(result=served.result_id, mask=served.mask_id))
    assert answer.status_code == status, answer.text
    if code is not None:
        assert answer.json()["error"] == code
    assert str(served.server.place.workspace) not in answer.text


def test_a_removed_result_is_gone_from_the_screen(served: Served) -> None:
    about = served.get(f"/look/result/{served.doomed}").json()
    path = f"/tiles/cover/{served.doomed}/{about['result']['masks'][0]['mask_id']}/0/0/0"
    assert served.get(path).status_code == 200
    with Session(served.server.place.root, served.server.place.workspace) as session:
        session.library("delete", result_id=served.doomed)
    for gone in (path, f"/look/result/{served.doomed}"):
        answer = served.get(gone)
        assert answer.status_code == 404 and answer.json()["error"] == "unknown_result"


def test_who_may_look(served: Served) -> None:
    """The page alone says nothing; what it shows needs the token, a cookie made from it, or a signed address."""
    tile = f"/tiles/cover/{served.result_id}/{served.mask_id}/0/0/0"
    assert served.get(tile, headers={}).status_code == 401
    assert served.get(f"/look/result/{served.result_id}", headers={}).status_code == 401
    page = served.get("/", headers={})
    assert page.status_code == 401 and "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    with httpx2.Client(base_url=served.server.url, timeout=60) as client:
        assert (
            client.post("/enter", headers={"Authorization": "Bearer wrong-token-altogether"}).status_code
            == 401
        )
        assert client.get("/enter?code=guessed").status_code == 403
        assert client.get(tile).status_code == 401
        entered = client.post("/enter", headers=AUTHORISED)
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and TOKEN not in cookie
        assert client.get(tile).status_code == 200
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        # a cookie alone changes nothing: the request must come from a page of this server
        assert client.post("/mcp", json=call).status_code == 401
        assert client.post("/mcp", json=call, headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.post("/mcp", json=call, headers={"Origin": served.server.url}).status_code != 401
    forged = {"Cookie": f"tissuetalk={int(time.time()) + 999}.{'0' * 64}"}
    assert served.get(tile, headers=forged).status_code == 401


def test_signed_addresses_open_one_result_for_a_while(served: Served) -> None:
    tile = f"/tiles/cover/{served.result_id}/{served.mask_id}/0/0/0"
    image = f"/tiles/image/{served.found.result.image.image_id}/0/0/0"
    link = Keys(TOKEN).link(served.result_id, 600)
    assert served.get(f"{tile}?{link}", headers={}).status_code == 200
    assert served.get(f"{image}?{link}", headers={}).status_code == 401
    about = served.get(f"/look/result/{served.result_id}?{link}", headers={}).json()
    assert served.get(f"{image}?{about['image_link']}", headers={}).status_code == 200
    assert served.get(f"/look/image?image=a.jpg&{link}", headers={}).status_code == 401
    assert httpx2.post(f"{served.server.url}/mcp?{link}", json={}, timeout=60).status_code == 401
    until, key = link.split("&")
    for wrong in (
        f"{until}&key={'0' * 64}",
        f"until=99999999999&{key}",
        "until=&key=",
        f"until=x&{key}",
        "key=%ff",
    ):
        assert served.get(f"{tile}?{wrong}", headers={}).status_code == 401
    expired = Keys(TOKEN, clock=lambda: time.time() - 7200).link(served.result_id, 600)
    assert served.get(f"{tile}?{expired}", headers={}).status_code == 401
    assert (
        served.get(
            f"{tile}?{Keys('another-token-of-ours').link(served.result_id, 600)}", headers={}
        ).status_code
        == 401
    )


def test_a_code_works_once_and_not_for_long() -> None:
    now = [1000.0]
    keys = Keys(TOKEN, clock=lambda: now[0])
    code = keys.code()
    assert keys.redeem(code) and not keys.redeem(code) and not keys.redeem("")
    late = keys.code()
    now[0] += 601
    assert not keys.redeem(late)
    cookie = keys.cookie()
    assert keys.is_cookie(cookie) and Keys(TOKEN, clock=lambda: now[0]).is_cookie(cookie)
    now[0] += 12 * 3600
    assert not keys.is_cookie(cookie)


def test_the_object_table_is_given_for_plots(served: Served) -> None:
    at = f"{served.result_id}/{served.mask_id}"
    found = served.get(f"/look/objects/{at}", params={"column": ["area_um2"]}).json()
    assert (
        len(found["rows"]["area_um2"]) == served.found.result.masks[0].count
        and "geometry" not in found["columns"]
    )
    number, x, y = (
        int(found["rows"]["id"][3]),
        found["rows"]["centroid_x"][3],
        found["rows"]["centroid_y"][3],
    )
    row = served.get(f"/look/object/{at}/{number}", params={"x": x, "y": y}).json()
    assert (
        row["area_um2"] == pytest.approx(found["rows"]["area_um2"][3], abs=1e-3)
        and "mean_hematoxylin_od" in row
    )
