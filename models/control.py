"""How running work is watched and stopped: one record instead of two callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tissuetalk.models.errors import CancelledError

Progress = Callable[[float, str], None]
"""Called with the share that is done, 0..1, and what is being done."""
Stop = Callable[[], bool]
"""True once somebody asked for the end."""
Size = Callable[[int], None]
"""Told how many full-resolution pixels the work covers before it begins; may raise to have it done elsewhere."""


@dataclass(frozen=True)
class Control:
    """What work of any length is handed; by default nobody watches and nobody stops it.

    patience_s: how long it may wait for what others fetch, then ``busy``; None for as long as that takes.
    """

    progress: Progress = lambda done, what: None
    stop: Stop = lambda: False
    covers: Size = lambda pixels: None
    patience_s: float | None = None

    def report(self, done: float, what: str) -> None:
        """done: share of this work, 0..1."""
        self.progress(done, what)

    def check(self) -> None:
        """A safe point. Raises CancelledError when asked to stop."""
        if self.stop():
            raise CancelledError("stopped as asked; finished parts of a slide are kept: call again to go on.")

    def part(self, start: float, end: float) -> Control:
        """For a piece of this work: its 0..1 is start..end here."""
        return Control(
            lambda done, what: self.progress(start + (end - start) * done, what),
            self.stop,
            patience_s=self.patience_s,
        )
