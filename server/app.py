"""The MCP server: tools, resources, prompts and completions over one service. Wiring only.

Nothing heavy is imported until a tool is called: a client connects to a server that has not loaded torch, OpenCV or SciPy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BaseModel

from tissuetalk.server import resources
from tissuetalk.server.apps import SHOWN_FOR, AppsOnly, ViewerApp
from tissuetalk.server.observing import ObservedCalls
from tissuetalk.server.protocol import CodesFirst, as_result, readable_errors, signature
from tissuetalk.server.scopes import require
from tissuetalk.server.service import Service
from tissuetalk.tools.answers import arguments
from tissuetalk.tools.answers.explained import ExplainResult, JobStatus
from tissuetalk.tools.answers.results import (
    Answer,
    LibraryResult,
    MeasureResult,
    SegmentAnswer,
    ViewResult,
)

Call = Callable[[Service, dict[str, Any], Context], Awaitable[Answer[Any]]]


@dataclass(frozen=True)
class Tool:
    """One tool as hosts see it. arguments: a TypedDict of ``tools/answers/arguments.py``; call: what answers it.

    reads: changes nothing. destroys: can delete. repeatable: a second call does no more than the first.
    asks: with these arguments it only reads, which an account may do that may not change anything.
    """

    title: str
    arguments: type
    answer: type[BaseModel]
    call: Call
    reads: bool = False
    destroys: bool = False
    repeatable: bool = False
    asks: Callable[[dict[str, Any]], bool] = lambda given: False


def _on_session(method: str) -> Call:
    """A call of a session's method of that name, however long it takes."""

    async def call(service: Service, given: dict[str, Any], ctx: Context) -> Answer[Any]:
        answer: Answer[Any] = await service.call(lambda session: getattr(session, method)(**given), ctx)
        return answer

    return call


TOOLS: dict[str, Tool] = {
    "segment": Tool(
        "Segment what the words name",
        arguments.SegmentCall,
        SegmentAnswer,
        lambda service, given, ctx: (
            service.call(lambda session: session.read(**given), ctx)
            if given.pop("dry_run", False)
            else service.call_or_job("segment", given, ctx)
        ),
        asks=lambda given: bool(given.get("dry_run")),
    ),
    "measure": Tool(
        "Measure a result",
        arguments.MeasureCall,
        MeasureResult,
        lambda service, given, ctx: service.call(
            lambda session: session.measure(given["result_id"], given["metrics"], given["mask_ids"]), ctx
        ),
        reads=True,
        repeatable=True,
    ),
    "explain": Tool(
        "Explain a result",
        arguments.ExplainCall,
        ExplainResult,
        lambda service, given, ctx: service.call_or_job("explain", given, ctx),
        reads=True,
        repeatable=True,
    ),
    "view": Tool(
        "Look at an image or a result",
        arguments.ViewCall,
        ViewResult,
        _on_session("view"),
        reads=True,
        repeatable=True,
    ),
    "job": Tool(
        "Wait for, read or cancel long work",
        arguments.JobCall,
        JobStatus,
        lambda service, given, ctx: service.job(given["job_id"], given["action"], ctx),
        repeatable=True,
        asks=lambda given: given["action"] != "cancel",
    ),
    "library": Tool(
        "List images and results, save or delete a result",
        arguments.LibraryCall,
        LibraryResult,
        _on_session("library"),
        destroys=True,
        asks=lambda given: given["action"] not in ("save", "delete", "forget"),
    ),
}
"""The whole offer. What a tool does is described to the assistant in prompts/templates/tool_<name>.txt."""


def build_server(service: Service) -> MCPServer:
    """A server over one service. Several may live in one process."""
    viewer = ViewerApp(service)
    shown = {name: _function(name, tool, service) for name, tool in TOOLS.items()}
    for name in SHOWN_FOR:
        viewer.add(name, shown.pop(name), **_about(name))
    server: MCPServer = MCPServer(
        "tissuetalk",
        title="tissuetalk: segment, measure and explain H&E images from words",
        instructions=resources.text("server_instructions.txt"),
        version=version("tissuetalk"),
        lifespan=service.lifespan,
        middleware=[
            ObservedCalls(service.observing, frozenset((*TOOLS, "viewer"))),
            CodesFirst(lambda: server.list_tools()),
            AppsOnly(),
        ],
        extensions=[viewer.extension],
        log_level="WARNING",
    )
    for name, function in shown.items():
        server.tool(name=name, **_about(name))(function)
    resources.add_resources(server, service)
    resources.add_prompts(server)
    resources.add_completions(server)
    return server


def _about(name: str) -> dict[str, Any]:
    """What hosts are told of a tool besides its schema."""
    tool = TOOLS[name]
    return {
        "title": tool.title,
        "description": resources.tool_description(name),
        "annotations": ToolAnnotations(
            read_only_hint=tool.reads,
            destructive_hint=tool.destroys,
            idempotent_hint=tool.repeatable,
            open_world_hint=False,
        ),
    }


def _function(name: str, tool: Tool, service: Service) -> Callable[..., Awaitable[CallToolResult]]:
    """What the SDK reads a schema from and calls: its signature is the tool's arguments."""

    @readable_errors(name)
    async def call(ctx: Context, **given: Any) -> CallToolResult:
        require("segment:read" if tool.reads or tool.asks(given) else "segment:write")
        return as_result(await service.with_news(await tool.call(service, given, ctx)))

    call.__name__ = name
    call.__signature__ = signature(tool.arguments, tool.answer)  # type: ignore[attr-defined]  # a function may carry one, typeshed has no word for it
    return call
