"""The worker: a warm process of our own that starts a fresh, confined one for every image that is opened.

This is the server's side of ``images/worker_main``, and imports next to nothing, so that it can be started first of all.
Whatever becomes of the worker, the server goes on.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from tissuetalk.models import wire
from tissuetalk.models.errors import BusyError

_ENVIRONMENT = (
    *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR"),
    *("PYTHONPATH", "PYTHONHOME"),
)
"""What the worker is told of this process's environment; keys of services are not in it."""
_ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "MALLOC_ARENA_MAX": "4",
}
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[2]); "
    "from tissuetalk.models.images.worker_main import main; main(int(sys.argv[1]))"
)

SUPPORTED = hasattr(socket, "send_fds") and hasattr(os, "fork")
"""Not on Windows, which cannot pass descriptors on: images are read in this process there."""


class DecoderDiedError(Exception):
    """The process of an image is gone, or was ended because it took too long. Never leaves this package."""


class Worker:
    """The warm process. One per process of ours, started when it is first needed or asked for; started again if it dies."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Begin to warm it, without waiting."""
        with self._lock:
            self._running()

    def open(self, request: dict[str, Any], descriptors: Sequence[int]) -> int:
        """The number of a new process for an image. Raises BusyError when the system gives none."""
        number = next(self._numbers)
        for attempt in (1, 2):
            try:
                answer = self.ask({"do": "open", "number": number, **request}, descriptors)
            except DecoderDiedError as error:
                if attempt == 1:  # it was ended from outside; a new one is started
                    continue
                raise BusyError("the process that decodes images does not start; run doctor") from error
            if "failed" in answer:
                raise BusyError(
                    f"the system gives no process to decode an image ({answer['failed']}); ask again"
                )
            return number
        raise AssertionError("unreachable")

    def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        with self._lock:
            try:
                control = self._running()
                wire.send(control, request, descriptors)
                answer = wire.receive(control)
            except OSError as error:
                self._end()
                raise DecoderDiedError from error
            if answer is None:
                self._end()
                raise DecoderDiedError
            return answer

    def stop(self) -> None:
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """Of the warm process, while there is one."""
        return None if self._process is None else self._process.pid

    def forget(self) -> None:
        """In a copy of this process: the worker is the other's."""
        self.__init__()  # type: ignore[misc]  # as if nothing had been started

    def _running(self) -> socket.socket:
        if self._control is None:
            ours, theirs = socket.socketpair()
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            here = str(Path(__file__).absolute().parents[2])
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), here],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**environment, **_ONE_THREAD},
                    start_new_session=True,  # Ctrl-C is the server's to answer
                )
            self._control = ours
        return self._control

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:  # it ends when nobody speaks to it
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control = self._process = None


WORKER = Worker()
atexit.register(WORKER.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKER.forget)


def start() -> None:
    """Begin to warm the worker, without waiting for it."""
    if SUPPORTED:
        WORKER.start()
