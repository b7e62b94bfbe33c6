"""The one seam to a language model: turns and a schema in, raw text out. Nothing else passes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tissuetalk.models.errors import CancelledError, ModelUnavailableError
from tissuetalk.prompts.llm.answer import Answer

Cancelled = Callable[[], bool]
"""Polled while the model works; True stops the work and raises CancelledError."""


def never() -> bool:
    """The answer of a caller that does not cancel."""
    return False


def raise_if(cancelled: Cancelled) -> None:
    """Stop here when the caller no longer wants the answer."""
    if cancelled():
        raise CancelledError("reading the text was cancelled; send the same request again to start over")


@dataclass(frozen=True)
class Turn:
    """One message of the conversation with the model."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True)
class Reply:
    """What came back. ``cut`` is an answer that hit the token limit, ``refused`` one the model declined to give."""

    text: str
    end: Literal["complete", "cut", "refused"] = "complete"


class LanguageModel(Protocol):
    """Anything that answers turns with JSON of a schema, or tries to."""

    name: str
    """For notes and error messages: which model, where."""

    def ask(self, turns: Sequence[Turn], schema: type[Answer], cancelled: Cancelled = never) -> Reply:
        """Raises ModelUnavailableError, BusyError or CancelledError; an answer of the wrong form is a Reply."""
        ...


@dataclass
class ScriptedModel:
    """Answers from a fixed list and remembers what it was asked. For tests and offline demos.

    answers: text as a model would send it, or a mapping that is sent as JSON.
    asked: the turns of every ask, in order.
    """

    answers: Iterable[str | Mapping[str, Any] | Reply]
    name: str = "scripted"
    asked: list[tuple[Turn, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = iter(self.answers)

    def ask(self, turns: Sequence[Turn], schema: type[Answer], cancelled: Cancelled = never) -> Reply:
        """Give the next answer of the list."""
        raise_if(cancelled)
        self.asked.append(tuple(turns))
        answer = next(self._left, None)
        if answer is None:
            raise ModelUnavailableError("the scripted model has no answer left; give it one answer per ask")
        if isinstance(answer, Reply):
            return answer
        return Reply(answer if isinstance(answer, str) else json.dumps(answer))
