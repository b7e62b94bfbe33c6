"""A minimal host of MCP Apps: a client of the real server, and a page that shows the app as strictly as any host does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

from anyio.from_thread import start_blocking_portal
from mcp import Client
from mcp.client.extension import advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID

from tissuetalk.server.app import build_server
from tissuetalk.server.service import Service, Settings

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self' data:; connect-src 'none'"
)
"""Of the specification, for an app that names no other places."""


@dataclass(frozen=True)
class Host:
    """call: of a tool, as the assistant makes it; the answer as on the wire."""

    url: str
    call: Callable[..., dict[str, Any]]

    def conversation(self, tool: str, **given: Any) -> str:
        """The address of a chat in which the assistant has made one call."""
        return f"{self.url}/#{quote(json.dumps([tool, given]))}"


@contextmanager
def app_host(root: Path, workspace: Path) -> Iterator[Host]:
    server = build_server(Service(Settings((root,), workspace)))
    extensions = [advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})]
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(server, extensions=extensions)) as client,
    ):

        async def called(name: str, given: dict[str, Any]) -> Any:
            answer = await client.call_tool(name, given)
            return answer.model_dump(mode="json", by_alias=True, exclude_none=True)

        async def bound_page() -> str:
            (uri,) = {
                tool.meta["ui"]["resourceUri"] for tool in (await client.list_tools()).tools if tool.meta
            }
            (page,) = (await client.read_resource(uri)).contents
            return page.text

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/app":
                    self._send(portal.call(bound_page).encode(), "text/html; charset=utf-8", POLICY)
                else:
                    self._send(
                        (Path(__file__).parent / "browser" / "host.html").read_bytes(),
                        "text/html; charset=utf-8",
                    )

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = portal.call(called, asked["name"], asked["arguments"])
                self._send(json.dumps(answer).encode(), "application/json")

            def _send(self, content: bytes, media: str, policy: str | None = None) -> None:
                self.send_response(200)
                self.send_header("Content-Type", media)
                self.send_header("Content-Length", str(len(content)))
                if policy:
                    self.send_header("Content-Security-Policy", policy)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Tests say what went wrong."""

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        serving = Thread(target=http.serve_forever, daemon=True)
        serving.start()
        try:
            yield Host(
                f"http://127.0.0.1:{http.server_port}", lambda name, **given: portal.call(called, name, given)
            )
        finally:
            http.shutdown()
            http.server_close()
            serving.join()
