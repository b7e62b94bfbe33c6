"""How long a host waits until it is connected over stdio, against the smallest server the SDK can make."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from mcp import Client
from mcp.client.stdio import StdioServerParameters

from benchmarks.figure import Figure
from benchmarks.serving import bare, over_stdio

ROUNDS = 9
TARGET_RATIO = 1.3


def measure() -> list[Figure]:
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        ours = over_stdio(Path(folder), Path(folder) / "workspace")
        taken: dict[str, list[float]] = {"tissuetalk": [], "bare MCPServer": []}
        for number in range(ROUNDS + 1):
            times = {"tissuetalk": await _connect(ours), "bare MCPServer": await _connect(bare())}
            if number >= 1:  # the first warms the disk
                for name, took in times.items():
                    taken[name].append(took)
    median = {name: statistics.median(values) for name, values in taken.items()}
    ratio = median["tissuetalk"] / median["bare MCPServer"]
    parts = {f"{name}, s": value for name, value in median.items()}
    return [Figure("time until connected over stdio", ratio, "times bare", TARGET_RATIO, parts)]


async def _connect(server: StdioServerParameters) -> float:
    started = time.perf_counter()
    async with Client(server) as client:
        await client.list_tools()
        return time.perf_counter() - started
