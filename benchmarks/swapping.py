"""Folders swapped for links while results are saved and slides are read: how many tries end outside the root."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figure import Figure
from tests.drawn_mirax import draw_mirax
from tissuetalk.models.errors import TissuetalkError
from tissuetalk.models.images import Box
from tissuetalk.models.writing import copy_folder, write_whole
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.roots import Roots

SECONDS = 60.0
LEAST_TRIES, LEAST_WRITES = 20, 201
"""Where the machine is slow, the race goes on until it has been run."""


def measure() -> list[Figure]:
    figures = []
    for kind in ("geojson", "folder"):
        with tempfile.TemporaryDirectory() as folder:
            figures.append(_figure(f"save of a result as {kind}", *saved(Path(folder), kind, SECONDS)))
    with tempfile.TemporaryDirectory() as folder:
        figures.append(_figure("files and folders alone", *written(Path(folder), SECONDS)))
    with tempfile.TemporaryDirectory() as folder:
        figures.append(_figure("views of a slide of several files", *viewed(Path(folder), SECONDS)))
    return figures


def _figure(name: str, escapes: int, tries: int, done: int) -> Figure:
    return Figure(f"escapes, {name}", escapes, "", 0, {"tries": tries, "of them written": done})


@contextmanager
def swapping(folder: Path, outside: Path) -> Iterator[None]:
    """A thread that puts a link to ``outside`` in the place of a folder and takes it away again, as fast as it can."""
    stopped = threading.Event()
    away = folder.with_name(f"{folder.name}-away")
    numbers = count()

    def put(old: Path) -> None:
        """Give something the folder's name; what was made under that name meanwhile goes out of the way."""
        while True:
            try:
                old.rename(folder)
                return
            except OSError:
                with suppress(FileNotFoundError):  # whoever made it was faster
                    folder.rename(folder.with_name(f"made-{next(numbers)}"))

    def swap() -> None:
        link = folder.with_name("link")
        while not stopped.is_set():
            folder.rename(away)
            link.symlink_to(outside)
            put(link)
            time.sleep(0)  # somebody else's turn while the link is there
            folder.unlink()
            put(away)
            time.sleep(0)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def attempts(act: Callable[[int], object], seconds: float, least_tries: int = LEAST_TRIES) -> tuple[int, int]:
    """How often something was tried, in that time or longer, and how often it was done; a refusal by name is as good."""
    tries = done = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or tries < least_tries or not done:
        tries += 1
        try:
            act(tries)
        except (OSError, TissuetalkError):
            continue
        done += 1
    return tries, done


def places(folder: Path) -> tuple[Path, Path, Path]:
    """A root, a folder in it, and a folder outside it."""
    root, outside = Path(os.path.realpath(folder)) / "root", folder / "outside"
    (root / "kept").mkdir(parents=True)
    outside.mkdir()
    return root, root / "kept", outside


def escaped(outside: Path) -> int:
    return sum(1 for _ in outside.rglob("*"))


def saved(folder: Path, kind: str, seconds: float) -> tuple[int, int, int]:
    """Escapes, tries and successes of saving one small result into a folder that is swapped."""
    root, kept, outside = places(folder)
    Image.fromarray(np.full((64, 64, 3), 235, np.uint8)).save(root / "plain.png")
    with Session(root, folder / "workspace") as session:
        result_id = session.segment("plain.png", "nuclei", model="classical-nuclei", mpp=0.5).result.result_id

        def save(number: int) -> None:
            session.library("save", result_id=result_id, format=kind, folder=f"kept/{number}")

        with swapping(kept, outside):
            tries, done = attempts(save, seconds)
    return escaped(outside), tries, done


def written(folder: Path, seconds: float) -> tuple[int, int, int]:
    """The same of a file and a folder, without a result around them."""
    root, kept, outside = places(folder)
    (folder / "made" / "deep").mkdir(parents=True)
    (folder / "made" / "deep" / "file").write_text("content")

    def write(number: int) -> None:
        if number % 2:
            write_whole(kept / f"{number}.json", "content", within=root)
        else:
            copy_folder(folder / "made", kept / "below" / str(number), within=root)

    with swapping(kept, outside):
        tries, done = attempts(write, seconds, LEAST_WRITES)
    return escaped(outside), tries, done


def viewed(folder: Path, seconds: float) -> tuple[int, int, int]:
    """Views of a slide whose data folder is swapped for a link to another's: how many show the other, tries, and views."""
    root, kept, outside = places(folder)
    kept.rmdir()
    draw_mirax(root / "kept.mrxs", ((200, 80, 160),))
    draw_mirax(outside / "kept.mrxs", ((40, 200, 60),))
    roots, shown = Roots([root]), []

    def view(number: int) -> None:
        with roots.open("kept.mrxs") as slide:
            shown.append(int(slide.read_region(Box(0, 0, 8, 8), width=8, height=8)[4, 4, 1]) > 150)

    with swapping(kept, outside / "kept"):
        tries, done = attempts(view, seconds)
    return sum(shown), tries, done
