"""What words turn into: targets, and everything that was said about them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

Assertion = Literal["present", "absent", "uncertain", "historical"]
ReaderName = Literal["rules", "llm", "hybrid"]
"""Who reads the words; see prompts/readers.py."""
RelationOp = Literal["inside", "outside", "union", "intersection", "selected"]
Measure = Literal[
    "count", "density", "area", "area_fraction", "size", "shape", "intensity", "distance", "ratio"
]


@dataclass(frozen=True)
class Span:
    """Part of a text: ``text[start:end]``."""

    start: int
    end: int


@dataclass(frozen=True)
class Relation:
    """A set operation whose subject is the target that carries it.

    reference: a canonical label, free-form words, or ``point`` / ``box`` when ``op`` is ``selected``.
    """

    op: RelationOp
    reference: str


@dataclass(frozen=True)
class Target:
    """One object to look for, or to leave alone, with the words that said so.

    label: canonical label or None (free-form). words: what was said, short and clean, usable as a prompt.
    evidence: verbatim span of the text. start: its offset in the text, or None when not from a text.
    alternatives: labels that were considered and not chosen. reason: why this label, in a few words.
    plain: one plain-language line for a lay reader, may be empty.
    ambiguous: why the object is not looked for before the user has answered, empty when nothing is open.
    surveyed: one of many that answer an open question; nobody named it.
    learned: SHA-256 of the learned target that it means, empty for what a model knows by itself.
    """

    label: str | None
    words: str
    assertion: Assertion = "present"
    evidence: str = ""
    start: int | None = None
    organ: str | None = None
    relation: Relation | None = None
    alternatives: tuple[str, ...] = ()
    reason: str = ""
    plain: str = ""
    ambiguous: str = ""
    surveyed: bool = False
    learned: str = ""


@dataclass(frozen=True)
class ReadLine:
    """How one sentence of a report was read, so that somebody can object.

    span: character offsets of the sentence. target: label of the target it went into, or its words.
    """

    sentence: str
    span: tuple[int, int]
    finding: str
    assertion: Assertion
    target: str


@dataclass(frozen=True)
class Request:
    """Everything a text asks for.

    kind: what sort of text it is. unknown: objects the text names that nobody could place (they become
    ``unsupported``, never silence). notes: choices worth telling the reader, such as a dropped invention.
    place_measures: what the words also ask of a slide or of how masks lie to each other (names of metrics).
    read_as: of a report, every sentence with a finding and its reading.
    sentence: the caller's own, kept only for a model that is asked with it; never of a report.
    points, boxes: pixels as the user gave them, boxes as [x0, y0, x1, y1].
    """

    kind: Literal["report", "request", "exploratory"]
    targets: tuple[Target, ...] = ()
    organ: str | None = None
    points: tuple[tuple[float, float], ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    measures: tuple[Measure, ...] = ()
    notes: tuple[str, ...] = field(default=())
    place_measures: tuple[str, ...] = ()
    read_as: tuple[ReadLine, ...] = ()
    sentence: str = ""

    def without_sentences(self) -> Request:
        """What may be kept: of each sentence of a report only the finding's name and where it stood."""
        kept = tuple(replace(line, sentence=line.finding) for line in self.read_as)
        return replace(self, read_as=kept)


class Reader(Protocol):
    """Words in, targets out. ``rules``, ``llm`` and ``hybrid`` all look like this."""

    def translate(self, text: str, *, organ: str | None = None) -> Request:
        """Read a report, a request or a question. Raises NoTargetInWordsError when it names nothing at all."""
        ...
