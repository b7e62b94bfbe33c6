"""Hours of mixed conversations with one real server over HTTP: does it grow, leak descriptors or get slower? Linux only.

    python -m benchmarks soak --hours 1 --callers 8

Callers talk as assistants do: small pictures, slides as jobs, uploads, questions, resources, mistakes, jobs that are given
up. Memory is that of the server and its worker processes together, shared pages counted once. It ends with a table by
window, the slope over everything after the first quarter, a CSV and a plot; exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from PIL import Image

from benchmarks.figure import RESULTS, Figure, table, write
from benchmarks.first_answer import SAMPLE
from benchmarks.overhead import picture
from benchmarks.serving import http_process
from tests.drawn_slides import Drawing, cached

MOST_MB_PER_1000 = 1.0
MOST_MORE_DESCRIPTORS = 10.0
MOST_SLOWER = 1.5
"""p95 of the last window over that of the first one after the warm-up."""
LOST, MOST_LOST = "conversation broken off", 20
STUCK, LONGEST_JOB_S = "job that never ended", 600.0
LAST_WORD_S = 120.0
"""What a caller may take to end when time is over; longer, and it counts as broken off."""
SAMPLE_EVERY_S = 5.0
THINKING_S = (0.1, 1.5)
SLIDE = Drawing(side_px=4_000, fragments=1, fragment_mm2=0.25)
REPORT = "Colon biopsy: crowded adenomatous glands with dysplasia. No invasive carcinoma. Lymphocytes in the stroma."
ASKED = (
    {"words": "outline the glands in the colon"},
    {"words": REPORT},
    {"words": "how many nuclei are there?"},
    {"words": "nuclei", "region": [-20, 100, 400, 420]},
    {
        "targets": [
            {"words": "glands"},
            {"words": "nuclei", "relation": {"op": "outside", "reference": "glands"}},
        ]
    },
)
QUESTIONS = (None, "how sure are you?", "what does stroma mean?", "which model and settings?")
BAD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("segment", {"image": "nowhere.png", "words": "glands"}),
    ("segment", {"image": "../outside.png", "words": "glands"}),
    ("segment", {"image": "colon.jpg", "words": "x" * 200_000}),
    ("segment", {"image": "broken.tif", "words": "glands"}),
    ("measure", {"result_id": "res_0", "metrics": ["luck"]}),
    ("view", {"image": "colon.jpg", "region": [9e9, 0, 9e9, 1]}),
    ("job", {"job_id": "job_0", "action": "wait"}),
)


@dataclass(frozen=True)
class Sample:
    """at_s: since the start. Memory in 10⁶ bytes, of the server and of its workers."""

    at_s: float
    calls: int
    server_mb: float
    workers_mb: float
    descriptors: int
    workers: int

    @property
    def memory_mb(self) -> float:
        return self.server_mb + self.workers_mb


@dataclass
class Soak:
    """What is known of a run. taken: (at_s, seconds) of every answered call but those that wait for a job."""

    until: float
    started: float = field(default_factory=time.monotonic)
    calls: int = 0
    taken: list[tuple[float, float]] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    async def ask(self, client: Client, tool: str, **arguments: Any) -> CallToolResult:
        begun = time.monotonic()
        answer = await client.call_tool(tool, arguments)
        self._note(begun, counted=arguments.get("action") != "wait")
        if answer.is_error:
            self.codes[getattr(answer.content[0], "text", "").partition(":")[0]] += 1
        await asyncio.sleep(random.uniform(*THINKING_S))
        return answer

    async def read(self, client: Client, uri: str) -> None:
        begun = time.monotonic()
        with suppress(MCPError):  # a caller that deletes may be quicker
            await client.read_resource(uri)
        self._note(begun)

    def _note(self, begun: float, counted: bool = True) -> None:
        self.calls += 1
        if counted:
            self.taken.append((begun - self.started, time.monotonic() - begun))


async def _finished(soak: Soak, client: Client, answer: CallToolResult) -> dict[str, Any] | None:
    """The result of a segment, waited for where it is a job; None when it failed."""
    said = answer.structured_content
    if answer.is_error or said is None:
        return None
    until = time.monotonic() + LONGEST_JOB_S
    while said["job_id"] is not None:
        if time.monotonic() > until:
            soak.codes[STUCK] += 1
            return None
        status = (await soak.ask(client, "job", job_id=said["job_id"], action="wait")).structured_content
        if status is None or status["state"] in ("failed", "cancelled"):
            return None
        if status["state"] == "done":
            said = status["result"]
    return said


async def _talk(soak: Soak, client: Client, image: str) -> None:
    """One image from words to numbers, evidence and files."""
    asked = {"image": image, "mpp": 0.5, **random.choice(ASKED)}
    result = await _finished(soak, client, await soak.ask(client, "segment", **asked))
    if result is None:
        return
    found = {"result_id": result["result_id"]}
    await soak.ask(client, "measure", **found)
    await soak.ask(client, "view", **found, grid=True)
    explained = await soak.ask(client, "explain", **found, question=random.choice(QUESTIONS))
    job_id = (explained.structured_content or {}).get("job_id")
    if job_id:
        await soak.ask(client, "job", job_id=job_id, action=random.choice(("wait", "cancel")))
    await soak.read(client, result["overlay"])
    for mask in result["masks"][:2]:
        for name in ("mask", "table", "geojson"):
            await soak.read(client, mask["resources"][name])
    await soak.ask(client, "library", action="delete", **found)


async def _slide(soak: Soak, client: Client) -> None:
    """A slide as a job, sometimes given up."""
    asked = {"image": "slide.tif", "targets": [{"words": "nuclei"}], "model": "classical-nuclei"}
    answer = await soak.ask(client, "segment", **asked)
    job_id = (answer.structured_content or {}).get("job_id")
    if job_id and random.random() < 0.3:
        await soak.ask(client, "job", job_id=job_id, action="cancel")
        return
    result = await _finished(soak, client, answer)
    if result is not None:
        await soak.ask(client, "measure", result_id=result["result_id"], metrics=["count", "density"])
        await soak.ask(client, "view", result_id=result["result_id"])
        await soak.ask(client, "library", action="delete", result_id=result["result_id"])


async def _caller(soak: Soak, url: str, number: int) -> None:
    """Conversations, each in a session of its own, until time is over; one that breaks off is counted."""
    while not soak.over and soak.codes[LOST] < MOST_LOST:
        try:
            async with Client(url) as client:
                for _ in range(random.randint(1, 4)):
                    await _conversation(soak, client, url, number)
        except* (MCPError, httpx2.HTTPError, OSError) as broken:
            soak.codes[LOST] += 1
            print(f"{LOST}: {broken.exceptions!r}"[:500], file=sys.stderr, flush=True)


async def _conversation(soak: Soak, client: Client, url: str, number: int) -> None:
    if soak.over:
        return
    kinds = {"picture": 5, "upload": 1, "slide": 1, "around": 3}
    (kind,) = random.choices(list(kinds), list(kinds.values()))
    if kind == "picture":
        await _talk(soak, client, random.choice(("colon.jpg", "tissue.png")))
    elif kind == "upload":
        await _uploaded(soak, client, url, number)
    elif kind == "slide":
        await _slide(soak, client)
    else:
        await _around(soak, client)


async def _uploaded(soak: Soak, client: Client, url: str, number: int) -> None:
    """A picture that nobody has sent before, by PUT."""
    pixels = np.asarray(Image.open(SAMPLE).convert("RGB")).copy()
    pixels[:8, :8] = np.random.default_rng([number, soak.calls]).integers(0, 255, (8, 8, 3), np.uint8)
    body = BytesIO()
    Image.fromarray(pixels).save(body, "PNG")
    begun = time.monotonic()
    async with httpx2.AsyncClient() as http:
        answer = await http.put(url.replace("/mcp", "/images"), content=body.getvalue(), timeout=100)
    soak._note(begun)
    if answer.status_code == 201:
        await _talk(soak, client, answer.json()["image"])
    else:
        soak.codes[f"upload {answer.status_code}"] += 1


async def _around(soak: Soak, client: Client) -> None:
    """Looking around and making mistakes."""
    await soak.ask(client, "library", action=random.choice(("images", "results")))
    await soak.ask(client, "view", image=random.choice(("slide.tif", "colon.jpg")))
    await soak.read(client, random.choice(("taxonomy://labels", "model://models", "image://img_0")))
    tool, arguments = random.choice(BAD)
    await soak.ask(client, tool, **arguments)


async def _sampled(soak: Soak, pid: int) -> None:
    while not soak.over:
        workers = _below(pid)
        soak.samples.append(
            Sample(
                at_s=time.monotonic() - soak.started,
                calls=soak.calls,
                server_mb=_memory_mb(pid),
                workers_mb=sum(map(_memory_mb, workers)),
                descriptors=sum(map(_descriptors, [pid, *workers])),
                workers=len(workers),
            )
        )
        await asyncio.sleep(SAMPLE_EVERY_S)


def _below(pid: int) -> list[int]:
    """Processes that the server started, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_below(child)]
    return found


