"""Answers and errors as MCP results.

An answer is the same thing as text, picture, structure and links, because hosts drop some of them. An error is text that
begins with the contract's code and says what to do next.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import Parameter, Signature
from typing import Annotated, Any, ParamSpec, Required, TypeVar, get_args, get_origin, get_type_hints

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ResourceLink,
    TextContent,
    Tool,
)
from pydantic import BaseModel

from tissuetalk.models.errors import ResourceError, TissuetalkError
from tissuetalk.tools.answers import arguments, bounds
from tissuetalk.tools.answers.results import Answer

P = ParamSpec("P")
R = TypeVar("R")

_SDK_PREFIX = re.compile(r"Error executing tool \w+: ")
_FIELD = re.compile(r"^(\S{1,200})\n  (.+?)(?: \[type=.*)?$", re.MULTILINE)
_NAMES_A_CALL = re.compile(r"\b(segment|measure|explain|view|job|library)\(")
_IMAGES = "library(action='images') lists what can be opened."
NEXT_CALL = {
    "unknown_image": _IMAGES,
    "outside_roots": _IMAGES,
    "unreadable_image": _IMAGES,
    "image_too_large": "segment(image, words, region=[x0, y0, x1, y1]) looks at a part.",
    "image_changed": "segment(image, words) looks at it as it is now.",
    "unknown_label": "library(action='labels') lists labels.",
    "no_target_in_words": "segment(image, targets=[{'words': …}]) names what to look for; library(action='labels') lists labels.",
    "point_outside_image": "view(image, grid=true) shows where its pixels are.",
    "unknown_result": "library(action='results') lists results.",
    "unknown_mask": "view(result_id) shows its masks.",
    "unknown_job": "segment(image, words) starts the work again.",
    "model_unavailable": "Leave the name out and call {tool}(…) again for the default.",
    "workspace_full": "library(action='delete', result_id=…) makes room.",
    "workspace_unwritable": "When the operator has mended it, call {tool}(…) again.",
    "busy": "Call {tool}(…) again.",
    "cancelled": "Call {tool}(…) again to go on.",
    "not_permitted": "Until then library(action='results'), view, measure and explain look at what there is.",
}
"""What an assistant can do about each code, where the message does not name a call itself."""


def as_result(answer: Answer[Any]) -> CallToolResult:
    structure = bounds.fitted(type(answer.result).__name__, answer.structured())
    text = bounds.fitted_text(answer.text, structure.get("left_out", []))
    links = [
        ResourceLink(type="resource_link", uri=uri, name=name[:200], mime_type=kind)
        for uri, name, kind in answer.links[: bounds.MOST_LINKS]
    ]
    content: list[ContentBlock] = [TextContent(type="text", text=text)]
    if answer.picture is not None:
        data = base64.b64encode(answer.picture).decode()
        others = len(text.encode()) + bounds.size_of(structure) + 300 * len(links)
        if others + len(data) <= bounds.RESULT_BYTES:
            content.append(ImageContent(type="image", data=data, mime_type="image/jpeg"))
    return CallToolResult(content=[*content, *links], structured_content=structure)


def signature(taken: type, answer: type[BaseModel]) -> Signature:
    """What the SDK reads a tool's schema from. taken: a TypedDict of ``tools/answers/arguments.py``.

    Keyword arguments in the order they are written in; those that may be left out have a default.
    """
    total: bool = taken.__total__  # type: ignore[attr-defined]  # what a TypedDict has
    parameters = []
    for name, hint in get_type_hints(taken, include_extras=True).items():
        needed = total or get_origin(hint) is Required
        default = Parameter.empty if needed else arguments.DEFAULTS.get(name)
        annotation = get_args(hint)[0] if get_origin(hint) is Required else hint
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default))
    ctx = Parameter("ctx", Parameter.KEYWORD_ONLY, annotation=Context)
    return Signature([*parameters, ctx], return_annotation=Annotated[CallToolResult, answer])


def readable(error: TissuetalkError, tool: str) -> str:
    """An error as the calling model reads it: code, what is wrong, and the next call. Where it happened is for the log."""
    if isinstance(error, ResourceError) and error.place is not None:
        logging.getLogger(__name__).warning("%s at %s", error.code, error.place)
    return _with_next_call(bounds.error_text(error), tool)


def _with_next_call(text: str, tool: str) -> str:
    if _NAMES_A_CALL.search(text):
        return text
    hint = NEXT_CALL.get(text.partition(":")[0], "Then call {tool}(…) again.").replace("{tool}", tool)
    stop = "" if text.rstrip().endswith((".", "!", "?")) else "."
    return f"{text.rstrip()}{stop} {hint}"


def readable_errors(name: str) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Let the calling model read our own errors. All others stay crashes: logged here, opaque there."""

    def wrapped(tool: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @wraps(tool)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return await tool(*args, **kwargs)
            except TissuetalkError as error:
                raise ToolError(readable(error, name)) from error

        return call

    return wrapped


class CodesFirst(ServerMiddleware[Any]):
    """The SDK puts its own words before a tool's error, drops unknown arguments silently and echoes what it was sent.

    tools: the offer, by whose schemas a refusal says what belongs where.
    """

    def __init__(self, tools: Callable[[], Awaitable[list[Tool]]]) -> None:
        self._tools = tools
        self._schemas: dict[str, dict[str, Any]] = {}

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        params = dict(ctx.params or {})
        try:
            if ctx.method != "tools/call":
                return await call_next(ctx)
            schema = await self._schema(name := str(params.get("name")))
            if not schema:
                there = ", ".join(self._schemas)
                return _refusal(f"there is no tool {name[:60]!r}; there are: {there}.", "library")
            if (refusal := _unknown_argument(params, schema)) is not None:
                return refusal
            result = await call_next(ctx)
        except MCPError as error:
            error.error.message = bounds.shortened(error.error.message)
            raise
        except ValueError as error:
            if (
                ctx.method != "prompts/get"
            ):  # the SDK's way of saying that a prompt, or what it takes, is another
                raise
            said = f"invalid_argument: {error}. prompts/list has the prompts and what they take."
            raise MCPError(INVALID_PARAMS, bounds.shortened(said)) from error
        if isinstance(result, dict) and result.get("isError"):  # already in the form of the wire
            return _with_code_first(CallToolResult.model_validate(result), params, schema)
        if isinstance(result, CallToolResult) and result.is_error:
            return _with_code_first(result, params, schema)
        return result

    async def _schema(self, name: str) -> dict[str, Any]:
        if not self._schemas:
            self._schemas = {tool.name: tool.input_schema for tool in await self._tools()}
        return self._schemas.get(name, {})


def _unknown_argument(params: dict[str, Any], schema: dict[str, Any]) -> CallToolResult | None:
    known, given = schema.get("properties"), params.get("arguments")
    if known is None or not isinstance(given, dict) or not (unknown := sorted(set(given) - set(known))):
        return None
    name = params["name"]
    return _refusal(
        f"{name} has no argument {unknown[0][:60]!r}; it takes: {', '.join(sorted(known))}.", name
    )


def _refusal(message: str, tool: str) -> CallToolResult:
    text = _with_next_call(bounds.shortened(f"invalid_argument: {message}"), tool)
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _with_code_first(
    result: CallToolResult, params: dict[str, Any], schema: dict[str, Any]
) -> CallToolResult:
    first = result.content[0] if result.content else None
    if not isinstance(first, TextContent):
        return result
    text = _SDK_PREFIX.sub("", first.text, count=1)
    if "validation error" in text.split("\n", 1)[0]:
        problems = [_problem(field, said, schema) for field, said in _FIELD.findall(text)[:3]]
        said = "; ".join(problems) or "the arguments do not fit the schema"
        return _refusal(f"{said}.", str(params.get("name"))[:60])
    short = TextContent(type="text", text=bounds.shortened(text))
    return result.model_copy(update={"content": [short, *result.content[1:]]})


def _problem(field: str, problem: str, schema: dict[str, Any]) -> str:
    """What is wrong with one field, and what belongs there."""
    at, holder = schema, schema
    for part in field.split("."):
        holder, at = at, _inside(at, part, schema)
    if problem.startswith("Extra inputs"):
        return f"{field[:80]}: there is no such field; there are: {', '.join(_plain(holder, schema).get('properties', ()))}"
    belongs = at.get("description") or schema.get("properties", {}).get(field.split(".")[0], {}).get(
        "description"
    )
    return f"{field[:80]}: {problem}" + (f" ({belongs})" if belongs else "")


def _inside(schema: dict[str, Any], part: str, root: dict[str, Any]) -> dict[str, Any]:
    """The schema one step down: of a field by its name, of a row by its number."""
    here = _plain(schema, root)
    found: dict[str, Any] = (
        here.get("items", {}) if part.isdigit() else here.get("properties", {}).get(part, {})
    )
    return found


def _plain(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Without null as the alternative and with what a $ref leads to."""
    for each in schema.get("anyOf", ()):
        if each.get("type") != "null":
            return _plain(each, root)
    if "$ref" in schema:
        named: dict[str, Any] = root.get("$defs", {}).get(schema["$ref"].rsplit("/", 1)[-1], {})
        return named
    return schema
