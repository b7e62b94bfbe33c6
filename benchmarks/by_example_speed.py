"""Times in ``python -m benchmarks by_example``: what learning takes, and a taught target beside an ordinary one, in the same minutes.

In seconds of one core. Whole calls of ``segment`` on 1024 x 1024 pixels, and runs over a slide block by block; the two take turns, each time on
pixels that nobody has looked at before. One target is taught plainly, the other corrects what the model answers to its word.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from benchmarks.figure import Figure
from tissuetalk.models.by_example import Place, Shown, teach
from tissuetalk.models.images import open_image
from tissuetalk.models.segmenter import RGB, Prompt
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.session import Session

ROUNDS = 5
SLIDE_ROUNDS = 3
SIDE_PX, SLIDE_PX = 1024, 2048
MPP = 0.5
MOST_FIT_S, MOST_ANSWER, MOST_SLIDE = 2.0, 1.3, 1.1
IN_BLOCKS = SlideSettings(whole_px=0)
ORDINARY = "tumour"
WANTED = {"is plain": "epidermis", "corrects": "tumour"}
"""What is taught, by how. Under these names they are asked for afterwards."""
CORNER = (300, 1900)
"""x, y of the slide's part that is shown: tissue from side to side."""
PLACES = [
    Place(is_it, box=(x, y, x + 60, y + 60))
    for x, y, is_it in ((480, 300, True), (750, 300, False), (480, 700, True), (900, 700, False))
]


def measure(data: Path) -> Iterator[list[Figure]]:
    """Of learning, of answers and of slides, each as soon as it is known."""
    slide = data / "wsi" / "CMU-1-Small-Region.svs"
    with TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        root.mkdir()
        with open_image(slide, name=slide.name) as source:
            whole = source.read_region(source.box, width=source.width, height=source.height)
        with Session(root, Path(folder) / "memory") as session:
            _teach(session, _saved(root, whole, SIDE_PX, 0))
            fits = _fits(session, root)
            yield [Figure("learning from two boxes each way", max(fits.values()), "s", MOST_FIT_S, fits)]
            taken = _in_turn(session, root, whole, SIDE_PX, ROUNDS)
            yield _ratios("answer", taken, MOST_ANSWER)
        with Session(root, Path(folder) / "slides", slides=IN_BLOCKS) as session:
            _teach(session, _saved(root, whole, SIDE_PX, 0))
            taken = _in_turn(session, root, whole, SLIDE_PX, SLIDE_ROUNDS)
            yield _ratios("slide", taken, MOST_SLIDE)


def _ratios(what: str, taken: dict[str, float], limit: float) -> list[Figure]:
    figures = [
        Figure(f"{what}, taught target that {kind}", taken[kind] / taken["ordinary"], "times", limit, {})
        for kind in WANTED
    ]
    return [*figures, Figure(f"{what}, ordinary", taken["ordinary"], "s", None, {})]


def _saved(root: Path, whole: RGB, side_px: int, number: int) -> str:
    """Another part of the slide each time, the first at the corner: no cache knows it."""
    x, y = ((CORNER[at] + number * 37) % (whole.shape[1 - at] - side_px) for at in (0, 1))
    name = f"{side_px}-{number}.png"
    Image.fromarray(whole[y : y + side_px, x : x + side_px]).save(root / name, compress_level=1)
    return name


def _timed(call: Callable[[], Any]) -> float:
    """Seconds of a core, in all threads: what else the machine does counts for nothing."""
    started = time.process_time()
    call()
    return time.process_time() - started


def _teach(session: Session, picture: str) -> None:
    examples = [{"box": list(place.box or ()), "is": place.is_positive} for place in PLACES]
    for words in WANTED.values():
        session.segment(picture, words, mpp=MPP, examples=examples, name=words)


def _in_turn(session: Session, root: Path, whole: RGB, side_px: int, rounds: int) -> dict[str, float]:
    """Median seconds of the ordinary target and of each that was taught."""
    taken: dict[str, list[float]] = {"ordinary": [], **{kind: [] for kind in WANTED}}
    number = 1
    for round_ in range(rounds + 1):
        for kind, values in taken.items():
            picture, number = _saved(root, whole, side_px, number), number + 1
            ask = {"words": ORDINARY} if kind == "ordinary" else {"name": WANTED[kind]}
            took = _timed(lambda picture=picture, ask=ask: session.segment(picture, mpp=MPP, **ask))
            if round_:  # the first round warms up
                values.append(took)
    return {kind: statistics.median(values) for kind, values in taken.items()}


def _fits(session: Session, root: Path) -> dict[str, float]:
    """Seconds of learning alone, the encoder's look at the picture included."""
    model, taken = session.model(None), {}
    for kind, like in (("is plain", None), ("corrects", Prompt(None, "tumour", "tumour", concept="tumor"))):
        with open_image(root / f"{SIDE_PX}-0.png", name="shown.png") as source:
            shown = [Shown(source, MPP, PLACES)]
            taken[kind] = statistics.median(
                _timed(lambda shown=shown, like=like: teach(model, shown, name="shown", like=like))
                for _ in range(3)
            )
    return taken
