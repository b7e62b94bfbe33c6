"""The shipped model asked with one word against LiteMedSAM asked with a box around every nucleus, per mm² of tissue.

Both go through ``look``, on the same drawn tissue, in turns. Processor seconds of all threads are counted, so that other work
on the machine falls on neither.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figure import Figure
from tissuetalk.models import registry
from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.models.segmenter import PromptableSegmenter, Segmenter, is_pointed
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.segment.field import FieldOfView, Scale, region_of
from tissuetalk.tools.segment.segment import segment_field

SIDE_PX = 256
MPP = 0.5
NUCLEI_PER_MM2 = 1500
RADIUS_PX = 9
ROUNDS = 2


def measure() -> list[Figure]:
    default, boxed = registry.load(None), registry.load("litemedsam")
    assert is_pointed(boxed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tissue.png"
        boxes = drawn_tissue(path)
        words = Request("request", (Target(None, "nuclei", evidence="nuclei"),))
        pointed = Request("request", words.targets, boxes=boxes)
        with open_image(path, name=path.name) as source:
            taken: dict[str, list[float]] = {"words": [], "boxes": [], "encoding": []}
            for _ in range(ROUNDS):
                taken["words"].append(seconds(source, default, words))
                taken["boxes"].append(seconds(source, boxed, pointed))
                taken["encoding"].append(encoding_seconds(source, boxed))
    mm2 = (SIDE_PX * MPP / 1000) ** 2
    per_mm2 = {name: min(times) / mm2 for name, times in taken.items()}
    parts = {
        "default, the word nuclei, CPU s/mm2": per_mm2["words"],
        "litemedsam, a box per nucleus, CPU s/mm2": per_mm2["boxes"],
        "litemedsam, only encoding, CPU s/mm2": per_mm2["encoding"],
        "nuclei": float(len(boxes)),
    }
    return [Figure("default over LiteMedSAM", per_mm2["words"] / per_mm2["boxes"], "ratio", 1.0, parts)]


def drawn_tissue(path: Path) -> tuple[tuple[float, float, float, float], ...]:
    """Purple discs on textured pink; returns their boxes."""
    random = np.random.default_rng(0)
    count = round(NUCLEI_PER_MM2 * (SIDE_PX * MPP / 1000) ** 2)
    pixels = random.normal((225, 180, 205), 8, (SIDE_PX, SIDE_PX, 3))
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    centres = random.integers(RADIUS_PX, SIDE_PX - RADIUS_PX, (count, 2)).tolist()
    for cx, cy in centres:
        pixels[(x - cx) ** 2 + (y - cy) ** 2 <= RADIUS_PX**2] -= (135, 115, 65)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return tuple(
        (cx - RADIUS_PX, cy - RADIUS_PX, cx + RADIUS_PX + 1, cy + RADIUS_PX + 1) for cx, cy in centres
    )


def seconds(source: ImageSource, model: Segmenter, request: Request) -> float:
    """Of processor time, for one answer."""
    began = time.process_time()
    segment_field(FieldOfView(source, model, region_of(source, None), Scale(MPP, "given")), request)
    return time.process_time() - began


def encoding_seconds(source: ImageSource, model: PromptableSegmenter) -> float:
    """The picture in tiles of the model's own size at full resolution, no prompt at all."""
    picture = source.read_region(region_of(source, None), width=SIDE_PX, height=SIDE_PX)
    began = time.process_time()
    for top in range(0, SIDE_PX, model.side_px):
        for left in range(0, SIDE_PX, model.side_px):
            model.encode(
                np.ascontiguousarray(picture[top : top + model.side_px, left : left + model.side_px])
            )
    return time.process_time() - began
