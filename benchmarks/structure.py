"""How the house is built: the targets that a newcomer feels, counted from the sources and from one traced picture."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

from benchmarks import sources
from benchmarks.figure import Figure

MOST_LINES, MOST_ON_THE_WAY, MOST_TWINS = 36_000, 40, 30
TRACED_PX = 224


def measure() -> list[Figure]:
    """Prints what is behind each figure, then gives the figures."""
    code = sources.read()
    benches = sources.read(("benchmarks",))
    rooms, arrows = sources.rooms(code, "tools")
    said, arrays = sources.array_functions(code)
    once, private = sources.private_used_once(code)
    files, functions = _traced()
    listed = {
        "class names defined twice": (sources.classes_twice(code), 0),
        "import cycles": (sources.cycles(code), 0),
        "imports upward inside an area": (sources.upward(code), 0),
        "pairs of places that share six lines or more": (sources.twins(code), MOST_TWINS),
        "functions over 60 lines": (sources.long_functions(code), 0),
        "files over 450 lines": (sources.long_files(code), 0),
        "dead names": (sources.dead_names(code, benches), 0),
        "files not as ruff formats them": (_unformatted(), 0),
    }
    for name, (items, _) in listed.items():
        print(f"{name}: {len(items)}", *items, sep="\n    ")
    by_area = {area: sum(each.lines for each in code if each.area == area) for area in sources.AREAS}
    return [
        Figure("lines of Python in the four areas", sum(by_area.values()), "lines", MOST_LINES, by_area),
        Figure("lines of Python in benchmarks/", sum(each.lines for each in benches), "lines", None, {}),
        Figure("files one picture passes through", files, "files", MOST_ON_THE_WAY, {"functions": functions}),
        *(Figure(name, len(items), "", most, {}) for name, (items, most) in listed.items()),
        Figure("rooms at the top of tools/", len(rooms), "rooms", None, {"arrows among them": len(arrows)}),
        Figure("private helpers used once", once, "", None, {"private helpers": private}),
        Figure(
            "lines of code for one comment", 100 / sources.comments_per_100_lines(code), "lines", None, {}
        ),
        Figure("array functions without shape or unit", arrays - said, "", None, {"array functions": arrays}),
    ]


def _unformatted() -> list[str]:
    ruff = Path(sys.executable).with_name("ruff")
    checked = subprocess.run(
        [ruff, "format", "--check", *sources.AREAS],
        check=False,
        cwd=sources.PROJECT,
        capture_output=True,
        text=True,
    )
    prefix = "Would reformat: "
    return [line.removeprefix(prefix) for line in checked.stdout.splitlines() if line.startswith(prefix)]


def _traced() -> tuple[int, int]:
    """Files and functions of ours that one small picture passes through, in a process of its own."""
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.structure"],
        cwd=sources.PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    way: dict[str, int] = json.loads(child.stdout)
    for name, functions in way.items():
        print(f"    {functions:4}  {name}")
    return len(way), sum(way.values())


def trace() -> dict[str, int]:
    """File to how many of its functions ran between the request and the answer. Modules and class bodies do not count."""
    from PIL import Image

    from tissuetalk.tools.session import Session

    seen: set[CodeType] = set()

    def started(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with Image.open(sources.PROJECT / "models" / "samples" / "colon.jpg") as picture:
            picture.crop((0, 0, TRACED_PX, TRACED_PX)).save(root / "crop.png")
        session = Session(root, root / "workspace")
        threading.setprofile(started)
        sys.setprofile(started)
        session.segment("crop.png", "nuclei", mpp=0.5)
        sys.setprofile(None)
        threading.setprofile(None)
        session.close()
    ours = Counter(
        path.relative_to(sources.PROJECT)
        for code in seen
        if code.co_flags & inspect.CO_OPTIMIZED
        and not code.co_name.startswith("<")  # no class bodies, no comprehensions
        and (path := Path(os.path.realpath(code.co_filename))).is_relative_to(sources.PROJECT)
    )
    return {str(path): number for path, number in sorted(ours.items()) if path.parts[0] in sources.AREAS}


if __name__ == "__main__":
    print(json.dumps(trace()))
