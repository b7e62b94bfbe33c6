"""Images and words in; masks, numbers and evidence out. ``from tissuetalk.tools import Session`` is the Python API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session as Session

__all__ = ["Session"]


def __getattr__(name: str) -> Any:
    """The public name is imported when it is asked for, so that importing one room imports no other."""
    if name != "Session":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tissuetalk.tools.session import Session

    return Session
