"""What the fault tests have killed: a process that segments, saves, exports, uploads, deletes and explains until it is: ROOT KILLS SEED.

Every line it prints is a deed that is done. Each is a fork of a process that has everything imported.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from drawn import disc_image

from tissuetalk.models import worker
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage import manifest, verify
from tissuetalk.tools.storage.owners import partials

NUCLEI = {"targets": [{"words": "nuclei"}], "mpp": 0.5, "model": "classical-nuclei"}
IN_BLOCKS = SlideSettings(whole_px=0, tile_px=256, window_px=512)
MOST_KEPT = 6


class Deeds:
    """One process that does one kind of deed again and again, so that a kill at any moment falls into it; told line by line."""

    def __init__(self, root: Path, seed: int, told: IO[str]) -> None:
        self.root, self.told = root, told
        self.chance = random.Random(seed)

    def go_on(self, kind: str) -> None:
        """Until the process is killed."""
        slides = IN_BLOCKS if kind == "slide" or self.chance.random() < 0.3 else None
        with Session(self.root, self.root.parent / "ws", slides=slides) as session:
            while len(session.workspace.results()) < 2:
                self._tell(self.segment(session))
            self._tell("ready")
            while True:
                self._tell(KINDS[kind](self, session))

    def _tell(self, what: str) -> None:
        if what:
            self.told.write(f"{what}\n")
            self.told.flush()

    def _one(self, session: Session) -> str:
        return self.chance.choice(session.workspace.results()).result_id

    def segment(self, session: Session) -> str:
        if len(kept := session.workspace.results()) >= MOST_KEPT:
            session.workspace.delete(kept[-1].result_id)
            self._tell(f"delete {kept[-1].result_id}")
        return f"segment {session.segment('discs.png', **NUCLEI).result.result_id}"

    def save(self, session: Session) -> str:
        return self._save(session, "folder")

    def export(self, session: Session) -> str:
        return self._save(session, self.chance.choice(["csv", "geojson", "parquet", "ome-zarr"]))

    def _save(self, session: Session, format: str) -> str:
        name = f"saved-{self.chance.getrandbits(64):x}"
        session.library("save", result_id=self._one(session), format=format, folder=name)
        return f"save {name}"

    def upload(self, session: Session) -> str:
        picture = disc_image(self.root.parent / f"up-{os.getpid()}.png", self.chance.randrange(1, 30))
        return f"upload {session.upload(picture.read_bytes())['image_id']}"

    def delete(self, session: Session) -> str:
        """One result is copied and then deleted."""
        with (
            session.workspace.reading(self._one(session)) as stored,
            session.workspace.new_result(image_id=stored.image_id, kind="segment") as draft,
        ):
            shutil.copytree(stored.folder, draft.folder, dirs_exist_ok=True)
        self._tell(f"segment {draft.result_id}")
        session.workspace.delete(draft.result_id)
        return f"delete {draft.result_id}"

    def teach(self, session: Session) -> str:
        """One of two names is taught anew, or forgotten and taught."""
        name = self.chance.choice(["discs", "spots"])
        if self.chance.random() < 0.3 and any(
            each.learned.name == name for each in session.workspace.targets.listed()
        ):
            session.library("forget", name=name)
        examples = [{"is": True, "point": [30, 30]}, {"is": False, "box": [44, 20, 56, 40]}]
        found = session.segment("discs.png", name=name, examples=examples, **{**NUCLEI, "targets": None})
        self._tell(f"segment {found.result.result_id}")
        return f"teach {name}"

    def add(self, session: Session) -> str:
        """Files that are added to a finished result."""
        session.explain(self._one(session))
        return ""


KINDS: dict[str, Callable[[Deeds, Session], str]] = {
    "segment": Deeds.segment,
    "slide": Deeds.segment,
    "save": Deeds.save,
    "export": Deeds.export,
    "upload": Deeds.upload,
    "delete": Deeds.delete,
    "explain": Deeds.add,
    "teach": Deeds.teach,
}


def kill_one(root: Path, kind: str, seed: int, after_s: float) -> list[str]:
    """Have a process work and kill it. Returns what it said was done."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as told:
            try:
                Deeds(root, seed, told).go_on(kind)
            except BaseException as error:  # noqa: BLE001  # whatever it was must fail the test in the parent
                told.write(f"failed {error!r}\n")
                told.flush()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as said:
        lines = []
        while (line := said.readline().strip()) not in ("ready", "") and not line.startswith("failed"):
            lines.append(line)
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return [*lines, line, *said.read().splitlines()]


def faults_of(root: Path, kept: set[str], told: list[str]) -> list[str]:
    """What a kill has broken. kept: results that were told and not deleted before; brought up to date."""
    faults = [line for line in told if line.startswith("failed")]
    deeds = [line.split(" ", 1) for line in told if " " in line]
    kept |= {name for deed, name in deeds if deed == "segment"}
    kept -= {name for deed, name in deeds if deed == "delete"}
    with Session(root, root.parent / "ws") as session:
        present = {stored.result_id for stored in session.workspace.results(1000)}
        # of one that was not told, a whole result, or nothing, is right; one deletion may have been under way
        if len(lost := kept - present) > 1:
            faults.append(f"lost: {lost}")
        kept &= present
        for kept_target in session.workspace.targets.listed():
            if kept_target.learned is None:
                faults.append(f"taught target {kept_target.path.name}: {kept_target.problem}")
        for deed, name in deeds:
            if deed == "upload":
                session.open(f"image://{name}").close()
            if deed == "save" and not any((root / name).iterdir()):
                faults.append(f"{name} is empty")
        faults += [f"half-written: {path}" for path in partials(root)]
        for place in root.glob("saved-*"):
            faults += [f"half-written: {path}" for path in partials(place)]
            if not any(path.is_file() for path in place.rglob("*")):
                faults.append(f"nothing in {place.name}")
            faults += [f"{place}: {problem}" for problem in _unlike(place)]
            shutil.rmtree(place)
    for part in verify.check(root.parent / "ws"):
        faults += [f"{part.name}: {each}" for each in (*part.problems, *part.waits)]
    return faults


def _unlike(place: Path) -> list[str]:
    """A saved result holds a record and what it names; an export is whole as it lies there."""
    is_result = any((place / name).exists() for name in ("masks", "request.json", "overlay.png"))
    return manifest.problems(place) if is_result else []


def main(root: Path, kills: int, seed: int) -> int:
    """Kill so many processes at random moments; print what that broke. Returns how many faults there were."""
    worker.SUPPORTED = (
        False  # decoding is not what is killed here; a worker for each process would take most of the time
    )
    disc_image(root / "discs.png", 9)
    chance, kept, count = random.Random(seed), set[str](), 0
    with Session(root, root.parent / "warm") as session:  # imports, once for all forks
        session.segment("discs.png", **NUCLEI)
    deeds = 0
    for number in range(kills):
        kind = sorted(KINDS)[number % len(KINDS)]
        told = kill_one(root, kind, chance.getrandbits(32), chance.uniform(0, 0.4))
        deeds += len(told) - 1
        for fault in faults_of(root, kept, told):
            count += 1
            print(f"kill {number} in {kind}: {fault}", flush=True)
    print(f"{kills} kills among {deeds} deeds: {count} faults", flush=True)
    return count


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])) else 0)
