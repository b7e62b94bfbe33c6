"""The worker: a warm process of our own that starts a fresh, confined one for every image that is opened.

This is the server's side of ``worker_main``. The process of an image gets the open descriptors and nothing else
(``confinement``), and is ended when it takes too long. Whatever becomes of it, the server goes on.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from tissuetalk.models.errors import (
    BusyError,
    ImageChangedError,
    ImageTooLargeError,
    OutsideRootsError,
    TissuetalkError,
    UnreadableImageError,
)
from tissuetalk.models.images import wire
from tissuetalk.models.images.budget import HELD, PASSING

OPENING_CPU_S, CPU_S_PER_BYTE = 3.0, 20e-9
"""For a header, and for every byte that decoding takes: several times what the slowest decoders need here."""
WALL_S = 60.0
"""For a process that waits for a disk, not for itself."""
_LOOK_AGAIN_S = 0.5
_LONGEST_MESSAGE = 400
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
_ERRORS: dict[str, type[TissuetalkError]] = {
    each.code: each
    for each in (UnreadableImageError, ImageTooLargeError, OutsideRootsError, ImageChangedError)
}

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

    def forget(self) -> None:
        """In a copy of this process: the worker is the other's."""
        self.__init__()  # type: ignore[misc]  # as if nothing had been started

    def _running(self) -> socket.socket:
        if self._control is None:
            ours, theirs = socket.socketpair()
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            here = str(Path(__file__).absolute().parents[3])
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


class Lease:
    """Bytes of the budget that an open image holds."""

    def __init__(self) -> None:
        self._held = 0
        self._lock = Lock()

    def grow_to(self, count: int, name: str) -> None:
        """Hold at least so many in all. Raises ImageTooLargeError or BusyError."""
        HELD.require_possible(count, name)
        with self._lock:
            if count > self._held:
                HELD.take(count - self._held, name)
                self._held = count

    def keep(self, count: int) -> None:
        """Give back all but so many."""
        with self._lock:
            HELD.give(self._held - min(count, self._held))
            self._held = min(count, self._held)

    def end(self) -> None:
        self.keep(0)


class Decoder:
    """The process of one image, and what it is asked."""

    def __init__(self, name: str, about: dict[str, Any], descriptors: list[int]) -> None:
        """about: what it is told. descriptors: of the files it reads, and nothing else."""
        self.name = name
        self._busy = 0
        self._lock = Lock()
        self._front, theirs = socket.socketpair()
        with theirs:
            try:
                self._number = WORKER.open({"name": name, **about}, [theirs.fileno(), *descriptors])
            except BaseException:
                self._front.close()
                raise

    def opened(self, lease: Lease) -> dict[str, Any]:
        """What the image is. Whatever its header asks for is taken from the budget first."""
        allowed_s = OPENING_CPU_S
        while True:
            answer = self.answer(self._front, allowed_s)
            if "needs" not in answer:
                return answer
            needs = int(answer["needs"])
            lease.grow_to(needs, self.name)
            WORKER.ask({"do": "limit", "number": self._number, "bytes": needs + PASSING.total_bytes})
            allowed_s += needs * CPU_S_PER_BYTE
            wire.send(self._front, {})

    def channel(self) -> socket.socket:
        """One more line to it, for one more thread."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                wire.send(self._front, {}, [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise DecoderDiedError from error
        return ours

    def answer(self, channel: socket.socket, allowed_cpu_s: float) -> dict[str, Any]:
        """What comes next on a channel. Raises what it reports, or DecoderDiedError."""
        with self._lock:
            self._busy += 1
        try:
            self._wait(channel, allowed_cpu_s)
        finally:
            with self._lock:
                self._busy -= 1
        channel.settimeout(_LOOK_AGAIN_S)  # what has begun to come is short
        try:
            answer = wire.receive(channel)
        except (OSError, TypeError, ValueError) as error:
            raise DecoderDiedError from error
        finally:
            channel.settimeout(None)
        if answer is None:
            raise DecoderDiedError
        if "error" in answer:
            said = "".join(each for each in str(answer["message"]) if each.isprintable())[:_LONGEST_MESSAGE]
            raise _ERRORS.get(str(answer["error"]), UnreadableImageError)(said)
        return answer

    def _wait(self, channel: socket.socket, allowed_cpu_s: float) -> None:
        """Until something comes; the process is ended when it used its share of the processor, or nothing happens."""
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        started, before = monotonic(), None
        while not poll.poll(_LOOK_AGAIN_S * 1000):
            waited = monotonic() - started
            used = WORKER.ask({"do": "look", "number": self._number}).get("cpu_s")
            used = waited if used is None else used  # where the system does not say
            before = used if before is None else before
            if used - before > allowed_cpu_s * self._busy or waited > WALL_S:
                self.end()
                raise DecoderDiedError

    def stopped(self, when: str) -> UnreadableImageError:
        return UnreadableImageError(
            f"{self.name} is damaged or not what its header says: its decoder had to be stopped when it was {when}; "
            "get a fresh copy or save it as 8-bit RGB"
        )

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._front.close()
        with suppress(DecoderDiedError):
            WORKER.ask({"do": "kill", "number": self._number})
