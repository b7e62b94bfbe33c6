"""Acceptance: a slide as a job of a real MCP server, killed with -9 in the middle, resumed, compared with a run in one go.

    python -m benchmarks.slide_resume [SLIDE] [--model NAME] [--words WORDS] [--kill-at 0.4]

Without SLIDE: the drawn one of 40,000 x 40,000 px. Prints what happened; exit status 1 when any object differs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.drawn_slides import RESECTION, cached
from tissuetalk.tools.segment import grid
from tissuetalk.tools.segment.grid import SlideSettings

ALWAYS_BLOCKS = SlideSettings(whole_px=0)
PATIENCE_S = 1.0


def serve(root: str, workspace: str, pid_file: str) -> None:
    """The server as users run it, except that small slides, too, are worked on block by block and become jobs soon."""
    from tissuetalk.server.service import Settings
    from tissuetalk.server.stdio import serve_stdio

    grid.SlideSettings = partial(replace, ALWAYS_BLOCKS)
    Path(pid_file).write_text(str(os.getpid()))
    serve_stdio(Settings(roots=(Path(root),), workspace=Path(workspace), patience_s=PATIENCE_S))


async def killed_and_resumed(
    slide: Path, asked: dict[str, Any], workspace: Path, kill_at: float
) -> tuple[dict[str, Any], float]:
    """(the result, how far the first server was when it was killed)."""
    pid_file = workspace.with_name("server.pid")
    arguments = ["-m", "benchmarks.slide_resume", "--serve", str(slide.parent), str(workspace), str(pid_file)]
    server = StdioServerParameters(
        command=sys.executable, args=arguments, env=dict(os.environ), cwd=Path(__file__).parents[1]
    )
    async with Client(stdio_client(server)) as client:
        job_id = (await client.call_tool("segment", asked)).structured_content["job_id"]
        if job_id is None:
            sys.exit("the work was over before it became a job; take a larger slide.")
        while (at := (await status(client, job_id))["progress"]) < kill_at:
            await asyncio.sleep(0.5)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    print(f"killed at {at:.0%}", flush=True)
    async with Client(stdio_client(server)) as client:
        said = -1.0
        while (now := await status(client, job_id))["state"] in ("queued", "running"):
            if now["progress"] >= said + 0.1:
                said = now["progress"]
                print(f"  {said:.0%}, {now['eta_s'] or 0:.0f} s left", flush=True)
            await asyncio.sleep(1.0)
        if now["state"] != "done":
            sys.exit(f"the job ended as {now['state']}: {now['error']}")
        result: dict[str, Any] = now["result"]
        return result, at


async def status(client: Client, job_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = (
        await client.call_tool("job", {"job_id": job_id, "action": "status"})
    ).structured_content
    return answer


def in_one_go(slide: Path, asked: dict[str, Any], workspace: Path) -> None:
    from tissuetalk.tools.segment.lessons import understand
    from tissuetalk.tools.segment.request import SegmentArguments
    from tissuetalk.tools.segment.segment import segment
    from tissuetalk.tools.session import Session

    with closing(Session(slide.parent, workspace, slides=ALWAYS_BLOCKS)) as bench:
        segment(bench, understand(bench, SegmentArguments(**asked)))


def objects(workspace: Path) -> pyarrow.Table:
    (path,) = (workspace / "results").glob("*/slide/objects/*.parquet")
    return pyarrow.parquet.read_table(path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a server in the middle of a slide, resume, compare.")
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--model", default="classical-nuclei")
    parser.add_argument("--words", default="nuclei")
    parser.add_argument("--kill-at", type=float, default=0.4)
    options = parser.parse_args()
    slide = (options.slide or cached(RESECTION)).resolve()
    asked = {"image": slide.name, "words": options.words, "model": options.model}
    with tempfile.TemporaryDirectory(prefix="slide-resume-") as folder:
        started = time.monotonic()
        result, _ = asyncio.run(killed_and_resumed(slide, asked, Path(folder) / "killed", options.kill_at))
        between = time.monotonic()
        in_one_go(slide, asked, Path(folder) / "whole")
        resumed, whole = objects(Path(folder) / "killed"), objects(Path(folder) / "whole")
        print(
            f"{slide.name}: {result['image']['width']} x {result['image']['height']} px, {resumed.num_rows} objects; "
            f"killed and resumed {between - started:.0f} s, in one go {time.monotonic() - between:.0f} s"
        )
        same = resumed.equals(whole)
        print("the same objects, bit for bit" if same else "THE OBJECTS DIFFER")
        return 0 if same else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        sys.exit(main())
