"""What a `segment` call costs over stdio and HTTP above calling the same function directly; picture included.

The three take turns on the same image, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from mcp import Client
from PIL import Image

from benchmarks.figure import Figure
from benchmarks.serving import http_client, over_stdio
from tissuetalk.tools.answers.results import TargetArgument
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.session import Session

ROUNDS = 15
TARGET_MS = 30.0
MODEL = {"mpp": 0.5, "model": "classical-nuclei"}


def picture(path: Path, side_px: int = 1024) -> None:
    """Nuclei-coloured discs with texture on pink, about as hard to compress as tissue."""
    random = np.random.default_rng(0)
    pixels = np.full((side_px, side_px, 3), (225, 180, 205), np.float32)
    y, x = np.mgrid[:side_px, :side_px]
    for centre_x, centre_y in random.integers(20, side_px - 20, (400, 2)):
        near = slice(max(0, centre_y - 12), centre_y + 13), slice(max(0, centre_x - 12), centre_x + 13)
        disc = (x[near] - centre_x) ** 2 + (y[near] - centre_y) ** 2 <= 9.5**2
        pixels[near][disc] = (90, 65, 140)
    noisy = pixels + random.normal(0, 8, pixels.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)


def measure() -> list[Figure]:
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        root.mkdir()
        picture(root / "tissue.png")
        session = Session(root, Path(folder) / "direct")
        stdio = over_stdio(root, Path(folder) / "stdio")
        async with Client(stdio) as over_pipe, http_client(root, Path(folder) / "http") as over_http:
            taken: dict[str, list[float]] = {"direct": [], "stdio": [], "http": []}
            for number in range(ROUNDS + 2):
                times = {
                    "direct": _directly(session),
                    "stdio": await _called(over_pipe),
                    "http": await _called(over_http),
                }
                if number >= 2:  # the first two warm up
                    for name, took in times.items():
                        taken[name].append(took * 1e3)
        session.close()
    median = {name: statistics.median(values) for name, values in taken.items()}
    return [
        Figure(
            f"overhead of segment over {name}, 1024 x 1024",
            median[name] - median["direct"],
            "ms",
            TARGET_MS,
            {"direct": median["direct"], name: median[name]},
        )
        for name in ("stdio", "http")
    ]


def _directly(session: Session) -> float:
    started = time.perf_counter()
    asked = SegmentArguments(
        "tissue.png", targets=(TargetArgument(words="nuclei"),), mpp=0.5, model="classical-nuclei"
    )
    answer = session.segment_request(session.understand(asked))
    took = time.perf_counter() - started
    assert answer.picture
    return took


async def _called(client: Client) -> float:
    arguments: dict[str, Any] = {"image": "tissue.png", "targets": [{"words": "nuclei"}], **MODEL}
    started = time.perf_counter()
    result = await client.call_tool("segment", arguments)
    took = time.perf_counter() - started
    assert not result.is_error and any(block.type == "image" for block in result.content)
    return took
