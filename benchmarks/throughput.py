"""What a picture costs, served over HTTP and called directly in one process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from mcp import Client

from benchmarks.cluster import Server
from benchmarks.figure import Figure
from benchmarks.overhead import picture

LEAST = 0.9
IMAGES = 12
NUMBER = 9
"""Of the server, after those of a cluster."""
ASKED = {"words": "nuclei", "model": "classical-nuclei", "mpp": 0.5}


def throughput(folder: Path) -> Figure:
    """The same pictures, served and called directly, one after the other. folder: of pictures and workspaces, made here."""
    folder.mkdir()
    images = [f"tissue-{number}.png" for number in range(IMAGES + 1)]
    for number, name in enumerate(images):
        picture(folder / name, 500 + number)
    code = [sys.executable, "-c", DIRECTLY, str(folder), str(folder.with_name("direct")), *images]
    said = subprocess.run(code, capture_output=True, text=True, check=True).stdout.split()
    direct, direct_clock = map(float, said)
    server = Server(folder, folder.with_name("served"), NUMBER)
    try:
        asyncio.run(server.up())
        served, served_clock = asyncio.run(_served_rate(server.url, server.process.pid, images))
    finally:
        server.end()
    parts = {
        "direct, images per second of processor": direct,
        "served, images per second of processor": served,
        "direct, images per second": direct_clock,
        "served, images per second, two at once": served_clock,
    }
    # written the other way round, because a figure is met when it is small
    return Figure("processor per image, served over direct", direct / served, "times", 1 / LEAST, parts)


DIRECTLY = """
import os, sys, time
from pathlib import Path
from benchmarks.throughput import ASKED, processor_s
from tissuetalk.models import worker
from tissuetalk.tools.session import Session
root, workspace, *images = sys.argv[1:]
worker.start()
with Session((Path(root),), Path(workspace)) as session:
    session.segment(image=images[0], **ASKED)
    before, begun = processor_s(os.getpid()), time.monotonic()
    for name in images[1:]:
        session.segment(image=name, **ASKED)
    count = len(images) - 1
    print(count / (processor_s(os.getpid()) - before), count / (time.monotonic() - begun))
"""


def processor_s(pid: int) -> float:
    """Of a process and all that it started."""
    total = 0.0
    for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with suppress(psutil.Error):
            times = each.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


async def _served_rate(url: str, pid: int, images: list[str]) -> tuple[float, float]:
    """Images a second of processor and of the clock, two asking at once; the first image warms up."""
    async with Client(f"{url}/mcp") as client:

        async def ask(names: Iterator[str]) -> None:
            for name in names:
                answer = await client.call_tool("segment", {"image": name, **ASKED})
                assert not answer.is_error and answer.structured_content["job_id"] is None, answer.content[0]

        await ask(iter(images[:1]))
        before, begun, rest = processor_s(pid), time.monotonic(), iter(images[1:])
        await asyncio.gather(ask(rest), ask(rest))
    count = len(images) - 1
    return count / (processor_s(pid) - before), count / (time.monotonic() - begun)
