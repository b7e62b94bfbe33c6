"""What a question to ``explain`` asks for: which kinds of evidence, and about which of the masks.

Only that is kept: a question may hold a patient's name, so its text is never written down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from tissuetalk.models.errors import UnknownMaskError
from tissuetalk.prompts.lexicon import Concept, lexicon, read_words
from tissuetalk.tools.answers.results import Mask, NotSegmented, SegmentResult
from tissuetalk.tools.measure.measure import name_of

Kind = Literal[
    "grounding", "observations", "meaning", "reliability", "provenance", "counterfactual", "classifier"
]
BY_DEFAULT: tuple[Kind, ...] = ("grounding", "observations", "meaning")


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(patterns)})\b", re.IGNORECASE)


_ASKS: dict[Kind, re.Pattern[str]] = {
    "counterfactual": _words(
        r"what if",
        r"without",
        r"if .{0,60}(were|was|is) (not there|gone|absent|removed|blurred|missing)",
        r"remov\w+",
        r"blur\w*",
        r"erase\w*",
        r"hid(e|den|ing)",
        r"counter-?factual\w*",
        r"take .{0,40} away",
    ),
    "classifier": _words(
        r"classif\w+",
        r"predict\w*",
        r"rel(y|ied|ies|ying) on",
        r"decid\w+",
        r"decision",
        r"importan(t|ce)",
        r"heat ?map",
        r"activation",
        r"attention",
        r"contribut\w+",
    ),
    "meaning": _words(
        r"what (is|are|does)",
        r"mean\w*",
        r"looks? like",
        r"defin\w+",
        r"confus\w+",
        r"why does it matter",
        r"lay(man|person|people)?",
        r"plain (words|language)",
    ),
    "reliability": _words(
        r"sure",
        r"certain\w*",
        r"uncertain\w*",
        r"unsure",
        r"confiden\w+",
        r"trust\w*",
        r"reliab\w+",
        r"stab\w+",
        r"robust\w*",
        r"re-?phras\w+",
        r"wording",
        r"agree\w*",
        r"quality",
    ),
    "provenance": _words(
        r"models?",
        r"weights?",
        r"version",
        r"scale",
        r"reproduc\w+",
        r"provenance",
        r"record",
        r"how was",
        r"prompt",
        r"settings?",
    ),
    "observations": _words(
        r"what else",
        r"anything (else|missing|more)",
        r"something (else|missing)",
        r"(not|n't|never) mention\w*",
        r"unmentioned",
        r"overlook\w*",
        r"besides",
        r"other (things|findings|structures|objects)",
        r"missing",
    ),
    "grounding": _words(
        r"why",
        r"which words?",
        r"evidence",
        r"where",
        r"report",
        r"found",
        r"missing",
        r"not segmented",
        r"left out",
        r"diagnos\w+",
    ),
}
DIAGNOSIS = _words(
    r"diagnos\w+",
    r"is (it|this|that|there) (a )?(cancer\w*|malignan\w+|benign|tumou?r)",
    r"do(es)? (i|he|she|they|the patient) have",
    r"prognos\w+",
    r"treatment",
    r"therap\w+",
    r"what grade",
    r"surviv\w+",
    r"(how )?dangerous",
)


@dataclass(frozen=True)
class Asking:
    """A question as it was understood.

    mask_ids: the masks it is about. everything: it named none, so it is about all of them.
    concepts: ids of the objects it names. diagnosis: it asks for what only a pathologist may answer.
    """

    kinds: tuple[Kind, ...]
    mask_ids: tuple[str, ...]
    everything: bool
    concepts: tuple[str, ...] = ()
    diagnosis: bool = False
    classifier: str | None = None

    def masks(self, result: SegmentResult) -> list[Mask]:
        return [mask for mask in result.masks if mask.mask_id in self.mask_ids]

    def as_json(self) -> dict[str, Any]:
        stored: dict[str, Any] = _ASKING.dump_python(self, mode="json")
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Asking:
        return _ASKING.validate_python(dict(stored))


_ASKING = TypeAdapter(Asking)
_NEEDS_A_MASK: tuple[Kind, ...] = ("reliability", "counterfactual", "grounding")


def read(question: str | None, classifier: str | None, result: SegmentResult) -> Asking:
    """Understand a question about a result.

    Raises UnknownMaskError for a question that needs a mask of something that was never segmented, and for a number or
    an id that this result has no mask of; the message says what there is.
    """
    kinds = kinds_of(question, classifier)
    unknown = _never_segmented(question, result)
    if unknown is not None and "meaning" not in kinds and any(kind in kinds for kind in _NEEDS_A_MASK):
        raise UnknownMaskError(
            f"“{unknown.name}” was never segmented in this result; {inventory(result)} "
            f"Segment it first: segment(image, words={unknown.name!r})."
        )
    named = masks_named(question, result)
    return Asking(
        tuple(kinds),
        tuple(mask.mask_id for mask in named or result.masks),
        not named,
        tuple(concept.id for concept in concepts_in(question or "")),
        asks_for_a_diagnosis(question),
        classifier,
    )


def kinds_of(question: str | None, classifier: str | None = None) -> list[Kind]:
    """Grounding, observations and meaning by default; a question narrows them to what it asks."""
    asked = [kind for kind, pattern in _ASKS.items() if question and pattern.search(question)]
    if question and DIAGNOSIS.search(question):
        asked = [*asked, "grounding", "observations"]
    if "classifier" in asked:
        asked = [kind for kind in asked if kind != "provenance"]
        if classifier is None and len(asked) > 1:
            asked.remove("classifier")
    asked = asked or list(BY_DEFAULT)
    if classifier is not None and "classifier" not in asked:
        asked.append("classifier")
    order: tuple[Kind, ...] = ("grounding", "observations", "reliability", "counterfactual", "classifier")
    first = [kind for kind in order if kind in asked]
    return first + [kind for kind in dict.fromkeys(asked) if kind not in first]


def asks_for_a_diagnosis(question: str | None) -> bool:
    return bool(question and DIAGNOSIS.search(question))


def concepts_in(text: str) -> list[Concept]:
    """Everything a text names that the lexicon knows, in the order it is named."""
    words = read_words(text, loose=True)
    return list({hit.concept.id: hit.concept for hit in lexicon().find(words, text)}.values())


def masks_named(question: str | None, result: SegmentResult) -> list[Mask]:
    """The masks a question names by number, id or name; none when it is about all of them.

    Raises UnknownMaskError, which says what there is, for a number or a name that this result has no mask of.
    """
    if not question or asks_for_a_diagnosis(question):
        return []
    numbered = _by_number(question, result)
    if numbered:
        return numbered
    ids = set(re.findall(r"msk_[a-z0-9]+", question))
    if ids:
        chosen = [mask for mask in result.masks if mask.mask_id in ids]
        if len(chosen) < len(ids):
            raise UnknownMaskError(f"this result has no such mask; {inventory(result)}")
        return chosen
    named = concepts_in(question)
    return [mask for mask in result.masks if _is_named(mask, question, named)]


def _never_segmented(question: str | None, result: SegmentResult) -> Concept | None:
    """An object that a question names and this result knows nothing of, neither found, missed nor left out."""
    if not question or asks_for_a_diagnosis(question):
        return None
    named = concepts_in(question)
    if any(_is_named(mask, question, named) for mask in result.masks):
        return None
    if any(_overlap(_names(item), named) for item in result.not_segmented):
        return None
    return named[0] if named else None


def inventory(result: SegmentResult) -> str:
    """What a result has, numbered as in its picture."""
    found = [mask for mask in result.masks if mask.found]
    parts = [f"{number} {name_of(mask)} ({mask.mask_id})" for number, mask in enumerate(found, start=1)]
    parts += [f"{name_of(mask)} (looked for, not found)" for mask in result.masks if not mask.found]
    parts += [f"{item.free_form or item.label} (not segmented: {item.code})" for item in result.not_segmented]
    return f"it has: {', '.join(parts)}." if parts else "it has no masks."


def _by_number(question: str, result: SegmentResult) -> list[Mask]:
    wanted = [
        int(number)
        for number in re.findall(
            r"(?:\b(?:mask|number|no\.?|finding|outline)|#)\s*(\d{1,3})\b", question, re.IGNORECASE
        )
    ]
    found = [mask for mask in result.masks if mask.found]
    for number in wanted:
        if not 1 <= number <= len(found):
            raise UnknownMaskError(f"there is no mask number {number}; {inventory(result)}")
    return [found[number - 1] for number in dict.fromkeys(wanted)]


def _names(item: Mask | NotSegmented) -> list[str]:
    label = (item.label or "").rsplit("-", 1)[-1]
    model_name = item.target if isinstance(item, Mask) else ""
    return [name for name in (item.free_form, label, item.evidence, model_name) if name]


def _is_named(mask: Mask, question: str, named: Sequence[Concept]) -> bool:
    said = question.casefold()
    names = _names(mask)
    return any(len(name) > 3 and name.casefold() in said for name in names) or _overlap(names, named)


def _overlap(names: Iterable[str], named: Sequence[Concept]) -> bool:
    return any(concept in named for name in names for concept in concepts_in(name))
