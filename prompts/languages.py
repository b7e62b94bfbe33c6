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
from typing import Any, get_args

from tissuetalk.models.errors import NoTargetInWordsError
from tissuetalk.prompts.lexicon import is_english, lexicon
from tissuetalk.prompts.request.places import places_in
from tissuetalk.prompts.request.survey import NO_JUDGEMENT, survey_of
from tissuetalk.prompts.target import Assertion, Measure, Relation, Request, Target
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
LONGEST_ENDING = 9
"""Letters that may follow the beginning of a word: a plural, a case, the second half of a short compound."""
PARTS = re.compile(r"[.,;:!?\n\u3002\uff0c\u3001\uff1b\uff1a\uff01\uff1f\u0964]")
NO_LISTS = ("names", "organs", "joins", "measures")
MARKS = {
    "es": ("ñ", "¿", "¡", "ión"),
    "fr": ("œ", "ù", "î", "è", "l'", "d'"),
    "de": ("ä", "ö", "ü", "ß"),
    "pt": ("ã", "õ", "ção", "ência"),
    "it": ("ì", "ò", "zione"),
}
"""Letters that speak for a language when its words are shared by others."""
VERBS_OUT = re.compile("[标画圈找指勾数列]出")
"""Chinese verbs whose second half begins other words (标出, 出血)."""
SENTENCES = re.compile(r"[.;!?\n\u3002\uff1b\uff01\uff1f\u0964]")
LONG = 40
"""Words of a text whose grammar alone tells its language."""
_SPACELESS = ("zh", "ja")
_WEIGHT_OF_A_NAME = 2
QUESTION_MARKS = ("?", "\uff1f", "\u304b\u3002", "\u304b", "\u5417", "\u5417\u3002")


