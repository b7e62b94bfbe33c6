"""A real HTTP server in a process of its own, with whatever limits and options a test wants."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from conftest import Place

COMMAND = str(Path(sys.executable).with_name("tissuetalk"))
_WITH_LIMITS = """
import sys
from pathlib import Path
from tissuetalk.server.http import Where, serve_http
from tissuetalk.server.limits import PeerLimits
from tissuetalk.server.service import Settings
address, root, workspace, limits = sys.argv[1:]
serve_http(Settings((Path(root),), Path(workspace)), Where(address, limits=PeerLimits(**eval(limits))))
"""


@dataclass(frozen=True)
class HttpServer:
    place: Place
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def half_open(self, text: str = "PUT /images HTTP/1.1\r\nHost: x") -> socket.socket:
        """A connection that has sent the beginning of a request."""
        connection = self.connect()
        connection.sendall(text.encode())
        return connection

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1000


@contextmanager
def http_server(
    place: Place,
    *options: str,
    limits: Mapping[str, float] | None = None,
    host: str = "127.0.0.1",
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = (COMMAND,),
) -> Iterator[HttpServer]:
    """Started by the command, or with limits that have no option of their own; must leave no traceback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    where = f"{host}:{port}"
    command: Sequence[str] = [*program, "serve", "--http", where, *options]
    command = [*command, "--root", str(place.root), "--workspace", str(place.workspace)]
    if limits is not None:
        given = repr(dict(limits))
        command = [sys.executable, "-c", _WITH_LIMITS, where, str(place.root), str(place.workspace), given]
    log = place.workspace.with_suffix(".log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env={**os.environ, **(environment or {})})
        try:
            server = HttpServer(place, port, process, log)
            until = time.monotonic() + 200
            while not _is_up(server):
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield server
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(60)
    assert "Traceback" not in log.read_text(), log.read_text()


def _is_up(server: HttpServer) -> bool:
    try:
        return httpx2.get(f"{server.url}/health").status_code == 200
    except httpx2.TransportError:
        return False
