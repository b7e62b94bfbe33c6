"""Ending in good order: no new work, running calls answered, jobs given back, then the process ends with 0.

The first SIGTERM begins it, and /health says so, for whoever sends requests here; a second one ends the process at once, which
costs nothing but the answers under way.
"""

from __future__ import annotations

import signal
import time
from types import FrameType

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

DRAIN_S = 30.0
_STILL_ANSWERED = ("/metrics",)


class Draining:
    """The ASGI application around all others. most_s: how long running requests are waited for."""

    def __init__(self, app: ASGIApp, most_s: float = DRAIN_S) -> None:
        self._app, self._most_s = app, most_s
        self._running = 0
        self._since: float | None = None

    @property
    def begun(self) -> bool:
        return self._since is not None

    @property
    def over(self) -> bool:
        if self._since is None:
            return False
        return not self._running or time.monotonic() - self._since > self._most_s

    def begin(self) -> None:
        self._since = self._since or time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self.begun and scope["path"] not in _STILL_ANSWERED:
            said = {"status": "draining"} if scope["path"] == "/health" else {"error": "busy"}
            headers = {"Retry-After": "5", "Connection": "close"}
            await JSONResponse(said, 503, headers)(scope, receive, send)
        elif scope["method"] == "GET" and scope["path"] == "/mcp":  # stays open for as long as a session
            await self._app(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1


class DrainingServer(uvicorn.Server):
    """uvicorn, whose SIGTERM waits for what runs."""

    def __init__(self, config: uvicorn.Config, draining: Draining) -> None:
        super().__init__(config)
        self._draining = draining

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
        elif self._draining.begun:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        else:
            self._draining.begin()

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or self._draining.over
        return await super().on_tick(counter)
