"""One slide run in a process of its own, so that its peak memory is its own: JSON in, JSON out.

python -m benchmarks.slide_child '{"slide": "x.svs", "model": "classical-nuclei", "words": ["nuclei"]}'
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tissuetalk.models import registry
from tissuetalk.models.control import Control
from tissuetalk.models.memory import keep_memory
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.segment import tiles, windows
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session

SEEN_TILES = 4


class Clock:
    """Seconds spent in each named function, whatever thread calls it, and those its thread was computing (``cpu``).

    The second does not grow on a busy machine; it leaves out what further threads of a library computed.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.tiles: list[Any] = []
        self._lock = threading.Lock()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "encode" and len(self.tiles) < SEEN_TILES:
                self.tiles.append(args)
            started, computing = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
                    self.cpu[name] = self.cpu.get(name, 0.0) + time.thread_time() - computing
                    self.calls[name] = self.calls.get(name, 0) + 1

        return call


def run(request: dict[str, Any]) -> dict[str, Any]:
    """wall_s of the whole segment call, model_s in it, alone_s of the model by itself on as many tiles, and more."""
    model: Any = registry.load(request["model"])
    clock, slide = Clock(), Path(request["slide"])
    with ExitStack() as stack:
        workspace = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slide-bench-")))
        runner = None
        started = time.perf_counter()
        if request.get("ray_workers"):
            from tissuetalk.tools.segment.ray_runner import Cluster

            runner = stack.enter_context(Cluster(workers=request["ray_workers"])).runner
        cluster_s = time.perf_counter() - started
        settings = SlideSettings(whole_px=0, **request.get("settings", {}))
        bench = stack.enter_context(closing(Session(slide.parent, workspace, slides=settings, runner=runner)))
        whole, plain_encode, plain_decode = _timed_run(bench, request, clock, model, workspace)
        second_s = _second(bench, request)
    alone_s = _alone(plain_encode, plain_decode, clock, request)
    return {
        **whole,
        "cluster_s": cluster_s,
        "second_s": second_s,
        "alone_s": alone_s,
        "gflop_of_tile": _gflop(plain_encode, plain_decode, clock, request),
        "clock": clock.seconds,
        "cpu": clock.cpu,
    }


def _timed_run(
    bench: Session, request: dict[str, Any], clock: Clock, model: Any, workspace: Path
) -> tuple[dict[str, Any], Any, Any]:
    plain_encode, plain_decode = model.encode, model.decode
    model.encode, model.decode = clock.timed("encode", plain_encode), clock.timed("decode", plain_decode)
    tiles.read_tile = clock.timed("read", tiles.read_tile)
    windows.write_window = clock.timed("windows", windows.write_window)
    over, said = threading.Event(), dict[str, float]()
    started, cpu_before = time.perf_counter(), time.process_time()
    first_answer: list[float] = []

    def watch() -> None:
        while not over.wait(0.05) and not first_answer:
            if any((workspace / "unfinished").rglob("preliminary.json")):
                first_answer.append(time.perf_counter() - started)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    result = segment(
        bench,
        _order(request, request["words"]),
        Control(lambda done, what: said.setdefault(what.split(" ")[0], time.perf_counter() - started)),
    )
    wall = time.perf_counter() - started
    over.set()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    about = json.loads((bench.workspace.result(result.result_id).folder / "slide" / "slide.json").read_text())
    model.encode, model.decode = plain_encode, plain_decode
    return (
        {
            "wall_s": wall,
            "model_s": clock.seconds.get("encode", 0.0) + clock.seconds.get("decode", 0.0),
            "blocks": len(about["blocks"]),
            "tissue_mm2": about["tissue_area_mm2"],
            "objects": [mask.count for mask in result.masks],
            "overview_s": first_answer[0] if first_answer else None,
            "tail_s": wall - said.get("numbering", wall),
            "peak_mb": peak_mb,
            "cpu_s": time.process_time() - cpu_before,
        },
        plain_encode,
        plain_decode,
    )


def _second(bench: Session, request: dict[str, Any]) -> float | None:
    """Seconds of another question about the same slide, which finds the features of the first."""
    if not request.get("second"):
        return None
    started = time.perf_counter()
    segment(bench, _order(request, request["second"]))
    return time.perf_counter() - started


def _alone(encode: Any, decode: Any, clock: Clock, request: dict[str, Any]) -> float | None:
    """The model by itself on tiles of the run, read beforehand, times the number of tiles it was asked about."""
    if not clock.tiles:
        return None
    prompts = _prompts(request)
    started = time.perf_counter()
    for tile, context in clock.tiles:
        decode(encode(tile, context), prompts)
    return (time.perf_counter() - started) / len(clock.tiles) * clock.calls["encode"]


def _gflop(encode: Any, decode: Any, clock: Clock, request: dict[str, Any]) -> float:
    """10⁹ floating-point operations of one tile and one question, as torch counts them; 0 for a model without torch."""
    from torch.utils.flop_counter import FlopCounterMode

    if not clock.tiles:
        return 0.0
    with FlopCounterMode(display=False) as counter:
        decode(encode(*clock.tiles[-1]), _prompts(request))
    return float(counter.get_total_flops()) / 1e9


def _prompts(request: dict[str, Any]) -> list[Any]:
    from tissuetalk.prompts.names import prompt_for

    return [prompt_for(Target(None, words)) for words in request["words"]]


def _order(request: dict[str, Any], words: list[str]) -> SegmentRequest:
    asked = Request("request", tuple(Target(None, each) for each in words))
    return SegmentRequest(request["slide"], asked, None, None, request["model"])


if __name__ == "__main__":
    keep_memory()  # as the command line does
    print(json.dumps(run(json.loads(sys.argv[1]))))
