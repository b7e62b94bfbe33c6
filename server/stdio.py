"""Protocol on stdin and stdout. A line that is no message is answered, too: whoever sent it would wait for ever."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError
from pydantic import ValidationError

from tissuetalk.server.app import build_server
from tissuetalk.server.audit import AuditLog
from tissuetalk.server.observing import Observing
from tissuetalk.server.service import Service, Settings


def serve_stdio(settings: Settings, audit: Path | None = None) -> None:
    """Until stdin ends. Everything that is not protocol goes to stderr (models/logs.py). audit: file of the audit log."""
    observing = Observing(None if audit is None else AuditLog(audit))
    asyncio.run(_run(build_server(Service(settings, observing=observing))))


async def _run(server: MCPServer) -> None:
    """What the SDK's ``run_stdio_async`` does, with an answer where it drops a line in silence."""
    low = server._lowlevel_server  # the SDK has no other name for it
    into, messages = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    async with stdio_server() as (lines, answers), anyio.create_task_group() as tasks:

        async def sort() -> None:
            async with into:
                async for line in lines:
                    if not isinstance(line, ValidationError):
                        await into.send(line)
                    elif not _blank(line):
                        await answers.send(SessionMessage(_refusal(line)))

        tasks.start_soon(sort)
        await low.run(messages, answers, low.create_initialization_options())
        tasks.cancel_scope.cancel()


def _blank(error: ValidationError) -> bool:
    return not str(error.errors()[0]["input"]).strip()


def _refusal(error: ValidationError) -> JSONRPCError:
    """With the id of the line, where it can be made out."""
    asked: Any = None
    broken = False
    for problem in error.errors():
        if problem["type"] == "json_invalid":
            broken, asked = True, _leniently(problem["input"])
        elif isinstance(problem["input"], dict):
            asked = problem["input"]
    number = asked.get("id") if isinstance(asked, dict) else None
    said = (
        ErrorData(
            code=PARSE_ERROR, message="invalid_argument: a line is one JSON-RPC message, in JSON of UTF-8."
        )
        if broken
        else ErrorData(
            code=INVALID_REQUEST,
            message="invalid_argument: this is no JSON-RPC 2.0 message: it has a method, and parameters by name.",
        )
    )
    known = (isinstance(number, int) and abs(number) < 2**63) or (
        isinstance(number, str) and len(number) < 300
    )
    return JSONRPCError(jsonrpc="2.0", id=number if known else None, error=said)


def _leniently(line: object) -> object:
    """What Python makes of JSON that is refused, such as half a character in it."""
    try:
        return json.loads(line) if isinstance(line, str) else None
    except (ValueError, RecursionError):
        return None
