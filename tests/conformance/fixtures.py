"""Our server with the tools, resources and prompts the conformance suite calls by name added to it.

usage: python tests/conformance/fixtures.py HOST:PORT

The suite was written for the SDKs' own demonstration servers, so most of its scenarios call fixed names. They are
registered on the server of `server/app.py` and served through `server/http.py`, so that errors, progress, contents and
sessions take the way they take for our own tools.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)
from pydantic import Field

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server import http
from tissuetalk.server.protocol import readable_errors
from tissuetalk.server.service import Service, Settings

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
SILENCE = b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00@\x1f\x00\x00@\x1f\x00\x00\x01\x00\x08\x00data\x00\x00\x00\x00"


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def image() -> ImageContent:
    return ImageContent(type="image", data=base64.b64encode(PIXEL).decode(), mime_type="image/png")


def embedded(uri: str, words: str, kind: str = "text/plain") -> EmbeddedResource:
    contents = TextResourceContents(uri=uri, mime_type=kind, text=words)
    return EmbeddedResource(type="resource", resource=contents)


SAID: dict[str, list[ContentBlock]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [image()],
    "test_audio_content": [
        AudioContent(type="audio", data=base64.b64encode(SILENCE).decode(), mime_type="audio/wav")
    ],
    "test_embedded_resource": [embedded("test://embedded-resource", "This is an embedded resource content.")],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        image(),
        embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
    ],
}
"""What the tools without arguments answer."""


def saying(contents: list[ContentBlock]) -> Callable[[], CallToolResult]:
    def say() -> CallToolResult:
        return CallToolResult(content=contents)

    return say


def add_tools(server: MCPServer) -> None:
    for name, contents in SAID.items():
        server.tool(name=name, description="Says a fixed thing.")(saying(contents))

    @server.tool()
    @readable_errors("test_error_handling")
    async def test_error_handling() -> CallToolResult:
        raise InvalidArgumentError("This tool intentionally returns an error for testing")

    @server.tool()
    async def test_tool_with_progress(ctx: Context) -> str:
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
            await asyncio.sleep(0.05)
        return "done"


def add_resources(server: MCPServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        return PIXEL

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def add_prompts(server: MCPServer) -> None:
    @server.prompt()
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @server.prompt()
    def test_prompt_with_arguments(
        arg1: Annotated[str, Field(description="First")], arg2: Annotated[str, Field(description="Second")]
    ) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[Any]:  # noqa: N803  # the suite's name
        return [
            UserMessage(embedded(resourceUri, "Embedded resource content for testing.")),
            UserMessage("Please process the embedded resource above."),
        ]

    @server.prompt()
    def test_prompt_with_image() -> list[Any]:
        return [UserMessage(image()), UserMessage("Please analyze the image above.")]


if __name__ == "__main__":
    plain = http.build_server

    def with_fixtures(service: Service) -> MCPServer:
        server = plain(service)
        for add in (add_tools, add_resources, add_prompts):
            add(server)
        return server

    http.build_server = with_fixtures
    with tempfile.TemporaryDirectory() as folder:
        http.serve_http(Settings((Path(folder),), Path(folder) / "workspace"), http.Where(sys.argv[1]))
