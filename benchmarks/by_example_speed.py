"""Times in ``python -m benchmarks by_example``: what learning takes, and a taught target beside an ordinary one, in the same minutes.

Whole calls of ``segment`` on 1024 x 1024 pixels, and runs over a slide block by block; the two take turns, each time on
pixels that nobody has looked at before. "tissue" is taught plainly, "tumour" corrects what the model answers to the word.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.figure import Figure
from tissuetalk.models.images import Box, open_image
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.session import Session

ROUNDS = 5
SLIDE_ROUNDS = 3
SIDE_PX = 1024
MPP = 0.5
MOST_FIT_S, MOST_ANSWER, MOST_SLIDE = 2.0, 1.3, 1.1
IN_BLOCKS = SlideSettings(whole_px=0)
ORDINARY = "tumour"
WANTED = {"plain": "pale tissue", "corrects": "tumour"}
PLACES = [
    {"box": [x, 300, x + 60, 360], "is": is_it}
    for x, is_it in ((250, True), (450, False), (650, True), (850, False))
]


def measure(data: Path) -> list[Figure]:
    slide = data / "wsi" / "CMU-1-Small-Region.svs"
    with TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        root.mkdir()
        with open_image(slide, name=slide.name) as source:
            box = Box(0, 0, source.width, source.height).clipped_to(source.width, source.height)
            whole = source.read_region(box, width=source.width, height=source.height)
        with Session(root, Path(folder) / "memory") as session:
            fits, answers = _answers(session, root, whole)
        with Session(root, Path(folder) / "slides", slides=IN_BLOCKS) as session:
            slides = _slides(session, root, whole)
    figures = [Figure("learning from two boxes each way", max(fits.values()), "s", MOST_FIT_S, fits)]
    for what, limit, taken in (("answer", MOST_ANSWER, answers), ("slide", MOST_SLIDE, slides)):
        figures += [
            Figure(f"{what}, taught target that {kind}", taken[kind] / taken["ordinary"], "times", limit, {})
            for kind in WANTED
        ]
        figures.append(Figure(f"{what}, ordinary", taken["ordinary"], "s", None, {}))
    return figures


def _saved(root: Path, whole: np.ndarray, side_px: int, number: int) -> str:
    """Another part of the slide each time, so that no cache knows it."""
    y, x = (number * 37) % (whole.shape[0] - side_px), (number * 53) % (whole.shape[1] - side_px)
    name = f"{side_px}-{number}.png"
    Image.fromarray(whole[y : y + side_px, x : x + side_px]).save(root / name, compress_level=1)
    return name


def _timed(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def _teach(session: Session, name: str) -> dict[str, str]:
    """Both targets, under names that no word means."""
    for kind, words in WANTED.items():
        session.segment(name, words, mpp=MPP, examples=PLACES, name=f"shown {kind}")
    return {kind: f"shown {kind}" for kind in WANTED}


def _in_turn(
    session: Session, root: Path, whole: np.ndarray, names: dict[str, str], side_px: int, rounds: int
) -> dict[str, float]:
    """Median seconds of the ordinary target and of each that was taught."""
    taken: dict[str, list[float]] = {"ordinary": [], **{kind: [] for kind in names}}
    number = 1
    for round_ in range(rounds + 1):
        for kind, values in taken.items():
            picture, number = _saved(root, whole, side_px, number), number + 1
            ask = {"words": ORDINARY} if kind == "ordinary" else {"name": names[kind]}
            took = _timed(lambda picture=picture, ask=ask: session.segment(picture, mpp=MPP, **ask))
            if round_:  # the first round warms up
                values.append(took)
    return {kind: statistics.median(values) for kind, values in taken.items()}


def _answers(session: Session, root: Path, whole: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    names = _teach(session, _saved(root, whole, SIDE_PX, 0))
    return _fits(session, root), _in_turn(session, root, whole, names, SIDE_PX, ROUNDS)


def _fits(session: Session, root: Path) -> dict[str, float]:
    """Seconds of learning alone, the encoder's look at the picture included."""
    from tissuetalk.models.by_example import Place, Shown, teach
    from tissuetalk.models.segmenter import Prompt

    model, taken = session.model(None), {}
    places = [Place(bool(each["is"]), box=tuple(each["box"])) for each in PLACES]  # type: ignore[arg-type]
    for kind, like in (("plain", None), ("corrects", Prompt(None, "tumour", "tumour", concept="tumor"))):
        with open_image(root / f"{SIDE_PX}-0.png", name="shown.png") as source:
            shown = [Shown(source, MPP, places)]
            taken[kind] = statistics.median(
                _timed(lambda shown=shown, like=like: teach(model, shown, name="shown", like=like))
                for _ in range(3)
            )
    return taken


def _slides(session: Session, root: Path, whole: np.ndarray) -> dict[str, float]:
    names = _teach(session, _saved(root, whole, SIDE_PX, 0))
    return _in_turn(session, root, whole, names, 2048, SLIDE_ROUNDS)
