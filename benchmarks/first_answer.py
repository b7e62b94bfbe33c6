"""How long the first call of a fresh server over stdio takes: masks of a 512 px picture, and a refusal without a model.

Every round starts a new process. The clock runs from the call, after the connection stands.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from mcp import Client
from PIL import Image

from benchmarks.figure import Figure
from benchmarks.serving import over_stdio

ROUNDS = 5
SIDE_PX = 512
SAMPLE = Path(__file__).parents[1] / "models" / "samples" / "colon.jpg"
CALLS = {
    "segment": ({"words": "glands in the colon", "mpp": 0.5}, 3.5),
    "unsupported": ({"words": "mitotic figures", "mpp": 0.5}, 1.0),
}


def measure() -> list[Figure]:
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    taken: dict[str, list[float]] = {name: [] for name in CALLS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        root.mkdir()
        with Image.open(SAMPLE) as sample:
            sample.resize((SIDE_PX, SIDE_PX)).save(root / "colon.png")
        for number in range(ROUNDS + 1):
            for name, (arguments, _) in CALLS.items():
                took = await _first_call(root, Path(folder) / f"{name}{number}", name, arguments)
                if number >= 1:  # the first warms the disk
                    taken[name].append(took)
    return [
        Figure(
            f"first answer over stdio: {name}",
            statistics.median(taken[name]),
            "s",
            target,
            {"fastest": min(taken[name]), "slowest": max(taken[name])},
        )
        for name, (_, target) in CALLS.items()
    ]


async def _first_call(root: Path, workspace: Path, name: str, arguments: dict[str, Any]) -> float:
    async with Client(over_stdio(root, workspace)) as client:
        started = time.perf_counter()
        answer = await client.call_tool("segment", {"image": "colon.png", **arguments})
        took = time.perf_counter() - started
    assert not answer.is_error, answer.content
    assert bool(answer.structured_content["masks"]) is (name == "segment"), answer.structured_content
    return took
