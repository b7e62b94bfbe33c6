"""The one seam to a language model: turns and a schema in, raw text out. Nothing else passes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, create_model

from tissuetalk.models.errors import CancelledError, ModelUnavailableError
from tissuetalk.prompts.target import Assertion, Measure, RelationOp
from tissuetalk.prompts.taxonomy import LABELS, REGIONS, labels_of

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
    picture: bytes = b""
    """PNG beside the text, for a model that sees."""


@dataclass(frozen=True)
class Reply:
    """What came back. ``cut`` is an answer that hit the token limit, ``refused`` one the model declined to give."""

    text: str
    end: Literal["complete", "cut", "refused"] = "complete"


class LanguageModel(Protocol):
    """Anything that answers turns with JSON of a schema, or tries to."""

    name: str
    """For notes and error messages: which model, where."""

    def ask(self, turns: Sequence[Turn], schema: type[BaseModel], cancelled: Cancelled = never) -> Reply:
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

    def ask(self, turns: Sequence[Turn], schema: type[BaseModel], cancelled: Cancelled = never) -> Reply:
        """Give the next answer of the list."""
        raise_if(cancelled)
        self.asked.append(tuple(turns))
        answer = next(self._left, None)
        if answer is None:
            raise ModelUnavailableError("the scripted model has no answer left; give it one answer per ask")
        if isinstance(answer, Reply):
            return answer
        return Reply(answer if isinstance(answer, str) else json.dumps(answer))


MAX_TARGETS = 24
"""Of one ask; a passage that names more is rare."""
_TOKENS_OF_A_TARGET = 70
"""As JSON with a short quote, indented as guided decoders like to."""

Quote = Annotated[str, Field(min_length=1, max_length=400)]
Words = Annotated[str, Field(min_length=1, max_length=80)]


class _ClosedForm(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedRelation(_ClosedForm):
    """A set operation with the object it refers to."""

    op: RelationOp = Field(description="how this object relates to the reference")
    reference: Words = Field(description="label or words of the reference; point or box when op is selected")


class NamedObject(_ClosedForm):
    """One object the text names. The quote comes first: what follows is then bound to it."""

    evidence: Quote = Field(description="the exact words of the text that name the object, copied")
    words: Words = Field(description="the object in a few words of the text")
    label: Annotated[str, Field(max_length=80)] | None = Field(description="a label of the list, or null")
    assertion: Assertion
    relation: NamedRelation | None = None


class ModelAnswer(_ClosedForm):
    """Everything one passage asks for, as any OpenAI-compatible server may send it."""

    kind: Literal["report", "request", "exploratory"]
    organ: Annotated[str, Field(max_length=40)] | None
    targets: Annotated[list[NamedObject], Field(max_length=MAX_TARGETS)]
    measures: Annotated[list[Measure], Field(max_length=9)] = []


def allowed_labels(organ: str | None) -> tuple[str, ...]:
    """The canonical labels a text about this organ can mean; all of them when the organ is not known."""
    known = (*labels_of(organ), *labels_of("unspecified")) if organ else LABELS
    return tuple(str(label) for label in known)


def most_targets(answer_tokens: int) -> int:
    """How many targets fit an answer. Small models like to repeat themselves up to whatever the form allows."""
    return max(1, min(MAX_TARGETS, (answer_tokens - _TOKENS_OF_A_TARGET) // _TOKENS_OF_A_TARGET))


@lru_cache(maxsize=64)
def schema_for(organ: str | None, max_targets: int = MAX_TARGETS) -> type[ModelAnswer]:
    """The form sent to the server: labels and organs are closed lists there, so a guided decoder cannot stray.

    Answers are read with ``ModelAnswer`` itself, because a server without guided decoding may send any string.
    """
    label: Any = Literal[allowed_labels(organ)] | None
    region: Any = Literal[REGIONS[1:]] | None  # 'unspecified' is no organ
    finding: Any = create_model(
        "Finding",
        __base__=NamedObject,
        label=(label, Field(description="a label of the list, or null if none fits")),
        relation=(NamedRelation | None, ...),
    )
    findings: Any = Annotated[list[finding], Field(max_length=max_targets)]
    measures: Any = Annotated[list[Measure], Field(max_length=9)]
    return create_model(
        "Answer",
        __base__=ModelAnswer,
        organ=(region, ...),
        targets=(findings, ...),
        measures=(measures, ...),
    )
