"""What decoding in a process of its own costs: an ordinary picture, and regions of a slide by one thread and by four.

Both ways take turns in one process, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image

from benchmarks.figure import Figure
from tests.drawn_slides import ONE_MM2, cached, fragments_of
from tissuetalk.models import worker
from tissuetalk.models.images import Box, ImageSource, open_image, opening, remote
from tissuetalk.tools.session import Session

ROUNDS = int(os.environ.get("DECODING_ROUNDS", "12"))
TARGET = 1.05
SIDE_PX, TILE_PX = 1024, 1024
SAMPLE = Path(__file__).parents[1] / "models" / "samples" / "colon.jpg"
WAYS = {"own process": remote.reader_for, "same process": remote.reader_here}


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, Session(folder) as session:
        with Image.open(SAMPLE) as sample:
            sample.resize((SIDE_PX, SIDE_PX)).save(Path(folder) / "picture.png")

        def segmented(way: str) -> None:
            with _decoding(way):
                session.segment("picture.png", "nuclei", mpp=0.5)

        figures = [_ratio("segment, a picture of 1024 x 1024", segmented)]
    path = cached(ONE_MM2)
    with ExitStack() as stack:
        slides = {}
        for way in WAYS:
            with _decoding(way):
                slides[way] = stack.enter_context(open_image(path, name=path.name))
        figures.append(_ratio("regions of a slide, 1 thread", lambda way: _read(slides[way], 1)))
        figures.append(_ratio("regions of a slide, 4 threads", lambda way: _read(slides[way], 4)))
    return figures


def _ratio(name: str, work: Callable[[str], None]) -> Figure:
    """Of processor time, ours and the worker's together: it is what a decoder costs, however busy the machine is."""
    used, waited = dict.fromkeys(WAYS, 0.0), dict.fromkeys(WAYS, 0.0)
    for number in range(ROUNDS + 1):
        for way in WAYS if number % 2 else reversed(WAYS):
            before, started = _processor_s(), time.perf_counter()
            work(way)
            if number >= 1:  # the first warms
                used[way] += _processor_s() - before
                waited[way] += time.perf_counter() - started
    parts = {f"{way}, s of processor": seconds / ROUNDS for way, seconds in used.items()}
    parts |= {f"{way}, s on the clock": seconds / ROUNDS for way, seconds in waited.items()}
    ratio = used["own process"] / used["same process"]
    return Figure(f"{name}, own process over same", ratio, "times", TARGET, parts)


def _processor_s() -> float:
    """Of this process, the warm worker, and all processes for images, those that have ended too."""
    worker.start()
    pid = worker.WORKER.pid
    running = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for each, last in ((str(pid), 15), *((child, 13) for child in running)):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:last])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _decoding(way: str) -> Iterator[None]:
    before = opening.reader_for
    opening.reader_for = WAYS[way]
    try:
        yield
    finally:
        opening.reader_for = before


def _read(source: ImageSource, threads: int) -> None:
    (piece,) = fragments_of(ONE_MM2)
    steps = (-2, -1, 0, 1)
    corners = [(int(piece.x) + x * TILE_PX, int(piece.y) + y * TILE_PX) for x in steps for y in steps]

    def one(corner: tuple[int, int]) -> None:
        x, y = corner
        source.read_region(Box(x, y, x + TILE_PX, y + TILE_PX), width=TILE_PX, height=TILE_PX)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, corners))
