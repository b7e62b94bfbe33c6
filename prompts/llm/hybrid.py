"""Rules first; a language model only for what they leave open. The two are compared wherever both spoke."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from tissuetalk.models.errors import BusyError, InvalidArgumentError, NoTargetInWordsError, ResourceError
from tissuetalk.prompts.llm.reader import LanguageModelReader
from tissuetalk.prompts.llm.seam import Cancelled, never
from tissuetalk.prompts.names import is_known, unread
from tissuetalk.prompts.target import Reader, Request, Span, Target
from tissuetalk.prompts.taxonomy import Label

_UNSURE = "only the language model reads this in the text; ask the user whether it is meant"
_LOOKED_FOR = ("present", "uncertain")


class HybridReader:
    """Never less than the rules: when the language model is away, theirs is the answer and a note says so.

    llm: called when first needed, so that a missing server costs nothing until then.
    """

    def __init__(self, rules: Reader, llm: Callable[[], LanguageModelReader]) -> None:
        self.rules = rules
        self.llm = llm

    def translate(self, text: str, *, organ: str | None = None, cancelled: Cancelled = never) -> Request:
        """Read by rules, then ask about the rest.

        Raises NoTargetInWordsError when neither finds anything, CancelledError.
        """
        try:
            ruled = self.rules.translate(text, organ=organ)
        except NoTargetInWordsError as error:
            return self._asked_alone(text, organ, cancelled, error)
        mentions = [_span(target) for target in ruled.targets if _is_open(target)]
        if ruled.kind == "report":
            mentions += unread(text)
        if not mentions:
            return ruled
        try:
            said = self.llm().translate(
                text, organ=organ or ruled.organ, mentions=mentions, cancelled=cancelled
            )
        except NoTargetInWordsError:
            return _with_notes(ruled, ["the language model could not place what the rules left open"])
        except (ResourceError, BusyError, InvalidArgumentError) as error:
            return _with_notes(ruled, [f"answered by the rules alone: {error}"])
        return _compared(ruled, said, mentions)

    def _asked_alone(
        self, text: str, organ: str | None, cancelled: Cancelled, nothing: NoTargetInWordsError
    ) -> Request:
        """What the language model makes of a text in which the rules found nothing."""
        if not any(character.isalpha() for character in text):
            raise nothing
        try:
            said = self.llm().translate(text, organ=organ, cancelled=cancelled)
        except (ResourceError, BusyError, InvalidArgumentError) as error:
            raise NoTargetInWordsError(f"{nothing} (The language model was no help: {error})") from error
        return _with_notes(said, ["read by the language model alone: the rules found nothing"])


def _is_open(target: Target) -> bool:
    """Whether the rules left something to decide about an object that is wanted, and know where it stands."""
    undecided = bool(target.ambiguous) or (target.label is None and not is_known(target.words))
    return (
        undecided and target.assertion in _LOOKED_FOR and target.start is not None and bool(target.evidence)
    )


def _span(target: Target) -> Span:
    start = target.start or 0
    return Span(start, start + len(target.evidence))


def _compared(ruled: Request, said: Request, mentions: Sequence[Span]) -> Request:
    """The rules' targets, with gaps filled and disagreements marked; anything else the model named is left to ask."""
    left = list(said.targets)
    merged: list[Target] = []
    for target in ruled.targets:
        match = next((other for other in left if _same(target, other)), None)
        if match is None:
            merged.append(target)
            continue
        left.remove(match)
        merged.append(_reconciled(target, match, ruled.organ))
    for other in left:
        if any(_overlap(_span(other), mention) for mention in mentions):
            merged.append(other)
        elif other.assertion in _LOOKED_FOR:
            merged.append(replace(other, ambiguous=_UNSURE))
    return _with_notes(replace(ruled, targets=tuple(merged)), said.notes)


def _same(target: Target, other: Target) -> bool:
    """Whether two targets are the same object: one label, or for an open one the same place in the text."""
    if other.label is not None and other.label in (target.label, *target.alternatives):
        return True
    return _is_open(target) and other.start is not None and _overlap(_span(target), _span(other))


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def _reconciled(target: Target, other: Target, organ: str | None) -> Target:
    """A rules' target after the language model spoke about it."""
    if target.label is None and other.label is not None:
        target = _placed(target, other, other.label, organ)
    if target.assertion == other.assertion:
        return target
    if (target.assertion in _LOOKED_FOR) == (other.assertion in _LOOKED_FOR):
        doubtful = "uncertain" in (target.assertion, other.assertion)
        return replace(target, assertion="uncertain") if doubtful else target
    doubt = f"the rules read this as {target.assertion}, the language model as {other.assertion}; ask the user which it is"
    return replace(target, ambiguous=doubt)


def _placed(target: Target, other: Target, label: str, organ: str | None) -> Target:
    """With the model's label, unless that would guess an organ the text does not name."""
    if Label.parse(label).region in (organ, "unspecified"):
        return replace(target, label=label, reason=f"unknown to the lexicon; {other.reason}")
    return replace(target, alternatives=(*target.alternatives, label))


def _with_notes(request: Request, notes: Iterable[str]) -> Request:
    return replace(request, notes=tuple(dict.fromkeys((*request.notes, *notes))))
