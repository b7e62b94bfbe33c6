"""The allocator and the collector of this process: what is kept of finished work, and what goes back to the system.

Of glibc's allocator; with others, and on other systems, nothing of it happens.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time

_COLLECT_EVERY = 10_000
"""Objects that came and stayed between two rounds of Python's collector; 700 unless said."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX, _ARENAS = -1, -4, -8, 2
_KEPT_BYTES = 1 << 30
_given_back_at = 0.0


def few_arenas() -> None:
    """Before threads begin: each thread would hold on to the most it ever needed in one of its own."""
    if hasattr(libc := _libc(), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def keep_memory() -> None:
    """For a process that does one thing, before threads begin: the maps of one tile, tens of megabytes each, lie where those of the
    last one lay, and are not fetched from the system page by page. What is freed goes back when somebody trims."""
    if hasattr(libc := _libc(), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def collect_rarely() -> None:
    """Once everything is imported: a message of a million lists would else wait for 2,800 rounds of Python's collector."""
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)


def give_back(at_most_every_s: float = 0.0) -> None:
    """Freed memory to the system, after large pieces of work: otherwise a long run keeps the gaps between what its threads had.

    It takes milliseconds. at_most_every_s: after small ones, how long the last time must be ago.
    """
    global _given_back_at
    if time.monotonic() - _given_back_at >= at_most_every_s and hasattr(libc := _libc(), "malloc_trim"):
        _given_back_at = time.monotonic()
        libc.malloc_trim(0)


def _libc() -> object:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
