"""Streamable HTTP: loopback by default, a bearer token for any other address, uploads, a health route, pages for people."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from mcp.server import MCPServer
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError, TissuetalkError
from tissuetalk.models.writing import disk_errors
from tissuetalk.server.app import build_server
from tissuetalk.server.audit import AuditLog
from tissuetalk.server.draining import DRAIN_S
from tissuetalk.server.keys import READING, Keys, cookie_of
from tissuetalk.server.limits import Holding, Network, PeerLimits, Share, peer_of
from tissuetalk.server.metrics import Metrics
from tissuetalk.server.names import Names, is_loopback
from tissuetalk.server.observing import ObservedPages, Observing
from tissuetalk.server.operations import Operations
from tissuetalk.server.pages import Pages, html, is_page, subject_of
from tissuetalk.server.service import Service, Settings
from tissuetalk.server.sessions import MCP_PATH, Sessions
from tissuetalk.tools.answers.arguments import MAX_UPLOAD_BYTES

TOKEN_VARIABLE = "TISSUETALK_TOKEN"
LEAST_TOKEN_LENGTH = 16
STATUS = {"image_too_large": 413, "workspace_full": 507, "workspace_unwritable": 507, "busy": 503}
KEEP_ALIVE_S = 65
"""Longer than clients keep a connection, so that they never ask on one that is just being closed."""
_PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Where:
    """How an operator wants to be reached.

    address: HOST:PORT. allowed_hosts: further names of this server. proxies: addresses whose X-Forwarded-For is believed.
    token_file: holds the bearer token. audit: file of the audit log. metrics: HOST:PORT where they are read without a token.
    drain_s: how long running requests are waited for at the end.
    """

    address: str
    allowed_hosts: Sequence[str] = ()
    proxies: Sequence[str] = ()
    token_file: Path | None = None
    limits: PeerLimits = field(default_factory=PeerLimits)
    audit: Path | None = None
    metrics: str | None = None
    drain_s: float = DRAIN_S

    def observing(self, who: str = "local") -> Observing:
        """What watches the whole server. Raises InvalidArgumentError where metrics cannot be had."""
        metrics = None
        if self.metrics is not None or find_spec("prometheus_client") is not None:
            metrics = Metrics()
            if self.metrics is not None:
                metrics.listen(*address(self.metrics))
        return Observing(None if self.audit is None else AuditLog(self.audit), metrics, who)


def address(text: str) -> tuple[str, int]:
    """HOST:PORT as given on the command line. Raises InvalidArgumentError."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgumentError(f"{text!r} is not HOST:PORT; for example 127.0.0.1:8000.")
    return host, int(port)


def token_for(host: str, file: Path | None = None) -> str | None:
    """The bearer token requests must carry; None only on loopback. Raises InvalidArgumentError without one elsewhere."""
    token, source = os.environ.get(TOKEN_VARIABLE) or None, TOKEN_VARIABLE
    if file is not None:
        try:
            token, source = file.read_text("utf-8").strip(), str(file)
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(f"the token cannot be read from {file}: name a text file.") from error
    if token is not None and len(token) < LEAST_TOKEN_LENGTH:
        raise InvalidArgumentError(
            f"the token of {source} is shorter than {LEAST_TOKEN_LENGTH} characters; use a longer one."
        )
    if token is None and not is_loopback(host):
        suggestion = secrets.token_urlsafe(24)
        raise InvalidArgumentError(
            f"{host} can be reached from other machines, so a token is required: set {TOKEN_VARIABLE}, "
            f"for example to {suggestion}, or name a file with --token-file, and have clients send it as "
            "'Authorization: Bearer …'."
        )
    return token


def networks(texts: Sequence[str]) -> list[Network]:
    """Raises InvalidArgumentError for what is no address."""
    try:
        return [ipaddress.ip_network(text, strict=False) for text in texts]
    except ValueError as error:
        raise InvalidArgumentError(
            f"--proxy: {error}; name an address such as 10.0.0.7 or 10.0.0.0/24."
        ) from error


def http_app(server: MCPServer, service: Service, names: Names, keys: Keys, limits: PeerLimits) -> Starlette:
    """The ASGI application: /mcp, /health, PUT /images, and the pages."""
    uploads = _Uploads(service, limits)

    @server.custom_route("/health", methods=["GET"])  # type: ignore[untyped-decorator]  # untyped in the SDK
    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "name": "tissuetalk", "version": version("tissuetalk")})

    server.custom_route("/images", methods=["PUT"])(uploads.receive)
    Operations(service).add_to(server)
    Pages(service, keys, limits).add_to(server)

    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        # hosts and origins are checked below, on every route
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=limits.one_body_bytes,
        session_idle_timeout=limits.session_idle_s,
        max_sessions=limits.sessions + limits.requests,  # never reached: Sessions ends idle ones before
    )
    app.add_middleware(Sessions, limits=limits)
    app.add_middleware(_Guard, keys=keys, names=names)
    return app


