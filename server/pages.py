"""Pages for people: one self-contained file of HTML, and addresses for what it draws.

    /                       images, results and jobs; drop an image, type words
    /view/RESULT            one result;  /view?image=…  an image without one
    /enter                  a token for a cookie (POST, as a bearer token), or a code that works once (GET ?code=…)
    /look/…                 what there is to see, as JSON: image, result, objects, object
    /tiles/…                image/IMAGE/Z/X/Y, cover/RESULT/MASK/Z/X/Y, objects/RESULT/MASK/Z/X/Y
    /files/RESULT/…         files of a result, as resources have them
    /share/RESULT           (POST) an address of the result's page that needs no token for a while

Tools are called at /mcp, as by everybody else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.resources import files
from typing import Any

from mcp.server import MCPServer
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from tissuetalk.models.errors import InvalidArgumentError, TissuetalkError, UnknownResultError
from tissuetalk.server.keys import COOKIE, COOKIE_S, Keys
from tissuetalk.server.limits import PeerLimits, Share, peer_of
from tissuetalk.server.service import Service
from tissuetalk.tools.answers.arguments import LONGEST_PATH

AT_ONCE = 4
"""Tiles that are made at the same time; more would only wait for the processor."""
STATUS = {
    "unknown_image": 404,
    "unknown_result": 404,
    "unknown_mask": 404,
    "outside_roots": 404,
    "image_changed": 409,
    "busy": 503,
    "workspace_full": 507,
    "workspace_unwritable": 507,
    "image_too_large": 413,
}
SHARED_S = 8 * 3600
FOR_EVER = "private, max-age=31536000, immutable"
MEDIA = {"png": "image/png", "json": "application/json", "geojson": "application/geo+json", "csv": "text/csv"}
_INLINE = re.compile(r"<(script|style)(?:\s[^>]*)?>(.*?)</\1>", re.DOTALL)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@cache
def page() -> str:
    """The viewer, as `make viewer` built it."""
    return files("tissuetalk.server").joinpath("viewer", "viewer.html").read_text("utf-8")


@cache
def policy() -> str:
    """What the page may do: run and wear what stands in it, and ask this server. Nothing else, and in no frame."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(page()):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(hashes['script'])}",
            f"style-src {' '.join(hashes['style'])}",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def html(status: int = 200) -> Response:
    """The page itself holds nothing of anybody's: what it shows it has to ask for."""
    headers = {
        "Content-Security-Policy": policy(),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    return HTMLResponse(page(), status, headers)


def is_page(path: str) -> bool:
    return path in ("/", "/view") or path.startswith("/view/")


def subject_of(path: str) -> str:
    """The image or result whose page, tile, file or description an address is; empty for any other address."""
    _, kind, *rest = [*path.split("/"), ""]
    at = {"view": 0, "files": 0, "tiles": 1, "look": 1}.get(kind)
    return rest[at] if at is not None and len(rest) > at else ""


class Pages:
    """Routes of one server."""

    def __init__(self, service: Service, keys: Keys, limits: PeerLimits) -> None:
        self._service, self._keys = service, keys
        self._share = Share("tiles", limits.requests_each, limits.requests)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tissuetalk tiles")

    def add_to(self, server: MCPServer) -> None:
        def route(path: str, answer: Callable[[Request], Any], *methods: str) -> None:
            server.custom_route(path, methods=list(methods or ("GET",)))(answer)

        for path in ("/", "/view", "/view/{result_id}"):
            route(path, self._page)
        route("/enter", self._enter, "GET", "POST")
        route("/look/image", self._look_image)
        route("/look/result/{result_id}", self._look_result)
        route("/look/objects/{result_id}/{mask_id}", self._look_objects)
        route("/look/object/{result_id}/{mask_id}/{number:int}", self._look_object)
        route("/tiles/image/{image_id}/{z:int}/{x:int}/{y:int}", self._image_tile)
        route("/tiles/cover/{result_id}/{mask_id}/{z:int}/{x:int}/{y:int}", self._mask_tile)
        route("/tiles/objects/{result_id}/{mask_id}/{z:int}/{x:int}/{y:int}", self._mask_tile)
        route("/files/{result_id}/{path:path}", self._file)
        route("/share/{result_id}", self._share_link, "POST")

    @property
    def viewing(self) -> Any:
        return self._service.viewing()

    async def _page(self, request: Request) -> Response:
        return html()

    async def _enter(self, request: Request) -> Response:
        """POST with the token, already checked by whoever guards the server; GET with a code."""
        if request.method == "POST":
            answer: Response = JSONResponse({"entered": True})
        elif self._keys.redeem(request.query_params.get("code", "")):
            answer = RedirectResponse(_path_here(request.query_params.get("to", "/")), 303)
        else:
            return html(403)
        if self._keys.needed:
            secure = request.url.scheme == "https"
            answer.set_cookie(
                COOKIE, self._keys.cookie(), COOKIE_S, httponly=True, samesite="strict", secure=secure
            )
        answer.headers["Cache-Control"] = "no-store"
        return answer

    async def _look_image(self, request: Request) -> Response:
        image = request.query_params.get("image", "")[: LONGEST_PATH + 1]
        return await self._json(request, lambda: self.viewing.about_image(image))

    async def _look_result(self, request: Request) -> Response:
        """With a signed address also the signature for the image, which is good for as long."""
        result_id, until = request.path_params["result_id"], request.query_params.get("until", "")

        def about() -> dict[str, Any]:
            found: dict[str, Any] = self.viewing.about_result(result_id)
            image_id = found["result"]["image"]["image_id"]
            if self._keys.is_link(result_id, until, request.query_params.get("key", "")):
                found["image_link"] = self._keys.link(image_id, int(until) - int(time.time()))
            return found

        return await self._json(request, about)

    async def _look_objects(self, request: Request) -> Response:
        at, columns = request.path_params, request.query_params.getlist("column")[:20]
        return await self._json(
            request, lambda: self.viewing.objects(at["result_id"], at["mask_id"], columns)
        )

    async def _look_object(self, request: Request) -> Response:
        at = request.path_params

        def row() -> dict[str, Any]:
            try:
                near = float(request.query_params["x"]), float(request.query_params["y"])
            except (KeyError, ValueError) as error:
                raise InvalidArgumentError("pass x and y: a point in the object.") from error
            found: dict[str, Any] = self.viewing.object_row(
                at["result_id"], at["mask_id"], at["number"], near
            )
            return found

        return await self._json(request, row)

    async def _image_tile(self, request: Request) -> Response:
        at = request.path_params
        return await self._tile(
            request, lambda: self.viewing.image_tile(at["image_id"], at["z"], at["x"], at["y"])
        )

    async def _mask_tile(self, request: Request) -> Response:
        at, outlines = request.path_params, request.url.path.startswith("/tiles/objects/")

        def tile() -> Any:
            make = self.viewing.object_tile if outlines else self.viewing.cover_tile
            return make(at["result_id"], at["mask_id"], at["z"], at["x"], at["y"])

        return await self._tile(request, tile)

    async def _file(self, request: Request) -> Response:
        result_id, path = request.path_params["result_id"], request.path_params["path"]

        def content() -> bytes:
            if not result_id.startswith("res_"):
                raise UnknownResultError("that is no result's id; library(action='results') lists them.")
            found: bytes = self.viewing.session.file(result_id, path)
            return found

        found = await self._made(request, content)
        if isinstance(found, Response):
            return found
        media = MEDIA.get(path.rpartition(".")[2], "application/octet-stream")
        name = re.sub(r"[^A-Za-z0-9._-]", "_", path.rpartition("/")[2])
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "private, no-cache",
        }
        return _in_part(request, found, media, headers)

    async def _share_link(self, request: Request) -> Response:
        """Not for those who came by such an address themselves: they may only read."""
        result_id = request.path_params["result_id"]

        def link() -> dict[str, Any]:
            self.viewing.about_result(result_id)
            query = f"?{self._keys.link(result_id, SHARED_S)}" if self._keys.needed else ""
            return {"address": f"/view/{result_id}{query}", "lasts_s": SHARED_S if query else None}

        return await self._json(request, link)

    async def _tile(self, request: Request, make: Callable[[], Any]) -> Response:
        """A tile's address names content that never changes, so the address alone is its tag."""
        tag = f'"{hashlib.sha256(request.url.path.encode()).hexdigest()[:24]}"'
        known = request.headers.get("if-none-match", "")
        shown = await self._made(request, make)
        if isinstance(shown, Response):
            return shown
        headers = {"ETag": tag, "Cache-Control": FOR_EVER}
        if tag in known:
            return Response(status_code=304, headers=headers)
        if shown.content is None:
            return Response(status_code=204, headers=headers)
        return _in_part(request, shown.content, shown.media, headers)

    async def _json(self, request: Request, ask: Callable[[], dict[str, Any]]) -> Response:
        found = await self._made(request, ask)
        return (
            found
            if isinstance(found, Response)
            else JSONResponse(found, headers={"Cache-Control": "no-store"})
        )

    async def _made(self, request: Request, make: Callable[[], Any]) -> Any:
        """What was asked for, made on one of a few threads; or the answer that says why not."""
        peer = peer_of(request.client.host if request.client else None)
        try:
            with self._share.held(peer) as one:
                one.grow_to(1)
                return await asyncio.get_running_loop().run_in_executor(self._threads, make)
        except TissuetalkError as error:
            status = STATUS.get(error.code, 400)
            said = {"error": error.code, "message": str(error)}
            headers = {"Cache-Control": "no-store", **({"Retry-After": "2"} if status == 503 else {})}
            return JSONResponse(said, status, headers)


def _path_here(to: str) -> str:
    """An address on this server, whatever was asked for."""
    return to if re.fullmatch(r"/(?!/)[\w./~%-]*(\?[\w./~%=&:-]*)?", to, re.ASCII) else "/"


def _in_part(request: Request, content: bytes, media: str, headers: dict[str, str]) -> Response:
    """All of it, or the one range that was asked for."""
    headers = {**headers, "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}
    wanted = _RANGE.fullmatch(request.headers.get("range", ""))
    if wanted is None or wanted.group(0) == "bytes=-":
        return Response(content, 200, headers, media)
    size, (first, last) = len(content), wanted.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Response(content[start:stop], 206, headers, media)