@dataclass(frozen=True)
class _Language:
    """One language: a pattern for each list, and one for each concept and organ."""

    code: str
    lists: Mapping[str, re.Pattern[str]]
    joins: re.Pattern[str]
    names: Mapping[str, re.Pattern[str]]
    organs: Mapping[str, re.Pattern[str]]
    measures: Mapping[Measure, re.Pattern[str]]


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
            name: _pattern(rows.get(name, []), code)
            for name in (
                *(key for key in rows if key not in NO_LISTS),
                "case_before",
                "case_behind",
                "worried",
            )
        }
        joins = re.compile(rf"\s*(?:(?:{'|'.join(map(folded, rows['joins']))})\s*)+")
        names = {concept: _pattern(forms, code) for concept, forms in rows["names"].items()}
        organs = {region: _pattern(forms, code) for region, forms in rows["organs"].items()}
        measures = {measure: _pattern(forms, code) for measure, forms in rows["measures"].items()}
        found.append(_Language(code, lists, joins, names, organs, measures))
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
    if ENGLISH.search(low):
        return False
    accented = sum(not mark.isascii() for mark in letters) > 0 and len(head) < LONGEST
    strange = accented and not any(is_english(word) for word in re.findall(r"[^\W\d_]{3,}", low))
    return strange or bool(_other_denials().search(low))


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
    known = sum(is_english(word) for word in re.findall(r"[^\W\d_]{4,}", low))
    english = max(len(ENGLISH.findall(low)), known // 2)
    scores = {
        one.code: _score(one, low, english) + _marks(one.code, text)
        for one in _languages()
        if one.code not in ("zh", "ja", "hi")
    }
    best = max(scores, key=lambda code: scores[code])
    least = 2 if len(text) <= LONGEST else 6
    return best if scores[best] >= least and scores[best] > english else None


def _marks(code: str, text: str) -> int:
    return min(2, sum(text.lower().count(mark) for mark in MARKS[code]))


def _score(language: _Language, low: str, english: int) -> int:
    """Words of the language in the text that are no English words; the names of structures count twice."""
    lists = [language.lists[name] for name in ("asks", "doubt", "not_before", "not_behind")]
    said, denied = (
        {match.start() for pattern in some for match in pattern.finditer(low) if _is_foreign(match)}
        for some in (lists, lists[2:])
    )
    length = len(low.split())
    if length > 3 and not said and not _marks(language.code, low):
        return 0  # names of tumours are alike in all languages: without a word of grammar they say nothing
    if length > LONG and len(said) + len(denied) <= english:
        return 0
    named = {
        m.start() for pattern in language.names.values() for m in pattern.finditer(low) if _is_foreign(m)
    }
    return len(said) + len(denied) + _WEIGHT_OF_A_NAME * len(named)


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
    hits = {
        r: max((len(m.group()) for m in pattern.finditer(low)), default=0)
        for r, pattern in language.organs.items()
    }
    region = organ or (max(hits, key=lambda r: hits[r]) if any(hits.values()) else None)
    worried = (
        (NO_JUDGEMENT,) if language.lists["worried"].search(low) and re.search(r"[?\uff1f]", text) else ()
    )
    note = f"read as {NAMES[code]} by a word list; check the targets, or say it in English"
    opened = language.lists["everything"].search(low)
    if not named and opened:
        shown = survey_of(region, "everything", opened.group(), opened.start())
        return Request("exploratory", tuple(shown), region, notes=(note, *worried))
    if not named:
        raise NoTargetInWordsError(
            f"the words are {NAMES[code]} and name nothing that is known in it; please use English, "
            "or pass targets=[{label}] (labels: taxonomy://labels)."
        )
    named = _without_cases(language, low, named)
    said = {one: _assertion(language, low, one, named) for one in named}
    if low.rstrip(" )\"'").endswith(QUESTION_MARKS) and set(said.values()) == {"absent"}:
        said = dict.fromkeys(named, "present")  # "¿No hay ningún tumor aquí?" asks for it
    targets: dict[str, Target] = {}
    for one in named:
        target = _target(text, one, region, said[one])
        key = target.label or target.words
        if key not in targets or said[one] == "present":
            targets[key] = target
    places = places_in(text)
    related = _related(language, low, named, said, targets)
    wanted = [key for key, target in related.items() if target.assertion == "present"]
    if wanted and (places.points or places.boxes) and not any(target.relation for target in related.values()):
        chosen = Relation("selected", "point" if places.points else "box")
        related[wanted[0]] = replace(related[wanted[0]], relation=chosen)
    measures = tuple(
        name
        for name in get_args(Measure)
        if name in language.measures and language.measures[name].search(low)
    )
    asking = re.search(r"[?\uff1f]", text) and not places.points and not measures
    kind = "exploratory" if opened or asking else "request"
    return Request(
        "exploratory" if kind == "exploratory" else "request",
        tuple(related.values()),
        region,
        places.points,
        places.boxes,
        measures,
        notes=(note, *worried, *places.notes),
    )


def _without_cases(language: _Language, low: str, named: list[_ForeignMention]) -> list[_ForeignMention]:
    """ "Imagen de cáncer de mama: marca los linfocitos": the tumour only says what the slide is."""
    before, behind = language.lists["case_before"], language.lists["case_behind"]
    cases = [
        one
        for one in named
        if one.concept == "tumor"
        and (
            behind.match(low, one.end)
            or any(m.end() >= one.start - 1 for m in before.finditer(low, max(0, one.start - 30), one.start))
        )
    ]
    return [one for one in named if one not in cases] or named


def _names(language: _Language, low: str) -> list[_ForeignMention]:
    """All named objects, longest first where they overlap, in the order of the text; organs hide their own words."""
    if language.code == "zh":
        low = VERBS_OUT.sub("\u25a1\u25a1", low)
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
    if language.lists["doubt"].search(low, *_sentence(low, one)):
        return "uncertain"
    if language.code == "de" and low[one.start : one.end].endswith(("frei", "freie", "freies")):
        return "absent"
    if not before and not behind:
        return "present"
    denials = {*before, *behind}
    losing = [match.span() for match in language.lists["twice"].finditer(low, start, end)]
    if any(not any(_overlap(loss, denial) for denial in denials) for loss in losing):
        return "present" if _apart(denials) == 1 else "uncertain"
    if (
        losing
        and _apart(denials) > 1
        and any(_overlap(loss, denial) for loss in losing for denial in denials)
    ):
        return "present" if _apart(denials) == 2 else "uncertain"  # "no ignores"
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


def _apart(spans: set[tuple[int, int]]) -> int:
    """How many of them do not overlap an earlier one."""
    count, end = 0, -1
    for first, last in sorted(spans):
        count += first >= end
        end = max(end, last)
    return count


def _sentence(low: str, one: _ForeignMention) -> tuple[int, int]:
    ends = [match.end() for match in SENTENCES.finditer(low)]
    return max((e for e in ends if e <= one.start), default=0), min(
        (e for e in ends if e > one.end), default=len(low)
    )


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _spans(language: _Language, name: str, low: str, start: int, end: int) -> list[tuple[int, int]]:
    return [match.span() for match in language.lists[name].finditer(low, start, end)]


def _between(names: list[_ForeignMention], start: int, end: int) -> bool:
    return any(start <= other.start < end for other in names)


def _joined(language: _Language, low: str, end: int, start: int) -> bool:
    return (end == start and language.code in _SPACELESS) or bool(language.joins.fullmatch(low, end, start))


def _head(
    language: _Language, low: str, one: _ForeignMention, names: list[_ForeignMention]
) -> _ForeignMention:
    """The first name of the list "A y B", "A ni B" that a name belongs to."""
    for other in reversed([other for other in names if other.end <= one.start]):
        if not _joined(language, low, other.end, one.start):
            break
        one = other
    return one


def _tail(
    language: _Language, low: str, one: _ForeignMention, names: list[_ForeignMention]
) -> _ForeignMention:
    """The last name of its list."""
    for other in (other for other in names if other.start >= one.end):
        if not _joined(language, low, one.end, other.start):
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
