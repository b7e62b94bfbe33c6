"""The ``llm`` reader: asks a language model, believes nothing it cannot find in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ValidationError

from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError, NoTargetInWordsError
from tissuetalk.prompts.glossary import plain_line
from tissuetalk.prompts.llm.check import QuoteCheck, merged
from tissuetalk.prompts.llm.passages import passages, token_counter
from tissuetalk.prompts.llm.seam import (
    Cancelled,
    LanguageModel,
    ModelAnswer,
    Turn,
    most_targets,
    never,
    schema_for,
)
from tissuetalk.prompts.llm.wording import ask_again, ask_for, masked
from tissuetalk.prompts.organs import organ_of, region_of
from tissuetalk.prompts.request.places import Places, places_in
from tissuetalk.prompts.target import Measure, Request, Span, Target
from tissuetalk.prompts.taxonomy import REGIONS
from tissuetalk.prompts.words import tokens

_REPAIR_TOKENS = 700
"""The unusable answer as it is shown again, and what was wrong with it."""
_HEAD_CHARACTERS = 20_000
"""Where a text says which organ it is about."""
_LEAST_ROOM = 150
"""A passage shorter than this many tokens loses its sense."""


@dataclass(frozen=True)
class TokenBudget:
    """What one ask may cost, in tokens, and how many asks one text may cost.

    context: of the served model, prompt and answer together. answer: longest answer.
    """

    context: int = 8192
    answer: int = 2048
    passages: int = 12


class LanguageModelReader:
    """Words in, targets out, through a language model. It keeps nothing about any text."""

    def __init__(self, model: LanguageModel, budget: TokenBudget | None = None) -> None:
        self.model = model
        self.budget = budget or TokenBudget()
        self._most = most_targets(self.budget.answer)

    def translate(
        self,
        text: str,
        *,
        organ: str | None = None,
        mentions: Sequence[Span] = (),
        cancelled: Cancelled = never,
    ) -> Request:
        """Read a text of any length, passage by passage.

        mentions: places that deserve special attention; when given, only the passages that hold one are read.

        Raises:
            NoTargetInWordsError: nothing in the text can be outlined.
            InvalidArgumentError: the text is too long for the budget.
            ModelUnavailableError, BusyError, CancelledError: no usable answer.
        """
        if not any(character.isalpha() for character in text):
            raise NoTargetInWordsError(
                "the text has no words; name an object such as 'tumour' or 'lymphocytes'"
            )
        head = text[:_HEAD_CHARACTERS]
        region = region_of(organ) or organ_of(tokens(head))
        parts, notes = self._cut(text, region)
        shown = masked(text)
        check = QuoteCheck(text, shown, region, self.model.name)
        answers: list[ModelAnswer] = []
        targets: list[Target] = []
        for part in parts:
            here = [
                text[at.start : at.end] for at in mentions if part.start <= at.start and at.end <= part.end
            ]
            if mentions and not here:
                continue
            answer = self._ask(shown[part.start : part.end], region, here, cancelled)
            answers.append(answer)
            if len(answer.targets) >= self._most:
                check.note(
                    f"the language model's answer was full at {self._most} objects; it may have left some out"
                )
            targets += check.targets(answer, part)
        if not targets:
            raise NoTargetInWordsError(
                " ".join(["the language model found nothing to outline.", *check.notes])
            )
        kind = _kind(answers)
        # Coordinates are read by rules and never from the model; a report's numbers are no coordinates.
        places = places_in(text) if kind == "request" else Places()
        return Request(
            kind=kind,
            targets=tuple(map(_explained, merged(targets)) if kind == "exploratory" else merged(targets)),
            organ=region or _organ(answers),
            points=places.points,
            boxes=places.boxes,
            measures=_measures(answers),
            notes=(*notes, *places.notes, *check.notes),
        )

    def _cut(self, text: str, organ: str | None) -> tuple[list[Span], tuple[str, ...]]:
        """The passages to ask about, and what to tell the reader about the budget."""
        counter = token_counter()
        overhead = sum(counter.count(turn.text) for turn in ask_for("", organ)) + _REPAIR_TOKENS
        room = self.budget.context - self.budget.answer - overhead
        if room < _LEAST_ROOM:
            raise ModelUnavailableError(
                f"a context of {self.budget.context} tokens leaves no room for text beside the instructions "
                f"({overhead}) and the answer ({self.budget.answer}); raise TISSUETALK_LLM_CONTEXT_TOKENS to what the "
                "server allows, lower TISSUETALK_LLM_MAX_TOKENS, or give the organ"
            )
        limit = self.budget.passages * room * 8
        parts = passages(text, counter.count, room) if len(text) <= limit else None
        if parts is None or len(parts) > self.budget.passages:
            raise InvalidArgumentError(
                f"the text has {len(text)} characters, more than {self.budget.passages} asks of the language model "
                "can read; send the diagnosis or the section you mean, or use the rule reader, which has no such limit"
            )
        return parts, (counter.note,) if counter.note and len(parts) > 1 else ()

    def _ask(
        self, text: str, organ: str | None, mentions: Sequence[str], cancelled: Cancelled
    ) -> ModelAnswer:
        """One valid answer: repaired once if need be, then refused."""
        turns = ask_for(text, organ, mentions, self._most)
        answer, problem, said = self._try(turns, organ, cancelled)
        if answer is None:
            answer, problem, _ = self._try(ask_again(turns, said, problem), organ, cancelled)
        if answer is None:
            raise ModelUnavailableError(
                f"the language model {self.model.name} answered twice in a form that cannot be used ({problem}); "
                "serve a model with structured output (docs/language-models.md), or use the rule reader"
            )
        return answer

    def _try(
        self, turns: Sequence[Turn], organ: str | None, cancelled: Cancelled
    ) -> tuple[ModelAnswer | None, str, str]:
        """The answer, or None with what is wrong and what was said."""
        reply = self.model.ask(turns, schema_for(organ, self._most), cancelled)
        if reply.end == "cut":
            problem = (
                f"it was cut off after {self.budget.answer} tokens: name fewer objects, with shorter quotes"
            )
            return None, problem, reply.text
        if reply.end == "refused":
            return None, "the model declined to answer", reply.text
        try:
            return ModelAnswer.model_validate_json(reply.text), "", reply.text
        except ValidationError as error:
            return None, _what_is_wrong(error), reply.text


def _what_is_wrong(error: ValidationError) -> str:
    """Where and what, without repeating the answer: it may hold anything, also parts of a report."""
    places = [".".join(map(str, one["loc"])) or "the whole" for one in error.errors(include_input=False)]
    kinds = [one["type"].replace("_", " ") for one in error.errors(include_input=False)]
    return "; ".join(f"{place}: {kind}" for place, kind in list(zip(places, kinds, strict=True))[:5])


def _explained(target: Target) -> Target:
    return replace(target, plain=plain_line(target.label)) if target.label else target


def _kind(answers: Sequence[ModelAnswer]) -> Literal["report", "request", "exploratory"]:
    """What most of the passages are; a tie is the first one's."""
    kinds = [answer.kind for answer in answers]
    return max(kinds, key=kinds.count)


def _organ(answers: Sequence[ModelAnswer]) -> str | None:
    named = (answer.organ.casefold() for answer in answers if answer.organ)
    return next((organ for organ in named if organ in REGIONS and organ != "unspecified"), None)


def _measures(answers: Sequence[ModelAnswer]) -> tuple[Measure, ...]:
    return tuple(dict.fromkeys(measure for answer in answers for measure in answer.measures))
