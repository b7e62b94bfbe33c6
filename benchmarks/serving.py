"""Servers to measure: our command in a real process, over both transports, and the smallest server there can be."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from mcp import Client
from mcp.client.stdio import StdioServerParameters

COMMAND = str(Path(sys.executable).with_name("tissuetalk"))
BARE = """
from mcp.server import MCPServer
server = MCPServer("bare")

@server.tool()
def echo(text: str) -> str:
    return text

server.run("stdio")
"""


def arguments(root: Path, workspace: Path) -> list[str]:
    return ["serve", "--root", str(root), "--workspace", str(workspace)]


def over_stdio(root: Path, workspace: Path) -> StdioServerParameters:
    return StdioServerParameters(command=COMMAND, args=arguments(root, workspace))


def bare() -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-c", BARE])


@contextmanager
def http_process(root: Path, workspace: Path) -> Iterator[tuple[str, int]]:
    """(URL, process id) of a server that answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    process = subprocess.Popen(
        [COMMAND, *arguments(root, workspace), "--http", address], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(3000):
            try:
                urlopen(f"http://{address}/health").close()
                break
            except (URLError, ConnectionError):
                time.sleep(0.1)
        yield f"http://{address}/mcp", process.pid
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def http_client(root: Path, workspace: Path) -> AsyncIterator[Client]:
    with http_process(root, workspace) as (url, _):
        async with Client(url) as client:
            yield client
