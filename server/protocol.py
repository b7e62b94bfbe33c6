"""Answers and errors as MCP results.

An answer is the same thing as text, picture, structure and links, because hosts drop some of them. An error is text that
begins with the contract's code and says what to do next.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from tissuetalk.models.errors import TissuetalkError
from tissuetalk.tools.answers.results import Answer

P = ParamSpec("P")
R = TypeVar("R")

_SDK_PREFIX = re.compile(r"Error executing tool \w+: ")
_FIELD = re.compile(r"^(\S+)\n  (.+?)(?: \[type=.*)?$", re.MULTILINE)


def as_result(answer: Answer[Any]) -> CallToolResult:
    content: list[ContentBlock] = [TextContent(type="text", text=answer.text)]
    if answer.picture is not None:
        data = base64.b64encode(answer.picture).decode()
        content.append(ImageContent(type="image", data=data, mime_type="image/jpeg"))
    content += [
        ResourceLink(type="resource_link", uri=uri, name=name, mime_type=kind)
        for uri, name, kind in answer.links
    ]
    return CallToolResult(content=content, structured_content=answer.structured())


def readable_errors(tool: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Let the calling model read our own errors. All others stay crashes: logged here, opaque there."""

    @wraps(tool)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await tool(*args, **kwargs)
        except TissuetalkError as error:
            raise ToolError(f"{error.code}: {error}") from error

    return call


class CodesFirst(ServerMiddleware[Any]):
    """The SDK puts its own words before a tool's error and drops unknown arguments silently; both are mended here."""

    def __init__(self, arguments_of: Callable[[str], frozenset[str] | None]) -> None:
        self._arguments_of = arguments_of

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method != "tools/call":
            return await call_next(ctx)
        if (refusal := self._unknown_argument(dict(ctx.params or {}))) is not None:
            return refusal
        result = await call_next(ctx)
        if isinstance(result, dict) and result.get("isError"):  # already in the form of the wire
            return _with_code_first(CallToolResult.model_validate(result))
        if isinstance(result, CallToolResult) and result.is_error:
            return _with_code_first(result)
        return result

    def _unknown_argument(self, params: dict[str, Any]) -> CallToolResult | None:
        name, given = str(params.get("name")), params.get("arguments")
        known = self._arguments_of(name)
        if known is None or not isinstance(given, dict) or not (unknown := sorted(set(given) - known)):
            return None
        return _refusal(f"{name} has no argument {unknown[0][:60]!r}; it takes: {', '.join(sorted(known))}.")


def _refusal(message: str) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=f"invalid_argument: {message}")], is_error=True
    )


def _with_code_first(result: CallToolResult) -> CallToolResult:
    first = result.content[0] if result.content else None
    if not isinstance(first, TextContent):
        return result
    text = _SDK_PREFIX.sub("", first.text, count=1)
    if "validation error" in text.split("\n", 1)[0]:
        problems = "; ".join(f"{field}: {problem}" for field, problem in _FIELD.findall(text)[:5])
        return _refusal(f"{problems or 'the arguments do not fit the schema'}. See the tool's input schema.")
    return result.model_copy(update={"content": [TextContent(type="text", text=text), *result.content[1:]]})
