"""What is asked of a stored result: kinds of evidence, and the masks they are about.

Only that is kept: a question may hold a patient's name, so its text is never written down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from tissuetalk.models.errors import UnknownMaskError
from tissuetalk.prompts.lexicon import Concept
from tissuetalk.prompts.question import Kind, asks_for_a_diagnosis, concepts_in, kinds_of, mask_numbers
from tissuetalk.tools.answers.results import Mask, NotSegmented, SegmentResult

_MASK_ID = re.compile(r"msk_[a-z0-9]+")
_NEEDS_A_MASK: set[Kind] = {"reliability", "counterfactual", "grounding"}


class ExplainRequest(BaseModel):
    """A question as it was understood.

    mask_ids: the masks it is about. everything: it named none, so it is about all of them.
    concepts: ids of the objects it names. diagnosis: it asks for what only a pathologist may answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[Kind, ...]
    mask_ids: tuple[str, ...]
    everything: bool
    concepts: tuple[str, ...] = ()
    diagnosis: bool = False
    classifier: str | None = None

    @classmethod
    def of(cls, question: str | None, classifier: str | None, result: SegmentResult) -> ExplainRequest:
        """Understand a question about a result.

        Raises UnknownMaskError for a question that needs a mask of something that was never segmented, and for a number
        or an id that this result has no mask of; the message says what there is.
        """
        kinds = kinds_of(question, classifier)
        unknown = _never_segmented(question, result)
        if unknown is not None and "meaning" not in kinds and _NEEDS_A_MASK & set(kinds):
            raise UnknownMaskError(
                f"“{unknown.name}” was never segmented in this result; {inventory(result)} "
                f"Segment it first: segment(image, words={unknown.name!r})."
            )
        named = masks_named(question, result)
        return cls(
            kinds=tuple(kinds),
            mask_ids=tuple(mask.mask_id for mask in named or result.masks),
            everything=not named,
            concepts=tuple(concept.id for concept in _concepts(question or "")),
            diagnosis=asks_for_a_diagnosis(question),
            classifier=classifier,
        )

    def masks(self, result: SegmentResult) -> list[Mask]:
        return [mask for mask in result.masks if mask.mask_id in self.mask_ids]


def masks_named(question: str | None, result: SegmentResult) -> list[Mask]:
    """The masks a question names by number, id or name; none when it is about all of them.

    Raises UnknownMaskError, which says what there is, for a number or an id that this result has no mask of.
    """
    if not question or asks_for_a_diagnosis(question):
        return []
    found, numbers = [mask for mask in result.masks if mask.found], mask_numbers(question)
    for number in numbers:
        if not 1 <= number <= len(found):
            raise UnknownMaskError(f"there is no mask number {number}; {inventory(result)}")
    if numbers:
        return [found[number - 1] for number in numbers]
    if ids := set(_MASK_ID.findall(question)):
        chosen = [mask for mask in result.masks if mask.mask_id in ids]
        if len(chosen) < len(ids):
            raise UnknownMaskError(f"this result has no such mask; {inventory(result)}")
        return chosen
    named = _concepts(question)
    return [mask for mask in result.masks if _is_named(mask, question, named)]


def _concepts(question: str) -> list[Concept]:
    """What a question names. An id is no word: the lexicon would read "ca" in msk_697ca as cancer."""
    return concepts_in(_MASK_ID.sub(" ", question))


def _never_segmented(question: str | None, result: SegmentResult) -> Concept | None:
    """An object that a question names and this result knows nothing of, neither found, missed nor left out."""
    if not question or asks_for_a_diagnosis(question):
        return None
    named = _concepts(question)
    if any(_is_named(mask, question, named) for mask in result.masks):
        return None
    if any(_overlap(_names(item), named) for item in result.not_segmented):
        return None
    return named[0] if named else None


def inventory(result: SegmentResult) -> str:
    """What a result has, numbered as in its picture."""
    found = [mask for mask in result.masks if mask.found]
    parts = [f"{number} {mask.name} ({mask.mask_id})" for number, mask in enumerate(found, start=1)]
    parts += [f"{mask.name} (looked for, not found)" for mask in result.masks if not mask.found]
    parts += [f"{item.free_form or item.label} (not segmented: {item.code})" for item in result.not_segmented]
    return f"it has: {', '.join(parts)}." if parts else "it has no masks."


def _names(item: Mask | NotSegmented) -> list[str]:
    label = (item.label or "").rsplit("-", 1)[-1]
    model_name = item.target if isinstance(item, Mask) else ""
    return [name for name in (item.free_form, label, item.evidence, model_name) if name]


def _is_named(mask: Mask, question: str, named: Sequence[Concept]) -> bool:
    said, names = question.casefold(), _names(mask)
    # three letters and fewer ("IDC", "fat") hide in other words; the lexicon decides on those
    return any(len(name) > 3 and name.casefold() in said for name in names) or _overlap(names, named)


def _overlap(names: Iterable[str], named: Sequence[Concept]) -> bool:
    return any(concept in named for name in names for concept in concepts_in(name))
