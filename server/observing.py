"""Every call, resource and page, seen once as it is answered: for the log, the audit log and the metrics.

What is seen is the tool, how it ended, how long it took and ids that are random or hashes; never words, names or paths.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server import ServerRequestContext
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, CallToolResult
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tissuetalk.models import errors
from tissuetalk.models.errors import ResourceError
from tissuetalk.models.logs import CALLS
from tissuetalk.server.audit import AuditLog, Deed

if TYPE_CHECKING:
    from tissuetalk.server.metrics import Metrics

_ID = re.compile(r"(?<![0-9a-z_])(res|img|job)_[0-9a-f]{32}(?![0-9a-f])")
_CODE = re.compile(r"[a-z_]{3,40}(?=: )")
DENIED = {401: "not_signed_in", 403: "not_permitted"}
_QUIET = ("/health", "/metrics", "/.well-known/")
"""Asked all the time by machines; in the audit log only where it was denied."""
TILES_EVERY_S = 3600.0
_MOST_SEEN = 10_000
STRANGERS_A_MINUTE = 100
"""Refusals of people without an account that are written down, so that nobody from outside can fill a disk with them."""
NOBODY = "nobody"


def _codes(kind: type[errors.TissuetalkError]) -> Iterator[str]:
    yield kind.code
    for each in kind.__subclasses__():
        yield from _codes(each)


CODES = frozenset(_codes(errors.TissuetalkError))


class Observing:
    """Who is told. who: what a caller without an account is called."""

    def __init__(
        self, audit: AuditLog | None = None, metrics: Metrics | None = None, who: str = "local"
    ) -> None:
        self.audit, self.metrics, self.who = audit, metrics, who
        self._log = logging.getLogger(CALLS)
        self._seen: OrderedDict[tuple[str, str, str | None], float] = OrderedDict()
        self._strangers: deque[float] = deque(maxlen=STRANGERS_A_MINUTE)

    async def note(self, deed: Deed, seconds: float) -> None:
        """Raises ResourceError where the audit log cannot be written: then nothing is given out."""
        self._log.info("", extra={"tool": deed.tool, "outcome": deed.outcome, "seconds": round(seconds, 3)})
        if self.metrics is not None:
            self.metrics.note(deed, seconds)
        audit = self.audit
        if audit is not None and not self._was_seen(deed):
            with anyio.CancelScope(shield=True):
                await asyncio.to_thread(audit.add, deed)

    def deed(self, tool: str, outcome: str, token: AccessToken | None, ids: Mapping[str, str]) -> Deed:
        who, tenant = self.who, ""
        if token is not None:
            who, tenant = str(token.subject or token.client_id)[:200], str((token.claims or {}).get("tenant"))
        return Deed(tool, outcome, who, tenant, ids.get("img"), ids.get("res"), ids.get("job"))

    def _was_seen(self, deed: Deed) -> bool:
        """Tiles of one image or result to one account count once an hour, strangers so often a minute, all else each time."""
        now = time.monotonic()
        if deed.who == NOBODY:
            full = len(self._strangers) == STRANGERS_A_MINUTE and now - self._strangers[0] < 60
            self._strangers.extend(() if full else (now,))
            return full
        if deed.tool != "tiles" or deed.outcome != "done":
            return False
        what = deed.tenant, deed.who, deed.result or deed.image
        if now - self._seen.get(what, -TILES_EVERY_S) < TILES_EVERY_S:
            return True
        self._seen[what] = now
        self._seen.move_to_end(what)
        while len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)
        return False


class ObservedCalls(ServerMiddleware[Any]):
    """Calls of tools and resources. tools: their names; a name that nobody offers is somebody's words."""

    def __init__(self, observing: Observing, tools: frozenset[str]) -> None:
        self._observing, self._tools = observing, tools

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method not in ("tools/call", "resources/read"):
            return await call_next(ctx)
        params, begun = dict(ctx.params or {}), time.monotonic()
        name = str(params.get("name")) if ctx.method == "tools/call" else "resource"
        tool = name if name in self._tools or name == "resource" else "unknown"
        given = params.get("arguments") if ctx.method == "tools/call" else {"uri": params.get("uri")}
        ids = _ids_in(given if isinstance(given, dict) else {})
        outcome = "error"
        try:
            result = await call_next(ctx)
            outcome = _outcome(tool, result, ids)
        except MCPError as error:
            outcome = _code(error.error.message)
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            deed = self._observing.deed(tool, outcome, get_access_token(), ids)
            try:
                await self._observing.note(deed, time.monotonic() - begun)
            except ResourceError as error:
                said = f"{error.code}: what is done here must be written down, and cannot be now; tell the operator."
                raise MCPError(INTERNAL_ERROR, said) from error
        return result


