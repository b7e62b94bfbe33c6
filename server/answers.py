"""Answers as MCP results: the same thing as text, picture, structure and links, because hosts drop some of them."""

from __future__ import annotations

import base64
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from tissuetalk.tools.answers.results import Answer


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
