"""Several callers' calls of one network as one: on a GPU several tiles together take little longer than one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tissuetalk.models.errors import InvalidArgumentError

Piece = TypeVar("Piece")
Made = TypeVar("Made")
VARIABLE = "TISSUETALK_TILES_AT_ONCE"
_ON_A_GPU, _MOST = 8, 64


def tiles_at_once(on_a_gpu: bool) -> int:
    """Of all callers together; 1 for each on its own, as on a CPU, whose cores one tile keeps busy.

    Raises InvalidArgumentError where the variable says something else than a small number.
    """
    said = os.environ.get(VARIABLE, "").strip()
    if not said:
        return _ON_A_GPU if on_a_gpu else 1
    if not (said.isascii() and said.isdigit() and 1 <= int(said[:4]) <= _MOST):
        raise InvalidArgumentError(f"{VARIABLE} must be a number from 1 to {_MOST}.")
    return int(said)


def gathered(
    together: Callable[[Sequence[Piece]], Sequence[Made]],
    alike: Callable[[Piece], Hashable],
    *,
    on_a_gpu: bool,
) -> Callable[[Piece], Made]:
    """A ``Gathered``, or each caller on its own."""
    most = tiles_at_once(on_a_gpu)
    return Gathered(together, alike, most) if most > 1 else lambda piece: together([piece])[0]


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Piece, Made]):
    piece: Piece
    made: Future[Made] = field(default_factory=Future)


class Gathered(Generic[Piece, Made]):
    """Called with one piece by any number of threads. Whoever calls while others are at work is taken along with the next.

    together: what is made of each piece, in order; no piece may change what is made of another. alike: pieces go together where
    this is equal. most: at once. First come, first served; nobody waits for company, and no thread is added: one of those who
    wait does the work of all.
    """

    def __init__(
        self,
        together: Callable[[Sequence[Piece]], Sequence[Made]],
        alike: Callable[[Piece], Hashable],
        most: int,
    ) -> None:
        self._together, self._alike, self._most = together, alike, most
        self._waiting: list[_Waiting[Piece, Made]] = []
        self._at_work = False
        self._changed = threading.Condition()

    def __call__(self, piece: Piece) -> Made:
        """Raises what the work on this piece raised."""
        mine = _Waiting[Piece, Made](piece)
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(lambda: mine.made.done() or not self._at_work)
            if mine.made.done():
                return mine.made.result()
            self._at_work = True
        try:
            while not mine.made.done():
                self._work(self._next())
                with self._changed:
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._at_work = False
                self._changed.notify_all()
        return mine.made.result()

    def _next(self) -> list[_Waiting[Piece, Made]]:
        """Whoever has waited longest, and those behind that are alike."""
        with self._changed:
            like = self._alike(self._waiting[0].piece)
            batch = [each for each in self._waiting if self._alike(each.piece) == like][: self._most]
            self._waiting = [each for each in self._waiting if each not in batch]
        return batch

    def _work(self, batch: Sequence[_Waiting[Piece, Made]]) -> None:
        try:
            made = self._together([each.piece for each in batch])
        except BaseException as error:  # noqa: BLE001  # whatever it was belongs to whoever asked
            if len(batch) == 1:
                batch[0].made.set_exception(error)
                return
            for each in batch:  # what is wrong with one, or too much together, is nothing to the others
                self._work([each])
            return
        for each, own in zip(batch, made, strict=True):
            each.made.set_result(own)