class _Guard:
    """Refuses a wrong Host or Origin on every route and, where a token is set, every request without it but /health.

    A browser has a cookie instead, or for what it only reads an address that is signed.
    """

    def __init__(self, app: ASGIApp, keys: Keys, names: Names) -> None:
        self._app, self._keys, self._names = app, keys, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refused := self._refusal(scope)) is not None:
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        own_address = scope["server"][0] if scope.get("server") else None
        if len(hosts) != 1 or not self._names.answers(hosts[0], own_address):
            return JSONResponse({"error": "this Host is not served here"}, 421)
        if not all(self._names.may_call(origin, hosts[0]) for origin in origins):
            return JSONResponse({"error": "pages of this Origin may not call here"}, 403)
        path, reads = scope["path"], scope["method"] in READING
        if not self._keys.needed or path == "/health" or (path == "/enter" and reads):
            return None
        if isinstance(scope.get("user"), AuthenticatedUser):  # whose account was looked at before
            return None
        given = headers.get("authorization", "")
        if given.startswith("Bearer ") and self._keys.is_token(given.removeprefix("Bearer ")):
            return None
        request = Request(scope)
        if self._keys.is_cookie(cookie_of(request)) or (reads and self._signed(request)):
            return None
        if reads and is_page(path):
            return html(401)
        return JSONResponse({"error": "a bearer token is required"}, 401, {"WWW-Authenticate": "Bearer"})

    def _signed(self, request: Request) -> bool:
        """Whether the address carries a signature for what it names: one image or one result."""
        asked = request.query_params
        return self._keys.is_link(subject_of(request.url.path), asked.get("until", ""), asked.get("key", ""))


class _Uploads:
    """PUT /images: the body is one image; the answer is its image:// URI. Nothing is kept that is no image."""

    def __init__(self, service: Service, limits: PeerLimits) -> None:
        self._service = service
        self._count = Share("uploads", limits.uploads_each, limits.uploads)
        self._bytes = Share("bytes of uploads", limits.upload_bytes_each, limits.upload_bytes)

    async def receive(self, request: Request) -> Response:
        peer = peer_of(request.client.host if request.client else None)
        folder = self._service.settings.workspace
        try:
            with self._count.held(peer) as one, self._bytes.held(peer) as size:
                one.grow_to(1)
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder) as file:  # has no name: nothing is left after a kill
                    await self._received(request, size, file)
                    stored = await self._service.call(lambda session: session.upload(file), None)
        except TissuetalkError as error:
            return JSONResponse({"error": error.code, "message": str(error)}, STATUS.get(error.code, 400))
        except ClientDisconnect:
            return Response(status_code=400)
        request.scope["made"] = {"img": stored["image"].removeprefix("image://")}
        return JSONResponse(stored, 201)

    async def _received(self, request: Request, size: Holding, file: IO[bytes]) -> None:
        """Bytes go to disk as they come, off the event loop; raises ImageTooLargeError, BusyError, WorkspaceFullError."""
        size.grow_to(_within_limit(int(request.headers.get("content-length") or 0)))
        waiting, received = bytearray(), 0
        with disk_errors(self._service.settings.workspace):
            async for chunk in request.stream():
                received += len(chunk)
                size.grow_to(_within_limit(received))
                waiting += chunk
                if len(waiting) >= _PIECE_BYTES:
                    await asyncio.to_thread(file.write, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(file.write, bytes(waiting))
            file.seek(0)


def _within_limit(size_bytes: int) -> int:
    if size_bytes > MAX_UPLOAD_BYTES:
        raise ImageTooLargeError(
            f"uploads end at {MAX_UPLOAD_BYTES // 2**20} MiB; put the file in an allowed folder."
        )
    return size_bytes


def serve_http(settings: Settings, where: Where) -> None:
    """Streamable HTTP at /mcp, pages at /. Raises InvalidArgumentError for a bad address or name, or a missing token."""
    host, _ = address(where.address)
    keys = Keys(token_for(host, where.token_file))
    serve_service(Service(settings, observing=where.observing(keys.fingerprint)), where, keys)


def serve_service(service: Service, where: Where, keys: Keys) -> None:
    """The same with a service and keys that somebody has already."""
    if service.observing.metrics is not None:
        service.observing.metrics.watch(service)

    def make(names: Names) -> ASGIApp:
        return http_app(build_server(service), service, names, keys, where.limits)

    serve_app(make, where, service.observing)


def serve_app(make: Callable[[Names], ASGIApp], where: Where, observing: Observing) -> None:
    """Until it is stopped. make: the application for the names that are answered."""
    import uvicorn

    from tissuetalk.server.connections import Connections, allow_open_files
    from tissuetalk.server.draining import Draining, DrainingServer

    host, port = address(where.address)
    names, proxies = Names.of(host, port, where.allowed_hosts), networks(where.proxies)
    app = Draining(ObservedPages(make(names), observing), where.drain_s)
    shown = f"[{host}]" if ":" in host else host
    print(f"tissuetalk serves http://{shown}:{port}{MCP_PATH}", file=sys.stderr)
    print(f"tissuetalk {names.sentence()}", file=sys.stderr, flush=True)
    allow_open_files(where.limits)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Connections(where.limits, proxies).protocol(),  # type: ignore[arg-type]  # uvicorn calls it, whatever it is
        ws="none",
        proxy_headers=bool(proxies),
        forwarded_allow_ips=[str(network) for network in proxies],
        log_config=None,  # as models/logs.py has it
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
    )
    server = DrainingServer(config, app)
    server.run()
    if not server.started:
        sys.exit(3)
