"""Memory of a server that nobody has asked anything of substance yet. Linux only."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from mcp import Client

from benchmarks.figure import Figure
from benchmarks.serving import http_process

TARGET_MB = 150.0


def measure() -> list[Figure]:
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    with (
        tempfile.TemporaryDirectory() as folder,
        http_process(Path(folder), Path(folder) / "w") as (url, pid),
    ):
        async with Client(url) as client:
            await client.list_tools()
            connected = resident_mb(pid)
            await client.call_tool("library", {"action": "images"})
            listing = resident_mb(pid)
    return [
        Figure("memory of an idle server", connected, "MB", TARGET_MB, {"after library(images)": listing})
    ]


def resident_mb(pid: int) -> float:
    """Resident set of a process, in 10⁶ bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024 / 1e6