def _outcome(tool: str, result: HandlerResult, ids: dict[str, str]) -> str:
    """How a call ended; ids: takes up those of the answer."""
    if isinstance(result, CallToolResult):
        failed, said, first = bool(result.is_error), result.structured_content, result.content[:1]
        text = str(getattr(first[0], "text", "")) if first else ""
    elif isinstance(result, dict):  # already in the form of the wire
        failed, said = bool(result.get("isError")), result.get("structuredContent")
        text = str((result.get("content") or [{}])[0].get("text", ""))
    else:
        return "done"
    if failed:
        return _code(text)
    if not isinstance(said, dict):
        return "done"
    for inner in (said.get("result"), said):
        if isinstance(inner, dict):
            image = inner.get("image")
            named = {"res": inner.get("result_id"), "job": inner.get("job_id")}
            named["img"] = image.get("image_id") if isinstance(image, dict) else None
            ids |= {
                kind: each for kind, each in named.items() if isinstance(each, str) and _ID.fullmatch(each)
            }
    return "job" if tool != "job" and said.get("job_id") else "done"


def _code(text: str) -> str:
    found = _CODE.match(text)
    return found.group(0) if found and found.group(0) in CODES else "error"


def _ids_in(given: Mapping[str, Any]) -> dict[str, str]:
    """Ids among the short texts of a request."""
    texts = [value for value in given.values() if isinstance(value, str) and len(value) < 300]
    return {found.group(1): found.group(0) for text in texts for found in _ID.finditer(text)}


class ObservedPages:
    """Everything else that is asked over HTTP, and whatever is refused before a tool is reached."""

    def __init__(self, app: ASGIApp, observing: Observing) -> None:
        self._app, self._observing = app, observing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, refused = time.monotonic(), False

        async def noting(message: Message) -> None:
            """Before anything is given out."""
            nonlocal refused
            if message["type"] == "http.response.start":
                try:
                    await self._note(scope, message["status"], time.monotonic() - begun)
                except ResourceError as error:
                    refused = True
                    said = {"error": error.code, "message": "what is done here cannot be written down now."}
                    await JSONResponse(said, 507)(scope, receive, send)
            if not refused:
                await send(message)

        await self._app(scope, receive, noting)

    async def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path: str = scope["path"]
        if self._observing.metrics is not None:
            self._observing.metrics.note_response(path, status)
        if status not in DENIED and (path == "/mcp" or path.startswith(_QUIET)):
            return
        user, token = scope.get("user"), None
        if isinstance(user, AuthenticatedUser):
            token = user.access_token
        request = Request(scope)
        ids = {
            **_ids_in({"path": path, "image": request.query_params.get("image", "")}),
            **scope.get("made", {}),
        }
        tool = _tool_of(path)
        outcome = DENIED.get(status) or (
            "done" if status < 400 else "not_found" if status == 404 else "error"
        )
        if outcome == "done" and not ids and tool == "page":
            return  # the page itself, which holds nothing
        deed = self._observing.deed(tool, outcome, token, ids)
        if status == 401:
            deed = Deed(tool, outcome, NOBODY, image=ids.get("img"), result=ids.get("res"))
        elif token is None and "key" in request.query_params:
            key = hashlib.sha256(request.query_params["key"].encode()).hexdigest()[:16]
            tenant = request.query_params["key"].rpartition(".")[0][:63]
            deed = Deed(tool, outcome, f"link:{key}", tenant, ids.get("img"), ids.get("res"))
        await self._observing.note(deed, seconds)


def _tool_of(path: str) -> str:
    first = path.split("/")[1]
    known = {
        "mcp": "mcp",
        "images": "upload",
        "look": "look",
        "tiles": "tiles",
        "files": "file",
        "share": "share",
    }
    known |= {"enter": "enter", "audit": "audit", "metrics": "metrics"}
    return known.get(first, "page")
