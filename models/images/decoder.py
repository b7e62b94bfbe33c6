"""The process of one image, as the server sees it: what it is asked, how long it may take, and what it holds of the budget."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any

from tissuetalk.models import wire
from tissuetalk.models.errors import (
    ImageChangedError,
    ImageTooLargeError,
    OutsideRootsError,
    TissuetalkError,
    UnreadableImageError,
)
from tissuetalk.models.images.budget import HELD, PASSING
from tissuetalk.models.worker import WORKER, DecoderDiedError

OPENING_CPU_S, CPU_S_PER_BYTE = 3.0, 20e-9
"""For a header, and for every byte that decoding takes: several times what the slowest decoders need here."""
WALL_S = 60.0
"""For a process that waits for a disk, not for itself."""
_LOOK_AGAIN_S = 0.5
_LONGEST_MESSAGE = 400
_ERRORS: dict[str, type[TissuetalkError]] = {
    each.code: each
    for each in (UnreadableImageError, ImageTooLargeError, OutsideRootsError, ImageChangedError)
}


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
                with self._lock:  # a message and its descriptor are two writes
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
