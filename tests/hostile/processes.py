"""Memory of a process and its children, exact where the system keeps a high-water mark; and how busy the machine is."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

_PROC = Path("/proc")


def family_of(pid: int) -> list[int]:
    """The process and all below it."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        try:
            for task in (_PROC / str(one) / "task").iterdir():
                left += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it ended meanwhile
    return found


def _kib(pid: int, what: str) -> int:
    try:
        text = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(what)), 0)


def _wanting_a_core() -> int:
    """Threads of the whole machine, besides the one that asks."""
    try:
        return int((_PROC / "loadavg").read_text().split()[3].split("/")[0]) - 1
    except OSError:
        return 0


def kill_family(pid: int) -> None:
    for one in family_of(pid):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Meter:
    """Peak of the resident memory of a process tree, and the machine's load, since ``reset``; ends the tree beyond ``most_mb``.

    Each process's own high-water mark counts, and what sampling saw of those that ended meanwhile.
    """

    def __init__(self, pid: int, most_mb: float) -> None:
        self.pid, self.most_mb = pid, most_mb
        self.burst = False
        self._sampled = 0.0
        self._wanting: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def reset(self) -> None:
        self._sampled, self._wanting = 0.0, []
        for pid in family_of(self.pid):
            try:
                (_PROC / str(pid) / "clear_refs").write_text("5")  # the high-water mark starts anew
            except OSError:
                continue

    def peak_mb(self) -> float:
        return max(self._sampled, sum(_kib(pid, "VmHWM:") for pid in family_of(self.pid)) / 1024)

    def load(self) -> float:
        """How many wanted a core, per core and at least 1: what the system says of the last minute, or what was seen here."""
        wanting = max(os.getloadavg()[0], sum(self._wanting) / max(1, len(self._wanting)))
        return max(1.0, wanting / (os.cpu_count() or 1))

    def close(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            now = sum(_kib(pid, "VmRSS:") for pid in family_of(self.pid)) / 1024
            self._sampled = max(self._sampled, now)
            self._wanting.append(_wanting_a_core())
            if now > self.most_mb:
                self.burst = True
                kill_family(self.pid)
                time.sleep(0.2)
