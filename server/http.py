"""Streamable HTTP: loopback by default, a bearer token for any other address, uploads, a health route."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import secrets
import sys
from importlib.metadata import version

from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError, TissuetalkError
from tissuetalk.server.app import build_server
from tissuetalk.server.service import Service, Settings
from tissuetalk.tools.answers.arguments import MAX_UPLOAD_BYTES

TOKEN_VARIABLE = "TISSUETALK_TOKEN"
LEAST_TOKEN_LENGTH = 16
STATUS = {"image_too_large": 413, "workspace_full": 507, "workspace_unwritable": 507, "busy": 503}


def address(text: str) -> tuple[str, int]:
    """HOST:PORT as given on the command line. Raises InvalidArgumentError."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgumentError(f"{text!r} is not HOST:PORT; for example 127.0.0.1:8000.")
    return host, int(port)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_for(host: str) -> str | None:
    """The bearer token requests must carry; None only on loopback. Raises InvalidArgumentError without one elsewhere."""
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and len(token) < LEAST_TOKEN_LENGTH:
        raise InvalidArgumentError(
            f"{TOKEN_VARIABLE} is shorter than {LEAST_TOKEN_LENGTH} characters; use a longer one."
        )
    if token is None and not is_loopback(host):
        suggestion = secrets.token_urlsafe(24)
        raise InvalidArgumentError(
            f"{host} can be reached from other machines, so a token is required: set {TOKEN_VARIABLE}, "
            f"for example to {suggestion}, and have clients send it as 'Authorization: Bearer …'."
        )
    return token


def http_app(server: MCPServer, service: Service, host: str, port: int) -> Starlette:
    """The ASGI application: /mcp, /health, PUT /images."""
    token = token_for(host)
    names = ["127.0.0.1", "localhost", "[::1]"] if is_loopback(host) else [host]
    allowed = [f"{name}:{port}" for name in names] + names
    security = TransportSecuritySettings(
        allowed_hosts=allowed, allowed_origins=[f"http://{name}" for name in allowed]
    )

    @server.custom_route("/health", methods=["GET"])  # type: ignore[untyped-decorator]  # untyped in the SDK
    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "name": "tissuetalk", "version": version("tissuetalk")})

    @server.custom_route("/images", methods=["PUT"])  # type: ignore[untyped-decorator]  # untyped in the SDK
    async def upload(request: Request) -> Response:
        return await _upload(request, service)

    app = server.streamable_http_app(transport_security=security, host=host)
    app.add_middleware(_Guard, token=token, allowed_hosts=frozenset(allowed))
    return app


class _Guard:
    """Refuses a wrong Host on every route and, where a token is set, every request without it but /health."""

    def __init__(self, app: ASGIApp, token: str | None, allowed_hosts: frozenset[str]) -> None:
        self._app, self._token, self._allowed_hosts = app, token, allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        if headers.get(b"host", b"").decode("latin-1").lower() not in self._allowed_hosts:
            return JSONResponse({"error": "this Host is not served here"}, 421)
        if self._token is None or scope["path"] == "/health":
            return None
        given = headers.get(b"authorization", b"")
        if hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return None
        return JSONResponse({"error": "a bearer token is required"}, 401, {"WWW-Authenticate": "Bearer"})


async def _upload(request: Request, service: Service) -> Response:
    """The body is one image; the answer is its image:// URI. Nothing is kept unless it can be opened as an image."""
    too_large = ImageTooLargeError(
        f"uploads end at {MAX_UPLOAD_BYTES // 2**20} MiB; put the file in an allowed folder."
    )
    try:
        if int(request.headers.get("content-length") or 0) > MAX_UPLOAD_BYTES:
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_UPLOAD_BYTES:
                raise too_large
        stored = await asyncio.to_thread(lambda: service.jobs().session.upload(bytes(body)))
    except TissuetalkError as error:
        return JSONResponse({"error": error.code, "message": str(error)}, STATUS.get(error.code, 400))
    return JSONResponse(stored, 201)


def serve_http(settings: Settings, where: str) -> None:
    """Streamable HTTP at /mcp. Raises InvalidArgumentError for a bad address or a missing token."""
    import uvicorn

    host, port = address(where)
    service = Service(settings)
    app = http_app(build_server(service), service, host, port)
    print(f"tissuetalk serves http://{host}:{port}/mcp", file=sys.stderr, flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)
