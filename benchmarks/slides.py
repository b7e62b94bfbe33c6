"""Whole slides: overhead, memory, growth, overview, second question, Ray, reading; and what a large machine would need.

Slides are drawn from real tissue (``tests/drawn_slides.py``) and kept in a cache folder. Every run is a process of its
own. ``SLIDE_PARTS`` (comma-separated, default all of PARTS) and ``SLIDE_MODELS`` choose; with the default model the 10 mm²
run takes minutes.

    SLIDE_PARTS=reading python -m benchmarks slides
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, table
from tests.drawn_slides import BIOPSY, ONE_MM2, RESECTION, Drawing, cached, fragments_of

DEFAULT, CLASSICAL = "tissuetalk-mini", "classical-nuclei"
THREE_MM2 = Drawing(side_px=21_909, fragments=3, fragment_mm2=1.0)
"""10 % tissue, in the same pieces as ONE_MM2 and RESECTION."""
SECOND = {DEFAULT: ["tumor nuclei"], CLASSICAL: ["all nuclei"]}
ALLOWED = {
    "overhead": 1.15,
    "memory": 1.1,
    "gigabytes": 3.0,
    "growth": 1.1,
    "overview_s": 15.0,
    "second": 0.15,
}
READ_SIDE_PX = 1024


def measure() -> list[Figure]:
    parts = [part for part in os.environ.get("SLIDE_PARTS", ",".join(PARTS)).split(",") if part]
    models = os.environ.get("SLIDE_MODELS", f"{DEFAULT},{CLASSICAL}").split(",")
    figures: list[Figure] = []
    for part in parts:
        for model in models if part not in ("reading", "planned") else models[:1]:
            print(f"{part}, {model} …", file=sys.stderr, flush=True)
            found = PARTS[part](model)
            print(table(found), file=sys.stderr, flush=True)
            figures += found
    return figures


@cache
def run(drawing: Drawing, model: str, ray_workers: int = 0, second: bool = False) -> dict[str, Any]:
    """One run in a process of its own; the same question is measured once."""
    request = {
        "slide": str(cached(drawing)),
        "model": model,
        "words": ["nuclei"],
        "ray_workers": ray_workers,
        "second": SECOND.get(model) if second else None,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.slide_child", json.dumps(request)],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def overhead(model: str) -> list[Figure]:
    """The whole of a run, finishing objects and writing included, over the model's own time."""
    found = run(ONE_MM2, model, second=True)
    parts = _seconds(found)
    allowed = (
        ALLOWED["overhead"] if model == DEFAULT else None
    )  # the classical model is almost no work at all
    return [
        Figure(
            f"run over model time in it, {model}", found["wall_s"] / found["model_s"], "times", allowed, parts
        ),
        Figure(
            f"run over the model alone, {model}", found["wall_s"] / found["alone_s"], "times", allowed, {}
        ),
    ]


def _seconds(found: dict[str, Any]) -> dict[str, float]:
    spent = {f"{name}, s": value for name, value in found["clock"].items()}
    spent |= {f"{name}, CPU s": value for name, value in found["cpu"].items()}
    return {
        "whole run, s": found["wall_s"],
        **spent,
        "after the last block, s": found["tail_s"],
        "all CPU, s": found["cpu_s"],
    }


def growth(model: str) -> list[Figure]:
    """Seconds per mm² of tissue at 1, 3 and 10 mm²; memory from 10,000² to 40,000² px; the overview of the largest."""
    runs = {drawing.fragments: run(drawing, model) for drawing in (THREE_MM2, RESECTION)}
    runs[1] = run(ONE_MM2, model, second=True)
    per_mm2 = {
        f"s/mm² at {n} mm²": found["wall_s"] / found["tissue_mm2"] for n, found in sorted(runs.items())
    }
    spread = max(per_mm2.values()) / min(per_mm2.values())
    small, large = run(BIOPSY, model)["peak_mb"], runs[10]["peak_mb"]
    return [
        Figure(f"time per mm² of tissue, {model}", spread, "max/min", ALLOWED["growth"], per_mm2),
        Figure(
            f"peak memory, 40,000² over 10,000² px, {model}",
            large / small,
            "times",
            ALLOWED["memory"],
            {"10,000² px, MB": small, "40,000² px, MB": large},
        ),
        Figure(f"peak memory at 40,000² px, {model}", large / 1e3, "GB", ALLOWED["gigabytes"], {}),
        Figure(f"overview at 40,000² px, {model}", runs[10]["overview_s"], "s", ALLOWED["overview_s"], {}),
    ]


