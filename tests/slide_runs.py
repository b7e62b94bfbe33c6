"""Slide runs for tests: pictures forced onto the block-by-block path, and models made for counting what is asked of them.

Run as a script it segments one picture in a process of its own, which a test may kill.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import shapely
import zarr

from tissuetalk.models import registry
from tissuetalk.models.control import Control, Progress, Stop
from tissuetalk.models.segmentation.classical_nuclei import ClassicalNuclei
from tissuetalk.models.segmenter import RGB, Capability, Context, Decoded, Finished, Prompt
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.answers.results import Mask, SegmentResult
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session

SMALL = SlideSettings(whole_px=0, tile_px=192, window_px=256)
LEAST_DARK_PX = 270
LOG, PAUSE, DIE_AFTER = "SLIDE_RUN_LOG", "SLIDE_RUN_PAUSE_S", "SLIDE_RUN_DIE_AFTER"


class CountedNuclei(ClassicalNuclei):
    """The classical baseline that stores its features, takes batches and writes a line per tile it encodes."""

    card = replace(ClassicalNuclei.card, name="counted-nuclei")

    def encode(self, tile: RGB, context: Context) -> Any:
        if LOG in os.environ:
            with Path(os.environ[LOG]).open("a") as log:
                log.write("tile\n")
        time.sleep(float(os.environ.get(PAUSE, "0")))
        return super().encode(tile, context)

    def encode_batch(self, tiles: Sequence[RGB], context: Context) -> list[Any]:
        return [self.encode(tile, context) for tile in tiles]

    def pack(self, features: Any) -> bytes:
        head = np.array([*features.density.shape, features.threshold], np.float64)
        return head.tobytes() + features.density.tobytes()

    def unpack(self, stored: bytes) -> Any:
        height, width, threshold = np.frombuffer(stored[:24], np.float64)
        density = np.frombuffer(stored[24:], np.float32).reshape(int(height), int(width))
        return type(super().encode(np.zeros((2, 2, 3), np.uint8), Context({"threshold": 0.0})))(
            density, float(threshold)
        )


class DarkParts:
    """Pixel by pixel: all that is darker than stroma as one region (``dark``), what is much darker as separate ``parts``."""

    card = replace(ClassicalNuclei.card, name="dark-parts")
    weights_sha256 = "0" * 64
    tile_px, margin_px = 128, 4

    def capability(self, prompt: Prompt) -> Capability | None:
        return (
            Capability(prompt.words, 0.5, prompt.words == "parts")
            if prompt.words in ("dark", "parts")
            else None
        )

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return ["dark", "parts"]

    def sent(self, prompt: Prompt) -> str:
        return prompt.words

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return 0.5

    def prepare(self, overview: RGB) -> Context:
        return Context({})

    def encode(self, tile: RGB, context: Context) -> Any:
        return -tile.mean(axis=2).astype(np.float32)

    def decode(self, features: Any, prompts: Sequence[Prompt]) -> list[Decoded]:
        return [Decoded(features + (150 if prompt.words == "parts" else 200)) for prompt in prompts]

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        from tissuetalk.tools.segment.decide import connected

        mask = stitched.logits > 0
        if prompt.words == "parts":
            return Finished(mask, connected(mask), float(mask.any()))
        parts = connected(mask)
        large = np.bincount(parts.ravel()) >= LEAST_DARK_PX
        return Finished(mask & large[parts], None, float(mask.any()))


def register(patch: Any) -> None:
    """Make the models of this file known; patch: pytest's monkeypatch."""
    for model in (CountedNuclei, DarkParts):
        patch.setitem(
            registry.MODELS, model.card.name, registry.Entry(model.card, f"{__name__}:{model.__name__}")
        )


@dataclass(frozen=True)
class SlideRun:
    """A finished slide result."""

    result: SegmentResult
    folder: Path

    def mask(self, name: str = "nuclei") -> Mask:
        return next(mask for mask in self.result.masks if mask.free_form == name)

    def rows(self, name: str = "nuclei") -> Any:
        return pyarrow.parquet.read_table(
            self.folder / "slide" / "objects" / f"{self.mask(name).mask_id}.parquet"
        )

    def outlines(self, name: str = "nuclei") -> set[bytes]:
        return set(self.rows(name)["geometry"].to_pylist())

    def shapes(self, name: str = "nuclei") -> Any:
        return shapely.from_wkb(self.rows(name)["geometry"].to_pylist())

    def labels(self, name: str = "nuclei", level: int = 0) -> Any:
        path = self.folder / "slide" / "labels" / f"{self.mask(name).mask_id}.ome.zarr"
        return zarr.open_group(str(path), mode="r")[str(level)][:]

    def content(self) -> dict[str, bytes]:
        """Every file of ``slide/``, byte for byte."""
        slide = self.folder / "slide"
        return {
            str(path.relative_to(slide)): path.read_bytes()
            for path in sorted(slide.rglob("*"))
            if path.is_file()
        }


def order_of(
    image: Path, words: Sequence[str] = ("nuclei",), model: str = "classical-nuclei", **asked: Any
) -> SegmentRequest:
    """mpp is 0.5, the models' own, unless something else is said."""
    targets = asked.pop("targets", None) or tuple(Target(None, word, evidence=word) for word in words)
    given = {name: asked.pop(name) for name in ("region", "mpp") if name in asked}
    request = Request(kind="request", targets=targets, **asked)
    return SegmentRequest(str(image), request, model=model, **({"mpp": 0.5} | given))


def run(
    bench: Session,
    order: SegmentRequest,
    *,
    progress: Progress = lambda done, what: None,
    stop: Stop = lambda: False,
) -> SlideRun:
    result = segment(bench, order, Control(progress, stop))
    return SlideRun(result, bench.workspace.result(result.result_id).folder)


def bench_at(root: Path, workspace: Path, settings: SlideSettings = SMALL, **options: Any) -> Session:
    return Session(root, workspace, slides=settings, **options)


def _die_after(name: str) -> None:
    """``module:attribute``: the process kills itself when that has been called once."""
    module, _, path = name.partition(":")
    *owner, function = path.split(".")
    holder = import_module(module)
    for part in owner:
        holder = getattr(holder, part)
    original = getattr(holder, function)

    def last(*arguments: Any, **named: Any) -> Any:
        original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(holder, function, last)


def main() -> None:
    """IMAGE WORKSPACE: segment nuclei and say so."""
    image, workspace = (Path(argument) for argument in sys.argv[1:])
    if DIE_AFTER in os.environ:
        _die_after(os.environ[DIE_AFTER])
    registry.MODELS["counted-nuclei"] = registry.Entry(CountedNuclei.card, "__main__:CountedNuclei")
    bench = bench_at(image.parent, workspace)
    print(run(bench, order_of(image, model="counted-nuclei")).result.result_id)
    bench.close()


if __name__ == "__main__":
    main()
