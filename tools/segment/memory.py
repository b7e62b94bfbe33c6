"""Freed memory back to the system: otherwise a long run keeps the gaps between what its threads allocated."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


@cache
def _trim() -> Any:
    """glibc's; None on systems with another allocator."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):
        return None


def give_back() -> None:
    """Milliseconds; call it after large pieces of work."""
    if (trim := _trim()) is not None:
        trim(0)