def second(model: str) -> list[Figure]:
    """Another question about a slide whose features are stored."""
    found = run(ONE_MM2, model, second=True)
    parts = {"first, s": found["wall_s"], "second, s": found["second_s"]}
    allowed = ALLOWED["second"] if model == DEFAULT else None  # the classical model has no features to keep
    return [
        Figure(
            f"second question over the first, {model}",
            found["second_s"] / found["wall_s"],
            "times",
            allowed,
            parts,
        )
    ]


def on_ray(model: str) -> list[Figure]:
    """Two local workers against one process, both on all cores; starting the cluster is counted apart."""
    one, two = run(ONE_MM2, model, second=True), run(ONE_MM2, model, ray_workers=2)
    parts = {
        "1 process, s": one["wall_s"],
        "2 workers, s": two["wall_s"],
        "starting Ray, s": two["cluster_s"],
    }
    return [
        Figure(f"Ray, 2 workers over 1 process, {model}", two["wall_s"] / one["wall_s"], "times", None, parts)
    ]


def reading(model: str) -> list[Figure]:
    """The same pixels of tissue through our reader at 0.5 µm/px and through OpenSlide at full resolution."""
    import openslide

    from tissuetalk.models.images import open_image

    path = cached(ONE_MM2)
    (piece,) = fragments_of(ONE_MM2)
    side, down = READ_SIDE_PX, 2
    reach = int(piece.radius_px * 0.7)
    corners = [
        (int(piece.x) + x, int(piece.y) + y)
        for y in range(-reach, reach - side * down, side * down)
        for x in range(-reach, reach - side * down, side * down)
    ]
    taken = {"ours": 0.0, "OpenSlide": 0.0}
    with open_image(path, name=path.name) as ours, openslide.OpenSlide(str(path)) as plain:
        for x, y in [*corners, *corners]:  # in turns, so that whatever else the machine does falls on both
            started = time.perf_counter()
            ours.read_grid((x, down), (y, down), width=side, height=side)
            between = time.perf_counter()
            plain.read_region((x, y), 0, (side * down, side * down))
            taken["ours"] += between - started
            taken["OpenSlide"] += time.perf_counter() - between
    megapixels = 2 * len(corners) * (side * down) ** 2 / 1e6
    parts = {f"{name}, Mpx/s of the slide": megapixels / seconds for name, seconds in taken.items()}
    return [
        Figure(
            "reading tissue, ours over OpenSlide alone",
            taken["ours"] / taken["OpenSlide"],
            "times",
            None,
            parts,
        )
    ]


PEAK_TFLOPS, REACHED = 494.0, 0.1
"""H200, TF32 without sparsity, and the share of it that a small convolutional model is assumed to reach."""
CORES_PER_GPU = 16


def planned(model: str) -> list[Figure]:
    """What one H200 with 16 cores, and 16 of them, would need: a calculation from what is measured here.

    The model's operations per mm² over the assumed speed of the GPU, against reading and finishing on the cores; the
    slower of the two decides. What follows the last block is serial, so it does not shrink with machines for one slide.
    """
    found = run(ONE_MM2, DEFAULT, second=True)
    tissue, tiles = found["tissue_mm2"], found["blocks"]
    gflop = found["gflop_of_tile"] * tiles / tissue
    on_gpu = gflop / (PEAK_TFLOPS * 1e3 * REACHED)
    on_cores = (found["cpu"]["read"] + found["cpu"]["windows"]) / tissue / CORES_PER_GPU
    one, ten = run(ONE_MM2, CLASSICAL, second=True), run(RESECTION, CLASSICAL)
    serial = (ten["tail_s"] - one["tail_s"]) / (ten["tissue_mm2"] - one["tissue_mm2"])
    per_mm2 = max(on_gpu, on_cores)
    parts = {
        "measured here: model, s/mm²": found["model_s"] / tissue,
        "measured here: reading and finishing, core-s/mm²": on_cores * CORES_PER_GPU,
        "measured here: after the last block, from 1 to 10 mm², s/mm²": serial,
        "tiles per mm²": tiles / tissue,
        "GFLOP per mm²": gflop,
        f"GPU at {REACHED:.0%} of {PEAK_TFLOPS:g} TFLOPS, s/mm²": on_gpu,
        f"{CORES_PER_GPU} cores, s/mm²": on_cores,
        "one slide of 200 mm², 1 H200, s": 200 * (per_mm2 + serial),
        "one slide of 200 mm², 16 H200, s": 200 * (per_mm2 / 16 + serial),
        "1000 such slides, 16 H200, slide by slide, h": 1000 * 200 * (per_mm2 + serial) / 16 / 3600,
    }
    return [Figure("planned: one H200", per_mm2 + serial, "s/mm²", None, parts)]


PARTS: dict[str, Callable[[str], list[Figure]]] = {
    "reading": reading,
    "overhead": overhead,
    "second": second,
    "ray": on_ray,
    "growth": growth,
    "planned": planned,
}
