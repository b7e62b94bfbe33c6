"""Requests and lay questions in other languages than English, by word lists (`terms/languages.yaml`).

Names of structures are found, and simple denials bind within their part of the sentence. Where a denial binds nothing,
or words of a report stand in the text, nothing is decided for the reader: the finding is uncertain, or English is asked
for. A finding is never inverted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tissuetalk.models.errors import NoTargetInWordsError
from tissuetalk.prompts.lexicon import is_english, lexicon
from tissuetalk.prompts.measures import measures_in
from tissuetalk.prompts.request.places import places_in
from tissuetalk.prompts.request.survey import survey_of
from tissuetalk.prompts.target import Assertion, Relation, Request, Target
from tissuetalk.prompts.words import load_terms

NAMES = {
    "es": "Spanish",
    "fr": "French",
    "de": "German",
    "pt": "Portuguese",
    "it": "Italian",
    "zh": "Chinese",
    "ja": "Japanese",
    "hi": "Hindi",
}
ENGLISH = re.compile(
    r"\b(?:the|of|is|are|and|with|please|show|segment|mark|no|not|in|what|where|how|all|find|outline|this|that|for)\b"
)
LONGEST = 600
"""Characters: longer texts are reports, which are read in English only."""
HEAD = 3000
"""Characters by which a language is told."""
LONGEST_ENDING = 6
"""Letters that may follow the beginning of a word: a plural, a case, the second half of a short compound."""
PARTS = re.compile(r"[.,;:!?\n\u3002\uff0c\u3001\uff1b\uff1a\uff01\uff1f\u0964]")
_SPACELESS = ("zh", "ja")
_WEIGHT_OF_A_NAME = 2


@dataclass(frozen=True)
class _Language:
    """One language: a pattern for each list, and one for each concept and organ."""

    code: str
    lists: Mapping[str, re.Pattern[str]]
    joins: re.Pattern[str]
    names: Mapping[str, re.Pattern[str]]
    organs: Mapping[str, re.Pattern[str]]


@dataclass(frozen=True)
class _ForeignMention:
    concept: str
    start: int
    end: int


def _pattern(forms: list[str], code: str) -> re.Pattern[str]:
    """Any of the forms, longest first; never matching where there are none."""
    if not forms:
        return re.compile(r"(?!)")
    texts = sorted((folded(str(form)) for form in forms), key=len, reverse=True)
    if code in _SPACELESS:
        return re.compile("|".join(map(re.escape, texts)))
    # Combining marks are letters to Hindi and no part of \w, so its words have no end that a pattern could tell.
    ending = "" if code == "hi" else rf"[^\W\d_]{{0,{LONGEST_ENDING}}}(?![^\W\d_])"
    words = (
        re.escape(text[:-1]) + r"(?![^\W_])" if text.endswith("$") else re.escape(text) + ending
        for text in texts
    )
    return re.compile(rf"(?<![^\W\d_])(?:{'|'.join(words)})")


@lru_cache(maxsize=1)
def _languages() -> tuple[_Language, ...]:
    found = []
    for code in NAMES:
        rows = load_terms("languages.yaml")[code]
        lists = {
            name: _pattern(rows[name], code) for name in rows if name not in ("names", "organs", "joins")
        }
        joins = re.compile(rf"\s*(?:(?:{'|'.join(map(folded, rows['joins']))})\s*)+")
        names = {concept: _pattern(forms, code) for concept, forms in rows["names"].items()}
        organs = {region: _pattern(forms, code) for region, forms in rows["organs"].items()}
        found.append(_Language(code, lists, joins, names, organs))
    return tuple(found)


def folded(text: str) -> str:
    """Lower case without accents and hyphens, of the same length, so that every offset stays."""
    return "".join(_plain(mark) for mark in text)


@lru_cache(maxsize=4096)
def _plain(mark: str) -> str:
    if "\u0900" <= mark <= "\u097f":
        return mark
    low = {"\u00df": "s", "\u2019": "'", "-": " "}.get(mark, mark.lower())
    base = unicodedata.normalize("NFD", low)[:1] if low else low
    return base if len(base) == 1 else mark


def language_of(text: str) -> str | None:
    """The code of the language of a text when it is one of those listed and not English.

    Raises:
        NoTargetInWordsError: it is in another language, or too long to be read by word lists; English is asked for.
    """
    head = text[:HEAD]
    code = _listed(head)
    if (code and len(text) > LONGEST) or (code is None and _is_other(head)):
        said = f"reports in {NAMES[code]}" if code else "this language"
        raise NoTargetInWordsError(
            f"{said} cannot be read here; please use English, or pass targets=[{{label}}] (labels: taxonomy://labels)."
        )
    return code


def _is_other(head: str) -> bool:
    """A script or a denial of a language that is not listed: an English reading could invert what it says."""
    letters = [mark for mark in head if mark.isalpha()]
    if sum(mark > "\u024f" for mark in letters) * 2 > len(letters) > 0:
        return True
    low = folded(head)
    return bool(_other_denials().search(low)) and not ENGLISH.search(low)


@lru_cache(maxsize=1)
def _other_denials() -> re.Pattern[str]:
    return _pattern(load_terms("languages.yaml")["other"], "")


def _listed(text: str) -> str | None:
    if re.search(r"[\u3040-\u30ff]", text):
        return "ja"
    if re.search(r"[\u4e00-\u9fff]", text):
        return "zh"
    if re.search(r"[\u0900-\u097f]", text):
        return "hi"
    low = folded(text)
    english = len(ENGLISH.findall(low))
    scores = {one.code: _score(one, low) for one in _languages() if one.code not in ("zh", "ja", "hi")}
    best = max(scores, key=lambda code: scores[code])
    least = 2 if len(text) <= LONGEST else 6
    return best if scores[best] >= least and scores[best] > english else None


def _score(language: _Language, low: str) -> int:
    """Words of the language in the text that are no English words; the names of structures count twice."""
    lists = [language.lists[name] for name in ("asks", "doubt", "not_before", "not_behind")]
    said = {match.start() for pattern in lists for match in pattern.finditer(low) if _is_foreign(match)}
    named = {
        m.start() for pattern in language.names.values() for m in pattern.finditer(low) if _is_foreign(m)
    }
    return len(said) + _WEIGHT_OF_A_NAME * len(named)


def _is_foreign(match: re.Match[str]) -> bool:
    return not all(len(word) > 1 and is_english(word) for word in match.group().split())


def read_foreign(text: str, code: str, organ: str | None) -> Request:
    """A request or a question in one of the languages.

    Raises:
        NoTargetInWordsError: it names nothing that is known there, or it reads like a report; English is asked for.
    """
    language = next(one for one in _languages() if one.code == code)
    low = folded(text)
    named = _names(language, low)
    region = organ or next((r for r, pattern in language.organs.items() if pattern.search(low)), None)
    note = f"read as {NAMES[code]} by a word list; check the targets, or say it in English"
    opened = language.lists["everything"].search(low)
    if not named and opened:
        shown = survey_of(region, "everything", opened.group(), opened.start())
        return Request("exploratory", tuple(shown), region, notes=(note,))
    if not named:
        raise NoTargetInWordsError(
            f"the words are {NAMES[code]} and name nothing that is known in it; please use English, "
            "or pass targets=[{label}] (labels: taxonomy://labels)."
        )
    said = {one: _assertion(language, low, one, named) for one in named}
    targets: dict[str, Target] = {}
    for one in named:
        target = _target(text, one, region, said[one])
        key = target.label or target.words
        if key not in targets or said[one] == "present":
            targets[key] = target
    related = _related(language, low, named, said, targets)
    places = places_in(text)
    kind = "exploratory" if opened or (re.search(r"[?\uff1f]", text) and not places.points) else "request"
    cells = any(lexicon().concepts[one.concept].kind == "cells" for one in named)
    measures = measures_in(low, single_objects=cells) if kind == "request" else ()
    return Request(
        "exploratory" if kind == "exploratory" else "request",
        tuple(related.values()),
        region,
        places.points,
        places.boxes,
        measures,
        notes=(note, *places.notes),
    )


def _names(language: _Language, low: str) -> list[_ForeignMention]:
    """All named objects, longest first where they overlap, in the order of the text; organs hide their own words."""
    found = [
        _ForeignMention(concept, match.start(), match.end())
        for concept, pattern in language.names.items()
        for match in pattern.finditer(low)
    ]
    found.sort(key=lambda one: (one.start - one.end, one.start))
    kept: list[_ForeignMention] = []
    for one in found:
        if not any(one.start < other.end and other.start < one.end for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)


def _part(language: _Language, low: str, one: _ForeignMention) -> tuple[int, int]:
    """The part of the sentence between punctuation and words of contrast in which a name stands."""
    edges = [match.end() for match in PARTS.finditer(low)]
    edges += [match.start() for match in language.lists["contrast"].finditer(low)]
    start = max((edge for edge in edges if edge <= one.start), default=0)
    end = min((edge for edge in edges if edge > one.end), default=len(low))
    return start, end


def _assertion(
    language: _Language, low: str, one: _ForeignMention, named: list[_ForeignMention]
) -> Assertion:
    """Wanted, not wanted, or uncertain where the words say more than the lists can bind."""
    start, end = _part(language, low, one)
    before, behind = (_spans(language, f"not_{where}", low, start, end) for where in ("before", "behind"))
    if language.lists["doubt"].search(low):
        return "uncertain"
    if not before and not behind:
        return "present"
    if language.lists["twice"].search(low, start, end):
        return "present" if len({*before, *behind}) == 1 else "uncertain"
    names = [other for other in named if start <= other.start < end]
    head = _head(language, low, one, names)
    if any(last <= head.start and not _between(names, last, head.start) for _, last in before):
        return "absent"
    tail = _tail(language, low, one, names)
    if any(first >= tail.end and not _between(names, tail.end, first) for first, _ in behind):
        return "absent"
    # Every denial of the part must bind another name, or else nobody knows what it denies.
    bound = all(
        any(other is not head and other.start >= last for other in names) for _, last in {*before} - {*behind}
    ) and all(
        any(other is not tail and other.end <= first for other in names) for first, _ in {*behind} - {*before}
    )
    shared = {*before} & {*behind}
    return "present" if bound and len(names) > 1 and (not shared or len(names) > 1) else "uncertain"


def _spans(language: _Language, name: str, low: str, start: int, end: int) -> list[tuple[int, int]]:
    return [match.span() for match in language.lists[name].finditer(low, start, end)]


def _between(names: list[_ForeignMention], start: int, end: int) -> bool:
    return any(start <= other.start < end for other in names)


def _head(
    language: _Language, low: str, one: _ForeignMention, names: list[_ForeignMention]
) -> _ForeignMention:
    """The first name of the list "A y B", "A ni B" that a name belongs to."""
    for other in reversed([other for other in names if other.end <= one.start]):
        if not language.joins.fullmatch(low, other.end, one.start):
            break
        one = other
    return one


def _tail(
    language: _Language, low: str, one: _ForeignMention, names: list[_ForeignMention]
) -> _ForeignMention:
    """The last name of its list."""
    for other in (other for other in names if other.start >= one.end):
        if not language.joins.fullmatch(low, one.end, other.start):
            break
        one = other
    return one


def _target(text: str, one: _ForeignMention, region: str | None, said: Assertion) -> Target:
    concept = lexicon().concepts[one.concept]
    own = region or concept.organ
    place = lexicon().place(concept, own)
    evidence = text[one.start : one.end]
    return Target(
        place.label,
        concept.name,
        said,
        evidence,
        one.start,
        own,
        alternatives=place.alternatives,
        reason=place.reason,
    )


def _related(
    language: _Language,
    low: str,
    named: list[_ForeignMention],
    said: Mapping[_ForeignMention, Assertion],
    targets: dict[str, Target],
) -> dict[str, Target]:
    """ "linfocitos dentro de las glándulas": two wanted objects with a word of place between them."""
    wanted = [one for one in named if said[one] == "present"]
    if len(wanted) != 2:
        return targets
    gap = low[wanted[0].end : wanted[1].start]
    if language.code in _SPACELESS:
        gap += low[wanted[1].end : wanted[1].end + 1]
    op: Any = next((name for name in ("outside", "inside") if language.lists[name].search(gap)), None)
    subject, reference = (
        (wanted[1], wanted[0]) if language.code in (*_SPACELESS, "hi") else (wanted[0], wanted[1])
    )
    keys = [
        key for one in (subject, reference) for key, target in targets.items() if target.start == one.start
    ]
    if op is None or len(set(keys)) != 2:
        return targets
    return {**targets, keys[0]: replace(targets[keys[0]], relation=Relation(op, keys[1]))}
