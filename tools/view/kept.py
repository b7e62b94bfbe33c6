"""Things that are long in opening, kept open for a while by whoever asks for them again and again."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
_ENTRY_BYTES = 300


@dataclass
class _Entry(Generic[T]):
    """opening: held while it is opened, so that it is opened once."""

    opening: threading.Lock = field(default_factory=threading.Lock)
    value: T | None = None
    users: int = 0
    last_used: float = 0.0


class Kept(Generic[T]):
    """At most ``most`` idle ones, none for longer than ``idle_s``; one in use is never closed."""

    def __init__(self, most: int, idle_s: float, close: Callable[[T], object]) -> None:
        self._most, self._idle_s, self._close = most, idle_s, close
        self._entries: dict[Hashable, _Entry[T]] = {}
        self._guard = threading.Lock()
        self._timer: threading.Timer | None = None

    @contextmanager
    def held(self, key: Hashable, opened: Callable[[], T]) -> Iterator[T]:
        """The one of this key, opened now or earlier. Raises what ``opened`` raises."""
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        try:
            with entry.opening:
                if entry.value is None:
                    entry.value = opened()
            yield entry.value
        finally:
            with self._guard:
                entry.users -= 1
                entry.last_used = time.monotonic()
            self._close_idle()

    def forget(self, key: Hashable) -> None:
        """The next one asks anew; whoever uses the old one goes on with it."""
        with self._guard:
            entry = self._entries.get(key)
            if entry is not None and not entry.users:
                del self._entries[key]
                if entry.value is not None:
                    self._close(entry.value)

    def close(self) -> None:
        """All that are idle."""
        self._close_idle(most=0)

    def _close_idle(self, most: int | None = None) -> None:
        now = time.monotonic()
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            idle = sorted((entry.last_used, key) for key, entry in self._entries.items() if not entry.users)
            keep = self._most if most is None else most
            gone = [key for at, key in idle[: max(0, len(idle) - keep)]]
            gone += [key for at, key in idle if now - at > self._idle_s and key not in gone]
            for key in gone:
                entry = self._entries.pop(key)
                if entry.value is not None:
                    self._close(entry.value)
            if len(idle) > len(gone):
                self._timer = threading.Timer(self._idle_s + 0.1, self._close_idle)
                self._timer.daemon = True
                self._timer.start()


class Made:
    """The latest things that were made, in at most so many bytes; None counts as nothing."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: OrderedDict[Hashable, bytes | None] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes | None]) -> bytes | None:
        """What was made under this key, or is made now; two who ask at once may both make it."""
        with self._guard:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._guard:
            if key not in self._kept:
                self._bytes += len(made or b"") + _ENTRY_BYTES
            self._kept[key] = made
            while self._bytes > self._most_bytes:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= len(dropped or b"") + _ENTRY_BYTES
        return made
