"""What a call of segment asks for: as it was passed, and as it was understood.

Only the second is kept: a report may hold a patient's name, so its text is never written down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from tissuetalk.prompts.target import Request
from tissuetalk.tools.answers.results import TargetArgument
from tissuetalk.tools.segment import targets
from tissuetalk.tools.workbench import Workbench


@dataclass(frozen=True)
class Asked:
    """The arguments of ``segment``, named as in the product's contract."""

    image: str
    words: str | None = None
    targets: Sequence[TargetArgument] = ()
    points: Sequence[Sequence[float]] = ()
    boxes: Sequence[Sequence[float]] = ()
    region: Sequence[float] | None = None
    organ: str | None = None
    mpp: float | None = None
    model: str | None = None


@dataclass(frozen=True)
class Order:
    """What to look for and where; enough to do it again, without the text it came from."""

    image: str
    request: Request
    region: Sequence[float] | None = None
    mpp: float | None = None
    model: str | None = None

    def as_json(self) -> dict[str, Any]:
        stored: dict[str, Any] = _ORDER.dump_python(self, mode="json")
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Order:
        return _ORDER.validate_python(dict(stored))


_ORDER = TypeAdapter(Order)


def understand(bench: Workbench, asked: Asked) -> Order:
    """Words to targets. Raises InvalidArgumentError, UnknownLabelError, NoTargetInWordsError and the engine's errors."""
    request = targets.understand(
        bench.reader,
        words=asked.words,
        targets=asked.targets,
        points=asked.points,
        boxes=asked.boxes,
        organ=asked.organ,
    )
    return Order(asked.image, request, asked.region, asked.mpp, asked.model)