def _memory_mb(pid: int) -> float:
    """Its own pages and its share of those it has in common with others."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _descriptors(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


@dataclass(frozen=True)
class Window:
    """Means and percentiles of one stretch of time."""

    from_min: float
    calls: int
    memory_mb: float
    descriptors: float
    p50_s: float
    p95_s: float


def windows_of(soak: Soak, length_s: float) -> list[Window]:
    """One after another; a last one shorter than half the length is left out."""
    found = []
    end = soak.samples[-1].at_s
    for start in np.arange(0, max(end - length_s / 2, 1), length_s):
        seconds = [took for at, took in soak.taken if start <= at < start + length_s]
        samples = [each for each in soak.samples if start <= each.at_s < start + length_s]
        if seconds and samples:
            found.append(
                Window(
                    from_min=float(start) / 60,
                    calls=samples[-1].calls - samples[0].calls,
                    memory_mb=float(np.mean([each.memory_mb for each in samples])),
                    descriptors=float(np.median([each.descriptors for each in samples])),
                    p50_s=float(np.percentile(seconds, 50)),
                    p95_s=float(np.percentile(seconds, 95)),
                )
            )
    return found


def figures_of(soak: Soak, windows: list[Window]) -> list[Figure]:
    settled = [each for each in soak.samples if each.at_s >= soak.samples[-1].at_s / 4]
    slope = np.polyfit([each.calls / 1000 for each in settled], [each.memory_mb for each in settled], 1)[0]
    later = [each for each in windows if each.from_min * 60 >= soak.samples[-1].at_s / 4] or windows
    more = later[-1].descriptors - later[0].descriptors
    parts = {
        "calls": float(soak.calls),
        "calls a second": soak.calls / soak.samples[-1].at_s,
        "most memory, MB": max(each.memory_mb for each in soak.samples),
        "worker processes": float(soak.samples[-1].workers),
    }
    slower = later[-1].p95_s / later[0].p95_s
    return [
        Figure("memory per 1,000 calls", float(slope), "MB", MOST_MB_PER_1000, parts),
        Figure("descriptors, last window over first", more, "", MOST_MORE_DESCRIPTORS, {}),
        Figure("p95, last window over first", slower, "times", MOST_SLOWER, {"p95 s": later[-1].p95_s}),
        Figure("conversations broken off", float(soak.codes[LOST]), "", 0.0, {}),
        Figure("jobs that never ended", float(soak.codes[STUCK]), "", 0.0, {}),
    ]


async def run(hours: float, callers: int, root: Path, workspace: Path) -> Soak:
    with http_process(root, workspace) as (url, pid):
        soak = Soak(time.monotonic() + hours * 3600)
        sampling = asyncio.create_task(_sampled(soak, pid))
        talking = [asyncio.create_task(_caller(soak, url, number)) for number in range(callers)]
        ended, hanging = await asyncio.wait(talking, timeout=hours * 3600 + LAST_WORD_S)
        soak.codes[LOST] += len(hanging)
        for each in hanging:
            each.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        for each in ended:
            each.result()
        await sampling
    return soak


def _images(root: Path) -> None:
    root.mkdir()
    shutil.copy(SAMPLE, root / "colon.jpg")
    picture(root / "tissue.png", 800)
    shutil.copy(cached(SLIDE), root / "slide.tif")
    (root / "broken.tif").write_bytes((root / "slide.tif").read_bytes()[:5000])


def _plot(soak: Soak, windows: list[Window], path: Path) -> None:
    from matplotlib.figure import Figure as Drawn

    drawn = Drawn(figsize=(8, 5.5), layout="constrained")
    memory, latency = drawn.subplots(2, 1, sharex=True)
    minutes = [each.at_s / 60 for each in soak.samples]
    memory.plot(minutes, [each.memory_mb for each in soak.samples], label="server and workers")
    memory.plot(minutes, [each.server_mb for each in soak.samples], label="server")
    memory.set(ylabel="memory, MB", ylim=(0, None))
    beside = memory.twinx()
    beside.plot(minutes, [each.descriptors for each in soak.samples], color="tab:grey", lw=0.8)
    beside.set(ylabel="descriptors (grey)", ylim=(0, None))
    memory.legend(loc="lower right")
    middle = [each.from_min for each in windows]
    latency.plot(middle, [each.p50_s for each in windows], "o-", label="p50")
    latency.plot(middle, [each.p95_s for each in windows], "o-", label="p95")
    latency.set(xlabel="minutes", ylabel="answer after, s", ylim=(0, None))
    latency.legend(loc="lower right")
    drawn.savefig(path, dpi=110)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, default=Path("docs/images/soak.png"))
    given = parser.parse_args(arguments)
    random.seed(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        _images(Path(folder) / "images")
        soak = asyncio.run(run(given.hours, given.callers, Path(folder) / "images", Path(folder) / "w"))
    windows = windows_of(soak, min(300.0, given.hours * 3600 / 6))
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "soak.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(Window.__dataclass_fields__)
        rows.writerows([round(value, 3) for value in vars(each).values()] for each in windows)
    print("  ".join(f"{name:>11}" for name in Window.__dataclass_fields__))
    for each in windows:
        print("  ".join(f"{value:11.2f}" for value in vars(each).values()))
    print("refused, by code:", dict(soak.codes))
    figures = figures_of(soak, windows)
    _plot(soak, windows, given.plot)
    write("soak", figures)
    print(table(figures))
    sys.exit(not all(each.met for each in figures))
