"""The command `tissuetalk view` in a process of its own, and the address it prints."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from http_server import COMMAND

AT_REST = """() => { const { viewport } = tissuetalk.stage.osd; const [now, then] = [viewport.getBounds(true), viewport.getBounds()];
    return ["x", "y", "width", "height"].every((each) => Math.abs(now[each] - then[each]) < 1e-6); }"""
"""Whether the view has come to where it goes."""


@dataclass(frozen=True)
class Viewer:
    """address: as printed, good once. url: of the server."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return self.address.split("/enter")[0]


@contextmanager
def viewer(folder: Path, *what: str | Path) -> Iterator[Viewer]:
    """folder: for its workspace and its log. Must leave no traceback."""
    log, out = folder / "view.log", folder / "view.out"
    command = [COMMAND, "view", *map(str, what), "--no-browser", "--workspace", str(folder / "workspace")]
    with log.open("wb") as stderr, out.open("wb") as stdout:
        process = subprocess.Popen(command, stderr=stderr, stdout=stdout, env=os.environ.copy())
        try:
            until = time.monotonic() + 200
            while not (found := re.search(r"open this once: (\S+)", out.read_text())):
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            while "answers to" not in log.read_text():
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield Viewer(found.group(1), process, log)
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(60)
    assert "Traceback" not in log.read_text(), log.read_text()
