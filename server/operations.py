"""What an operator reads over HTTP: metrics, and the audit log. With accounts both need the scope admin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from mcp.server import MCPServer
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.metrics import PATH
from tissuetalk.server.service import Service

AUDIT_PATH = "/audit"
ADMIN_PATHS = (PATH, AUDIT_PATH)
_AT_ONCE = 1000


def moment(text: str) -> datetime:
    """A day or a moment as ISO 8601 has it, in UTC where it says nothing else. Raises InvalidArgumentError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgumentError(
            "since is a day or a moment such as 2026-11-22 or 2026-11-22T08:00."
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class Operations:
    """Routes of one server or tenant. A tenant reads its own lines; the figures are those of the whole process."""

    def __init__(self, service: Service) -> None:
        self._observing, self._tenant = service.observing, service.owner

    def add_to(self, server: MCPServer) -> None:
        if self._observing.metrics is not None:
            server.custom_route(PATH, methods=["GET"])(self._metrics)
        if self._observing.audit is not None:
            server.custom_route(AUDIT_PATH, methods=["GET"])(self._audit)

    async def _metrics(self, request: Request) -> Response:
        assert self._observing.metrics is not None, "the route is there only with them"
        text, media = await asyncio.to_thread(self._observing.metrics.text)
        return Response(text, media_type=media)

    async def _audit(self, request: Request) -> Response:
        try:
            since = moment(request.query_params.get("since", "1970-01-01")[:40])
        except InvalidArgumentError as error:
            return JSONResponse({"error": error.code, "message": str(error)}, 400)
        return StreamingResponse(self._lines(since), media_type="application/jsonl")

    async def _lines(self, since: datetime) -> AsyncIterator[bytes]:
        assert self._observing.audit is not None, "the route is there only with one"
        lines = self._observing.audit.lines(since, self._tenant or None)

        def some() -> list[dict[str, Any]]:
            return [line for _, line in zip(range(_AT_ONCE), lines, strict=False)]

        while taken := await asyncio.to_thread(some):
            yield b"".join(json.dumps(line).encode() + b"\n" for line in taken)
