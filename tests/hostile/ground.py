"""The folders around a server, what may be touched in them, and what a case says to the server."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hostile.case import NUCLEI, SECRET_SIZE, Answer
from hostile.server import COMMAND, Server, StdioServer, answer_of, code_of, environment

MOST_FILLED = 1000
"""Longer lists hold no placeholders; looking through a million would be counted as the server's time."""
CANARY = "canary-7d1f-not-to-be-read"


class Ground:
    """root: served. outside: beside it, holds a picture and a text nobody may see. here: of the case that runs.

    sent: what its calls said, which may come back to whoever said it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.outside, self.workspace = folder / "images", folder / "outside", folder / "workspace"
        for path in (self.root, self.outside):
            path.mkdir(parents=True)
        self.here = self.root
        self.sent = ""
        self.server: Server | None = None
        self._results: dict[int, str] = {}
        Image.fromarray(np.full((*SECRET_SIZE[::-1], 3), 200, np.uint8)).save(self.outside / "secret.png")
        (self.outside / "secret.txt").write_text(CANARY)
        (self.outside / "folder").mkdir()
        self.disc(self.root / "good.png")

    @staticmethod
    def disc(path: Path) -> None:
        """A small picture with nuclei in it."""
        from drawn import disc_image

        disc_image(path, 3)

    def a_result(self) -> str:
        """A result to ask about, made once for each server."""
        assert self.server is not None
        pid = self.server.process.pid
        if pid not in self._results:
            self._results[pid] = str(self.tool("segment", image="good.png", **NUCLEI).data.get("result_id"))
        return self._results[pid]

    def begin(self, number: int) -> None:
        self.here = self.root / f"case{number}"
        self.here.mkdir()
        self.sent = ""

    def end(self) -> None:
        for path in self.here.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(self.here, ignore_errors=True)
        self.here = self.root

    def relative(self, name: str) -> str:
        return f"{self.here.name}/{name}"

    def filled(self, value: Any) -> Any:
        """Placeholders in the texts of arguments."""
        if isinstance(value, str):
            known = {"{here}": self.here.name, "{outside}": str(self.outside), "{root}": str(self.root)}
            for name, content in known.items():
                value = value.replace(name, content)
            return value
        if isinstance(value, dict):
            return {key: self.filled(each) for key, each in value.items()}
        if not isinstance(value, list) or len(value) > MOST_FILLED:
            return value
        return [self.filled(each) for each in value]

    def tool(self, name: str, /, **arguments: Any) -> Answer:
        self.sent += json.dumps(arguments)
        return answer_of(self.call("tools/call", {"name": name, "arguments": arguments}))

    def call(self, method: str, params: Any) -> dict[str, Any]:
        assert self.server is not None
        return self.server.request(method, params)

    def resource(self, uri: str) -> Answer:
        return answer_of(self.call("resources/read", {"uri": uri}))

    def look_at(self, image: str, region: list[float], seen: Answer) -> Answer:
        """A region in pixels, or in shares of the image that ``seen`` tells the size of."""
        width, height = seen.data["image"]["width"], seen.data["image"]["height"]
        if max(region) < 1:
            x, y = int(region[0] * width), int(region[1] * height)
            region = [x, y, x + 300, y + 300]
        cut = [region[0], region[1], min(region[2], width), min(region[3], height)]
        again = self.tool("view", image=image, region=cut)
        return again if again.code != "ok" else seen

    def command(self, *arguments: str, limit_s: float = 120.0) -> Answer:
        """A command of the command line in the case's folder: ``exit 2 invalid_argument`` and so on."""
        try:
            done = subprocess.run(
                [COMMAND, *self.filled(list(arguments))],
                capture_output=True,
                check=False,
                cwd=self.here,
                env=environment(self.folder),
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            return Answer("timeout")
        said = done.stderr.decode("utf-8", "replace").replace(
            str(self.folder), ""
        )  # the user's own path may show
        if done.returncode == 0:
            return Answer("ok", said)
        last = said.strip().splitlines()[-1] if said.strip() else ""
        return Answer(code_of(last.removeprefix("tissuetalk: ")), said)

    def lines(self, *lines: bytes, wait_s: float = 5.0) -> list[dict[str, Any]]:
        """What a stdio server says to raw lines, those answers that belong to no question of ours."""
        assert isinstance(self.server, StdioServer)
        while not self.server.others.empty():
            self.server.others.get()
        for line in lines:
            self.server.send(line)
        said = []
        while True:
            try:
                said.append(self.server.others.get(timeout=wait_s))
                wait_s = 0.2
            except queue.Empty:
                return said

    def files(self) -> dict[str, tuple[int, int]]:
        """Everything outside the workspace, the log and the temporary folder, with size and inode."""
        return {
            str(path): (path.lstat().st_size if path.is_file() else 0, path.lstat().st_ino)
            for top in (self.root, self.outside, self.folder / "current")
            if top.exists()
            for path in top.rglob("*")
        }

    def left_behind(self) -> list[str]:
        """What a server that has ended still has in the temporary folder."""
        return sorted(path.name for path in (self.folder / "tmp").glob("*"))
