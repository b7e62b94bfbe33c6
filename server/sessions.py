"""MCP sessions over HTTP: how many a peer may have, and that one request id is one request.

The SDK keeps every session for half an hour and then refuses new clients; here the oldest idle one of the greediest peer
ends instead. The SDK files answers under their request's id; a second request under an id that is being worked on would
take the first one's answer away from it, so it is refused.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pydantic_core
from mcp_types import INVALID_REQUEST
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tissuetalk.models.errors import BusyError
from tissuetalk.server.limits import PeerLimits, Rate, Share, peer_of

MCP_PATH = "/mcp"
MOST_UNANSWERED = 1000
LONGEST_ID = 200
_SESSION = "mcp-session-id"
_BUSY = -32000  # JSON-RPC leaves -32000 to -32099 to servers
_OF_THE_SDK = "_GET_stream"  # its name for a session's own stream, filed among the request ids


@dataclass
class _Session:
    """ids: of requests that are being worked on, and of those whose client left before the answer."""

    peer: str
    used: bool = False
    last_used: float = field(default_factory=time.monotonic)
    requests: int = 0
    asked: int = 0
    ids: set[str] = field(default_factory=lambda: {_OF_THE_SDK})


class Sessions:
    """Middleware around the SDK's endpoint."""

    def __init__(self, app: ASGIApp, limits: PeerLimits) -> None:
        self._app, self._limits = app, limits
        self._sessions: dict[str, _Session] = {}
        self._working = Share("requests", limits.requests_each, limits.requests)
        self._rate = Rate(limits.requests_per_minute)
        self._bytes = Share("bytes of requests", limits.body_bytes_each, limits.body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != MCP_PATH:
            await self._app(scope, receive, send)
            return
        peer = peer_of(scope["client"][0] if scope["client"] else None)
        if scope["method"] != "POST":
            await self._in_session(scope, receive, send)
            return
        with self._working.held(peer) as work, self._bytes.held(peer) as size:
            try:
                self._rate.take()
                work.grow_to(1)
                body = bytearray()
                async for chunk in Request(scope, receive).stream():
                    size.grow_to(len(body) + len(chunk))
                    body += chunk
                    if len(body) > self._limits.one_body_bytes:
                        await refusal(f"a request may have {self._limits.one_body_bytes} bytes", 413)(
                            scope, receive, send
                        )
                        return
            except BusyError as error:
                await refusal(f"{error.code}: {error}", 503, _BUSY)(scope, receive, send)
                return
            except ClientDisconnect:
                return
            await self._post(bytes(body), scope, _again(bytes(body), receive), send)

    async def _post(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        session = self._sessions.get(headers.get(_SESSION, ""))
        asks, request_id = _request_id(body)
        if asks and (refused := _wrong_id(request_id, session)) is not None:
            await refused(scope, receive, send)
        elif session is None:
            version = headers.get("mcp-protocol-version")
            opens = _SESSION not in headers and (version is None or version in HANDSHAKE_PROTOCOL_VERSIONS)
            await self._app(scope, receive, self._noting_new_session(scope, send) if opens else send)
        elif asks:
            await self._answered(session, _as_filed(request_id), scope, receive, send)
        else:
            await self._in_session(scope, receive, send)

    async def _answered(
        self, session: _Session, request_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """The id stays taken when the client leaves early: its late answer must not become another request's."""
        session.ids.add(request_id)
        session.asked += 1
        whole = False

        async def noting_the_end(message: Message) -> None:
            nonlocal whole
            whole = whole or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        try:
            await self._in_session(scope, receive, noting_the_end)
        finally:
            session.asked -= 1
            if whole:
                session.ids.discard(request_id)

    async def _in_session(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = Headers(scope=scope).get(_SESSION, "")
        session = self._sessions.get(name)
        if session is None:
            await self._app(scope, receive, send)
            return
        session.used, session.last_used = True, time.monotonic()
        session.requests += 1

        async def noting_the_last(message: Message) -> None:
            gone = message["type"] == "http.response.start" and (
                message["status"] == 404 or (scope["method"] == "DELETE" and message["status"] == 200)
            )
            if gone:
                self._sessions.pop(name, None)
            await send(message)

        try:
            await self._app(scope, receive, noting_the_last)
        finally:
            session.requests -= 1
            session.last_used = time.monotonic()

    def _noting_new_session(self, scope: Scope, send: Send) -> Send:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                name = Headers(raw=message.get("headers", [])).get(_SESSION)
                if name is not None:
                    peer = peer_of(scope["client"][0] if scope["client"] else None)
                    self._sessions[name] = _Session(peer)
                    await self._end_what_is_too_much(name)
            await send(message)

        return noting

    async def _end_what_is_too_much(self, newest: str) -> None:
        """Ends those whose client never spoke again, then idle ones until every limit holds: of the peer with most, the oldest."""
        now = time.monotonic()
        for name, session in list(self._sessions.items()):
            unused_s = now - session.last_used
            if not session.used and unused_s >= self._limits.half_open_s:
                await self._end(name)
            elif not session.requests and unused_s > self._limits.session_idle_s:  # the SDK has ended it
                del self._sessions[name]
        while self._sessions:
            held = Counter(session.peer for session in self._sessions.values())
            peer, most = held.most_common(1)[0]
            if most <= self._limits.sessions_each and held.total() <= self._limits.sessions:
                return
            idle = [
                (session.used, session.last_used, name)
                for name, session in self._sessions.items()
                if session.peer == peer and not session.asked and name != newest
            ]
            if not idle:
                return
            await self._end(min(idle)[2])

    async def _end(self, name: str) -> None:
        """As its client would: the SDK has no other way to end one session."""
        self._sessions.pop(name, None)
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "DELETE",
            "scheme": "http",
            "path": MCP_PATH,
            "raw_path": MCP_PATH.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(_SESSION.encode(), name.encode())],
            "state": {},
            "client": None,
            "server": None,
        }

        async def nothing(_: Message) -> None:
            return None

        await self._app(scope, _again(b"", _gone), nothing)


def refusal(
    message: str, status: int, code: int = INVALID_REQUEST, request_id: int | str | None = None
) -> Response:
    """A JSON-RPC error; without an id where the request could not be read so far, as the SDK's endpoint does it."""
    error = {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
    return JSONResponse(error, status, {"Retry-After": "2"} if status == 503 else None)


def _request_id(body: bytes) -> tuple[bool, Any]:
    """Whether an answer is expected, and under which id; what is no JSON-RPC at all is left to the SDK."""
    try:
        message = pydantic_core.from_json(body)
    except ValueError:
        return False, None
    if not isinstance(message, dict) or "method" not in message or "id" not in message:
        return False, None
    return True, message["id"]


def _wrong_id(request_id: Any, session: _Session | None) -> Response | None:
    if (
        isinstance(request_id, bool)
        or not isinstance(request_id, int | str)
        or len(str(request_id)) > LONGEST_ID
    ):
        return refusal(f"an id is a whole number or a text of at most {LONGEST_ID} characters", 400)
    if session is not None and _as_filed(request_id) in session.ids:
        said = "this id belongs to another request of the session; give each request its own"
        return refusal(said, 400, request_id=request_id)
    if session is not None and len(session.ids) > MOST_UNANSWERED:
        said = "too many requests of this session were left unanswered; open a new one"
        return refusal(said, 400, request_id=request_id)
    return None


def _as_filed(request_id: int | str) -> str:
    """The SDK takes "7" and 7 for one id."""
    try:
        return str(int(request_id))
    except ValueError:
        return str(request_id)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


async def _gone() -> Message:
    return {"type": "http.disconnect"}
