"""The viewer inside a chat (MCP Apps): a page that the host shows beside an answer, and the tool that brings its tiles.

The page is the one of ``pages.py``. In a chat it may load nothing from anywhere, so what pages have as addresses travels as
data through ``viewer``, which only the page sees. Clients that did not say they show apps are not offered that tool; to all
others answers stay what they are, text and picture.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mcp.server import ServerRequestContext
from mcp.server.apps import APP_MIME_TYPE, Apps, client_supports_apps
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resources import FunctionResource
from mcp_types import CallToolResult, ListToolsResult, TextContent, ToolAnnotations

from tissuetalk.models.errors import InvalidArgumentError, UnknownResultError
from tissuetalk.server import resources
from tissuetalk.server.pages import AT_ONCE, page
from tissuetalk.server.protocol import readable_errors, signature
from tissuetalk.server.service import Service
from tissuetalk.tools.answers import arguments
from tissuetalk.tools.answers.viewer import ViewerAnswer

if TYPE_CHECKING:
    from tissuetalk.tools.view import Viewing

PAGE = "ui://tissuetalk/viewer.html"
SHOWN_FOR = ("segment", "measure", "explain", "view")
PART_BYTES = 135_000
"""Of one answer: with base64 and the envelope under the 200 kB that any answer may have."""
MOST_PLACES = 100
JSON = "application/json"
Call = Callable[..., Awaitable[CallToolResult]]


class ViewerApp:
    """The page, the tools it is shown for, and the one it asks. One per server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tissuetalk app")
        self._looks: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._looked = 0
        self.extension = Apps()
        self.extension.add_resource(
            FunctionResource(
                uri=PAGE,
                name="viewer",
                title="Viewer",
                description="The page a host shows beside an answer: the image with its masks, to pan, zoom, ask and correct.",
                mime_type=APP_MIME_TYPE,
                meta={"ui": {"prefersBorder": True}},
                fn=page,
            )
        )
        self.extension.tool(
            resource_uri=PAGE,
            visibility=["app"],
            name="viewer",
            title="What the viewer draws",
            description=resources.text("tool_viewer.txt"),
            annotations=ToolAnnotations(
                read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
            ),
        )(self._function())

    def add(self, name: str, function: Call, **about: Any) -> None:
        """A tool whose answers the page is shown for; where it makes pictures of places, the page can follow."""
        followed = self._noting(function) if name == "view" else function
        self.extension.tool(resource_uri=PAGE, name=name, **about)(followed)

    def _noting(self, view: Call) -> Call:
        async def call(ctx: Context, **given: Any) -> CallToolResult:
            answer = await view(ctx=ctx, **given)
            result_id = given.get("result_id")
            if result_id and not answer.is_error and (given["region"] or given["mask_ids"]):
                self._looked += 1
                place = {"number": self._looked, "region": given["region"], "mask_ids": given["mask_ids"]}
                self._looks[result_id] = place
                self._looks.move_to_end(result_id)
                while len(self._looks) > MOST_PLACES:
                    self._looks.popitem(last=False)
            return answer

        call.__name__ = "view"
        call.__signature__ = view.__signature__  # type: ignore[attr-defined]  # as app.py made it
        return call

    def _function(self) -> Call:
        @readable_errors("viewer")
        async def viewer(ctx: Context, **given: Any) -> CallToolResult:
            offset, what = given.pop("offset"), given["what"]
            made = asyncio.get_running_loop().run_in_executor(self._threads, self._made, given)
            content, media = await made
            part = content[offset : offset + PART_BYTES]
            end = offset + len(part)
            answer = ViewerAnswer(
                media=media,
                size_bytes=len(content),
                data=base64.b64encode(part).decode(),
                next_offset=end if end < len(content) else None,
            )
            said = TextContent(
                type="text", text=f"{what}: {len(part)} of {len(content)} bytes, for the viewer."
            )
            return CallToolResult(content=[said], structured_content=answer.model_dump())

        viewer.__signature__ = signature(arguments.ViewerCall, ViewerAnswer)  # type: ignore[attr-defined]  # as in app.py
        return viewer

    def _made(self, given: dict[str, Any]) -> tuple[bytes, str]:
        """Bytes and their type. Raises what the pages' addresses answer with a code."""
        what, viewing = given["what"], self._service.viewing()
        if what in ("image_tile", "cover", "outlines"):
            return self._tile(viewing, given)
        if what == "file":
            result_id = _needed(given, "result_id")
            if not result_id.startswith("res_"):
                raise UnknownResultError("that is no result's id; library(action='results') lists them.")
            return viewing.session.file(result_id, _needed(given, "path")), "application/octet-stream"
        return json.dumps(self._described(viewing, given), ensure_ascii=False).encode(), JSON

    def _described(self, viewing: Viewing, given: dict[str, Any]) -> Any:
        if given["what"] == "image":
            return viewing.about_image(_needed(given, "image"))
        result_id = _needed(given, "result_id")
        if given["what"] == "look":
            return self._looks.get(result_id, {"number": 0, "region": None, "mask_ids": None})
        if given["what"] == "result":
            return viewing.about_result(result_id)
        mask_id = _needed(given, "mask_id")
        if given["what"] == "objects":
            return viewing.objects(result_id, mask_id, given["columns"] or ())
        x, y = _needed(given, "near")
        return viewing.object_row(result_id, mask_id, _needed(given, "number"), (x, y))

    def _tile(self, viewing: Viewing, given: dict[str, Any]) -> tuple[bytes, str]:
        z, x, y = _needed(given, "tile")
        if given["what"] == "image_tile":
            tile = viewing.image_tile(_needed(given, "image"), z, x, y)
        else:
            make = viewing.cover_tile if given["what"] == "cover" else viewing.object_tile
            tile = make(_needed(given, "result_id"), _needed(given, "mask_id"), z, x, y)
        return tile.content or b"", tile.media


class AppsOnly(ServerMiddleware[Any]):
    """Leaves what only apps use out of the offer to clients that show none."""

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        found = await call_next(ctx)
        if ctx.method != "tools/list" or client_supports_apps(ctx):
            return found
        if isinstance(found, ListToolsResult):
            return found.model_copy(update={"tools": [tool for tool in found.tools if tool.name != "viewer"]})
        if isinstance(found, dict) and "tools" in found:  # already in the form of the wire
            return {**found, "tools": [tool for tool in found["tools"] if tool["name"] != "viewer"]}
        return found


def _needed(given: dict[str, Any], name: str) -> Any:
    if given[name] is None:
        raise InvalidArgumentError(f"what={given['what']!r} needs {name}.")
    return given[name]
