"""Running a server until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import sys

from tissuetalk.server.app import build_server
from tissuetalk.server.lazy import LazyDesk, Settings


def serve_stdio(settings: Settings) -> None:
    """Protocol on stdin and stdout, everything else on stderr."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    asyncio.run(build_server(LazyDesk(settings)).run_stdio_async())


def serve_http(settings: Settings, where: str) -> None:
    """Streamable HTTP at /mcp. Raises InvalidArgumentError for a bad address or a missing token."""
    import uvicorn

    from tissuetalk.server.http import address, http_app

    host, port = address(where)
    lazy = LazyDesk(settings)
    app = http_app(build_server(lazy), lazy, host, port)
    print(f"tissuetalk serves http://{host}:{port}/mcp", file=sys.stderr, flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)
