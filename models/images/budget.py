"""How many bytes decoding may take, over all callers of this process together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from threading import Condition
from time import monotonic

from tissuetalk.models.errors import BusyError, ImageTooLargeError

MIB = 2**20
Grant = Callable[[int], None]
"""Called with the bytes a header asks for, before anything is decoded; raises ImageTooLargeError or BusyError."""


class Budget:
    """Bytes that are taken and given back. Who finds too few waits his turn, up to ``wait_s``."""

    def __init__(self, total_bytes: int, wait_s: float) -> None:
        self.total_bytes = total_bytes
        self._wait_s = wait_s
        self._free = total_bytes
        self._turn = Condition()  # its lock is re-entrant: an array's finalizer may run inside
        self._waiting: deque[object] = deque()

    def require_possible(self, count: int, name: str) -> None:
        """Raise ImageTooLargeError for more than there ever is."""
        if count > self.total_bytes:
            raise ImageTooLargeError(
                f"{name} takes {count // MIB} MiB to decode; the limit is {self.total_bytes // MIB} MiB: "
                "crop it, or save it as a tiled pyramidal TIFF of 8-bit RGB"
            )

    def take(self, count: int, name: str) -> None:
        """Raise ImageTooLargeError for more than there ever is, BusyError when it is not free in time."""
        self.require_possible(count, name)
        me = object()
        with self._turn:
            self._waiting.append(me)
            try:
                until = monotonic() + self._wait_s
                while self._waiting[0] is not me or self._free < count:
                    left = until - monotonic()
                    if left <= 0:
                        raise BusyError(f"other images take the memory {name} needs; ask again in a moment")
                    self._turn.wait(left)
                self._free -= count
            finally:
                self._waiting.remove(me)
                self._turn.notify_all()

    def give(self, count: int) -> None:
        with self._turn:
            self._free += count
            self._turn.notify_all()

    @property
    def free_bytes(self) -> int:
        return self._free


def _mebibytes(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable, "")
    return (int(text) if text.isdigit() and int(text) > 0 else otherwise) * MIB


HELD = Budget(_mebibytes("TISSUETALK_DECODING_MB", 768), wait_s=5.0)
"""For pictures that are open, and for what slides keep of themselves. Opening waits briefly and says so."""
PASSING = Budget(_mebibytes("TISSUETALK_READING_MB", 256), wait_s=60.0)
"""For regions that are being read: each is given back in a moment, so work under way waits."""
