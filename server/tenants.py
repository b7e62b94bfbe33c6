"""Tenants: a whole server for each behind one address, so that nothing of one can be named, listed or guessed by another.

A tenant has an own workspace, own roots, own sessions, pages and keys, built as for a server with one token, and knows nothing of
others. They share the process, the models and the lanes, where they take turns.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from pydantic import AnyHttpUrl, ConfigDict, TypeAdapter
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tissuetalk.models.reading import content_of
from tissuetalk.server.accounts import Accounts, Verifier
from tissuetalk.server.app import build_server
from tissuetalk.server.http import http_app
from tissuetalk.server.keys import COOKIE, COOKIE_S, READING, Keys, cookie_of
from tissuetalk.server.limits import PeerLimits
from tissuetalk.server.names import Names
from tissuetalk.server.observing import Observing
from tissuetalk.server.operations import ADMIN_PATHS
from tissuetalk.server.pages import html, is_page
from tissuetalk.server.scopes import SCOPES
from tissuetalk.server.service import Service, Settings
from tissuetalk.server.sessions import MCP_PATH
from tissuetalk.tools.lanes import Lanes
from tissuetalk.tools.storage.objects import Objects
from tissuetalk.tools.storage.postgres import shared_secret
from tissuetalk.tools.storage.state import State

_URL = TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True))
"""As it was written: clients compare addresses letter by letter."""


class Tenants:
    """The ASGI application. settings: of the server; a tenant has a folder in its workspace, own roots and an own quota."""

    def __init__(
        self, accounts: Accounts, settings: Settings, names: Names, limits: PeerLimits, observing: Observing
    ) -> None:
        secret = _secret(settings.workspace, settings.state)
        self._lanes = Lanes(settings.workers, settings.most_waiting)
        self._apps: dict[str, Starlette] = {}
        for name, tenant in accounts.tenants.items():
            workspace = settings.workspace / "tenants" / name
            roots = tenant.existing_roots(name)
            own = replace(settings, roots=roots, workspace=workspace, quota_gb=tenant.quota_gb)
            own = replace(own, keep=tenant.keep(settings.keep), jobs_at_once=tenant.jobs_at_once)
            own = replace(own, state=settings.state and settings.state.of_tenant(name))
            own = replace(own, archives=tenant.opened_archives())
            service = Service(own, self._lanes, name, observing)
            if observing.metrics is not None:
                observing.metrics.watch(service, tenant.name_in_metrics)
            keys = Keys(hmac.new(secret, name.encode(), hashlib.sha256).hexdigest(), name=name)
            at_once = replace(
                limits, requests=tenant.requests_at_once, requests_per_minute=tenant.requests_per_minute
            )
            self._apps[name] = http_app(build_server(service), service, names, keys, at_once)
        self._bearers = BearerAuthBackend(Verifier(accounts))
        self._cookies = Cookies(secret)
        resource, issuer = _URL.validate_python(accounts.audience), _URL.validate_python(accounts.issuer)
        self._metadata = build_resource_metadata_url(resource)
        self._front = Starlette(
            routes=create_protected_resource_routes(resource, [issuer], list(SCOPES), "tissuetalk"),
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(self._lanes.close)
            for each in self._apps.values():
                await stack.enter_async_context(each.router.lifespan_context(each))
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/.well-known/"):
            await self._front(scope, receive, send)
            return
        user = await self._user(scope)
        if user is not None:
            scope["user"], scope["auth"] = user, AuthCredentials(user.scopes)
        app = self._refused(scope) if user is None else self._of(user, scope)
        await AuthContextMiddleware(app)(scope, receive, send)

    async def _user(self, scope: Scope) -> AuthenticatedUser | None:
        """Whose token the request carries, or whose cookie."""
        request = Request(scope)
        if "authorization" in request.headers:
            found = await self._bearers.authenticate(request)
            return None if found is None else found[1]
        return self._cookies.read(cookie_of(request))

    def _refused(self, scope: Scope) -> ASGIApp:
        """What there is without an account: health, an address that a tenant has signed, and a page to sign in at."""
        path, reads = scope["path"], scope["method"] in READING
        if path == "/health":
            return next(iter(self._apps.values()))
        tenant = Request(scope).query_params.get("key", "").partition(".")[0]
        if reads and tenant in self._apps:
            return self._apps[tenant]  # which looks at the signature
        return html(401) if reads and is_page(path) else self._challenge(401, "invalid_token")

    def _of(self, user: AuthenticatedUser, scope: Scope) -> ASGIApp:
        token = user.access_token
        tenant = (token.claims or {}).get("tenant")
        if not isinstance(tenant, str) or tenant not in self._apps:
            return JSONResponse({"error": "this account belongs to no tenant of this server"}, 403)
        changes = scope["method"] not in READING and scope["path"] not in (MCP_PATH, "/enter")
        needed = "segment:write" if changes else "segment:read"
        if scope["path"] in ADMIN_PATHS:
            needed = "admin"
        if needed not in user.scopes:
            return self._challenge(403, "insufficient_scope", needed)
        if scope["path"] == "/enter" and scope["method"] == "POST":
            return self._entered(token, scope["scheme"] == "https")
        return self._apps[tenant]

    def _entered(self, token: AccessToken, secure: bool) -> Response:
        cookie, lasts_s = self._cookies.of(token)
        answer = JSONResponse({"entered": True}, headers={"Cache-Control": "no-store"})
        answer.set_cookie(COOKIE, cookie, lasts_s, httponly=True, samesite="strict", secure=secure)
        return answer

    def _challenge(self, status: int, error: str, scope: str = "segment:read segment:write") -> Response:
        """As RFC 6750 and RFC 9728 have it: clients learn from it where to sign in."""
        said = f'Bearer error="{error}", scope="{scope}", resource_metadata="{self._metadata}"'
        return JSONResponse({"error": error}, status, {"WWW-Authenticate": said})


class Cookies:
    """What a browser has for a token: tenant, account and scopes, signed, for as long as the token would last."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, token: AccessToken) -> tuple[str, int]:
        """The cookie, and for how many seconds it is good."""
        now = int(time.time())
        until = min(token.expires_at or now, now + COOKIE_S)
        content = token.model_copy(update={"token": "", "expires_at": until}).model_dump_json().encode()
        return f"{base64.urlsafe_b64encode(content).decode()}.{self._signature(content)}", until - now

    def read(self, cookie: str) -> AuthenticatedUser | None:
        try:
            packed, _, signature = cookie.partition(".")
            content = base64.urlsafe_b64decode(packed)
            if not hmac.compare_digest(signature.encode(), self._signature(content).encode()):
                return None
            token = AccessToken.model_validate_json(content)
        except ValueError:
            return None
        return AuthenticatedUser(token) if (token.expires_at or 0) > time.time() else None

    def _signature(self, content: bytes) -> str:
        return hmac.new(self._secret, b"cookie\n" + content, hashlib.sha256).hexdigest()


def _secret(workspace: Path, state: State | None) -> bytes:
    """What cookies and addresses are signed with: made once, for the server's own eyes; one for all processes of a state."""
    if state is not None:
        if state.objects is not None:
            Objects(state.objects).require()
        return shared_secret(state)
    file = workspace / "signing.key"
    workspace.mkdir(parents=True, exist_ok=True)
    with (
        suppress(FileExistsError),
        os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new,
    ):
        new.write(secrets.token_bytes(32))
    return content_of(file, 64)
