"""The closed form of an answer: a language model can name targets and nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from tissuetalk.prompts.target import Assertion, Measure, RelationOp
from tissuetalk.prompts.taxonomy import LABELS, REGIONS, labels_of

MAX_TARGETS = 24
"""Of one ask; a passage that names more is rare."""
_TOKENS_OF_A_TARGET = 70
"""As JSON with a short quote, indented as guided decoders like to."""

Quote = Annotated[str, Field(min_length=1, max_length=400)]
Words = Annotated[str, Field(min_length=1, max_length=80)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedRelation(_Closed):
    """A set operation with the object it refers to."""

    op: RelationOp = Field(description="how this object relates to the reference")
    reference: Words = Field(description="label or words of the reference; point or box when op is selected")


class Finding(_Closed):
    """One object the text names. The quote comes first: what follows is then bound to it."""

    evidence: Quote = Field(description="the exact words of the text that name the object, copied")
    words: Words = Field(description="the object in a few words of the text")
    label: Annotated[str, Field(max_length=80)] | None = Field(description="a label of the list, or null")
    assertion: Assertion
    relation: NamedRelation | None = None


class Answer(_Closed):
    """Everything one passage asks for, as any OpenAI-compatible server may send it."""

    kind: Literal["report", "request", "exploratory"]
    organ: Annotated[str, Field(max_length=40)] | None
    targets: Annotated[list[Finding], Field(max_length=MAX_TARGETS)]
    measures: Annotated[list[Measure], Field(max_length=9)] = []


def allowed_labels(organ: str | None) -> tuple[str, ...]:
    """The canonical labels a text about this organ can mean; all of them when the organ is not known."""
    known = (*labels_of(organ), *labels_of("unspecified")) if organ else LABELS
    return tuple(str(label) for label in known)


def most_targets(answer_tokens: int) -> int:
    """How many targets fit an answer. Small models like to repeat themselves up to whatever the form allows."""
    return max(1, min(MAX_TARGETS, (answer_tokens - _TOKENS_OF_A_TARGET) // _TOKENS_OF_A_TARGET))


@lru_cache(maxsize=64)
def schema_for(organ: str | None, max_targets: int = MAX_TARGETS) -> type[Answer]:
    """The form sent to the server: labels and organs are closed lists there, so a guided decoder cannot stray.

    Answers are read with ``Answer`` itself, because a server without guided decoding may send any string.
    """
    label: Any = Literal[allowed_labels(organ)] | None
    region: Any = Literal[REGIONS[1:]] | None  # 'unspecified' is no organ
    finding: Any = create_model(
        "Finding",
        __base__=Finding,
        label=(label, Field(description="a label of the list, or null if none fits")),
        relation=(NamedRelation | None, ...),
    )
    findings: Any = Annotated[list[finding], Field(max_length=max_targets)]
    measures: Any = Annotated[list[Measure], Field(max_length=9)]
    return create_model(
        "Answer", __base__=Answer, organ=(region, ...), targets=(findings, ...), measures=(measures, ...)
    )
