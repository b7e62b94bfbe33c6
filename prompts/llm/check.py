"""What is left of an answer once every word of it has been held against the text and the taxonomy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

from tissuetalk.prompts.lexicon import names_nobody
from tissuetalk.prompts.llm.seam import ModelAnswer, NamedObject, NamedRelation, allowed_labels
from tissuetalk.prompts.target import Relation, Span, Target
from tissuetalk.prompts.taxonomy import Label, is_label
from tissuetalk.prompts.words import WORD, clean, phrase

STRENGTH = {"present": 3, "uncertain": 2, "absent": 1, "historical": 0}
"""Which mention of an object counts: it is somewhere in the specimen, so it should be looked for."""


class QuoteCheck:
    """Checks the findings of one text. Offsets are those of the whole text, also when a passage of it was asked.

    shown: the text as the model saw it, of the same length, with identifiers hidden.
    """

    def __init__(self, text: str, shown: str, organ: str | None, model_name: str) -> None:
        self.text = text
        self.shown = shown
        self.organ = organ
        self.model_name = model_name
        self.notes: list[str] = []
        self._allowed = frozenset(allowed_labels(organ))
        self._words_of_text = frozenset(phrase(shown))

    def targets(self, answer: ModelAnswer, passage: Span) -> list[Target]:
        """The findings whose quote stands in the passage, as targets; the others are noted."""
        quotable = Quotable(self.shown[passage.start : passage.end])
        checked = []
        for finding in answer.targets:
            label = self._canonical(finding.label)
            span = self._public(quotable, finding, passage.start)
            if span is None:
                name = label or "an object without a label"
                self.note(f"left out {name}: the quote the language model gave for it is not in the text")
                continue
            found = Span(passage.start + span.start, passage.start + span.end)
            checked.append(self._target(finding, label, found))
        return checked

    def _public(self, quotable: Quotable, finding: NamedObject, offset: int) -> Span | None:
        """Where the quote stands; where the object's words stand, when the quote would repeat an identifier.

        A surname is none that can be seen, so a quote is one only of words that are known or the object's own.
        """
        own = WORD.findall(finding.words.lower())
        for quote in (finding.evidence, finding.words):
            span = quotable.find(quote)
            if span is None:
                return None
            start, end = offset + span.start, offset + span.end
            if self.text[start:end] == self.shown[start:end] and names_nobody(self.text, start, end, own):
                return span
        return None

    def _target(self, finding: NamedObject, label: str | None, span: Span) -> Target:
        evidence = self.text[span.start : span.end]
        return Target(
            label=label,
            words=self._words(finding.words, label, evidence),
            assertion=finding.assertion,
            evidence=evidence,
            start=span.start,
            organ=self.organ,
            relation=self._relation(finding.relation),
            reason=f"named by the language model {self.model_name}",
        )

    def _canonical(self, said: str | None) -> str | None:
        """The label when it is one but for case and spacing; anything else is free-form."""
        if said is None or said.casefold().strip() in ("null", "none", ""):
            return None
        label = str(Label.parse(said)) if is_label(said) else None
        if label in self._allowed:
            return label
        self.note(
            "the language model used a name that is no label here; the words of the text are used instead"
        )
        return None

    def _words(self, said: str, label: str | None, evidence: str) -> str:
        """The model's short words if they are the text's own, else the label's name, else the quote."""
        if self._said_in_text(said):
            return clean(said)
        return Label.parse(label).object_type if label else clean(evidence)[:80]

    def _said_in_text(self, said: str) -> bool:
        words = phrase(said)
        return bool(words) and self._words_of_text.issuperset(words)

    def _relation(self, said: NamedRelation | None) -> Relation | None:
        if said is None:
            return None
        reference = clean(said.reference)
        if said.op == "selected":
            return Relation("selected", reference) if reference in ("point", "box") else None
        if is_label(said.reference):
            return Relation(said.op, str(Label.parse(said.reference)))
        if self._said_in_text(reference):
            return Relation(said.op, reference)
        self.note("left out a relation: the language model named a reference that is not in the text")
        return None

    def note(self, note: str) -> None:
        """Keep something the reader should know, once."""
        if note not in self.notes:
            self.notes.append(note)


def merged(targets: Iterable[Target]) -> tuple[Target, ...]:
    """One target per object: the strongest assertion wins and keeps its evidence; order of first mention."""
    kept: dict[object, Target] = {}
    for target in targets:
        key = target.label or phrase(target.words)
        before = kept.get(key)
        if before is None:
            kept[key] = target
        elif STRENGTH[target.assertion] > STRENGTH[before.assertion]:
            kept[key] = replace(target, relation=target.relation or before.relation)
        elif before.relation is None and target.relation is not None:
            kept[key] = replace(before, relation=target.relation)
    return tuple(kept.values())


_SAME = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u2011", "''\"\"---")
_EDGES = " \t\r\n\"'.,;:\u2026"
_SHORTEST = 3


class Quotable:
    """A text prepared for looking up quotes. Case, white space and typographic quotes and dashes do not count."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _folded(self) -> tuple[str, list[int]]:
        """The folded text, and for each of its characters the offset it came from."""
        characters: list[str] = []
        offsets: list[int] = []
        for offset, character in enumerate(self.text):
            if character.isspace():
                if characters and characters[-1] != " ":
                    characters.append(" ")
                    offsets.append(offset)
                continue
            for folded in character.translate(_SAME).casefold():
                characters.append(folded)
                offsets.append(offset)
        return "".join(characters), offsets

    def find(self, quote: str, after: int = 0) -> Span | None:
        """The first place at or after an offset where the quote stands as whole words, or None."""
        wanted = " ".join(quote.translate(_SAME).casefold().split()).strip(_EDGES)
        if sum(character.isalnum() for character in wanted) < _SHORTEST:
            return None
        folded, offsets = self._folded
        at = folded.find(wanted)
        while at >= 0:
            end = at + len(wanted)
            if offsets[at] >= after and _is_whole(folded, at, end):
                return Span(offsets[at], offsets[end - 1] + 1)
            at = folded.find(wanted, at + 1)
        return None


def _is_whole(text: str, start: int, end: int) -> bool:
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    behind = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not before and not behind
