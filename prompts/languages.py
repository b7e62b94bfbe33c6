"""Requests and lay questions in other languages than English, by word lists (`terms/languages.yaml`).

Names of structures are found, and simple denials bind within their part of the sentence. Where a denial binds nothing,
or words of a report stand in the text, nothing is decided for the reader: the finding is uncertain, or English is asked
for. A finding is never inverted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from tissuetalk.models.errors import NoTargetInWordsError
from tissuetalk.prompts.foreign_lists import NAMES, SPACELESS, Language, folded, languages
from tissuetalk.prompts.lexicon import lexicon
from tissuetalk.prompts.request.places import places_in
from tissuetalk.prompts.request.survey import NO_JUDGEMENT, survey_of
from tissuetalk.prompts.target import Assertion, Measure, Relation, Request, Target

PARTS = re.compile(r"[.,;:!?\n\u3002\uff0c\u3001\uff1b\uff1a\uff01\uff1f\u0964]")
SENTENCES = re.compile(r"[.;!?\n\u3002\uff1b\uff01\uff1f\u0964]")
PARTICLES = ("", "de", "d", "di", "a", "que", "che", "zu", "me", "le", "les", "la", "los", "las")
"""What may stand between a denial and the verb it denies."""
VERBS_OUT = re.compile("[标画圈找指勾数列]出")
"""Chinese verbs whose second half begins other words (标出, 出血)."""
MOST_LEFT = 6
QUESTION_MARKS = ("?", "\uff1f", "\u304b\u3002", "\u304b", "\u5417", "\u5417\u3002")


@dataclass(frozen=True)
class _ForeignMention:
    concept: str
    start: int
    end: int


def read_foreign(text: str, code: str, organ: str | None) -> Request:
    """A request or a question in one of the languages.

    Raises:
        NoTargetInWordsError: it names nothing that is known there, or it reads like a report; English is asked for.
    """
    language = next(one for one in languages() if one.code == code)
    low = folded(text)
    left = _left_over(language, text, low)
    named = _without_vague(_names(language, low), left)
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
        notes=(note, *left, *worried, *places.notes),
    )


def _left_over(language: Language, text: str, low: str) -> tuple[str, ...]:
    """One line that names the long words no list knows: what is not understood is said."""
    if language.code in (*SPACELESS, "hi"):
        return ()
    patterns = (
        *language.lists.values(),
        *language.names.values(),
        *language.organs.values(),
        *language.measures.values(),
    )
    known = [match.span() for pattern in patterns for match in pattern.finditer(low)]
    left = [
        text[start:end]
        for start, end in (match.span() for match in re.finditer(r"[^\W\d_]{6,}", low))
        if not any(first < end and start < last for first, last in known)
    ]
    return (f"not understood: {', '.join(left[:MOST_LEFT])}",) if left else ()


def _without_vague(named: list[_ForeignMention], left: Sequence[str]) -> list[_ForeignMention]:
    """ "cells" alone says nothing once a closer object is named, and not enough beside a word that nobody knows."""
    closer = [one for one in named if one.concept != "cell"]
    return closer if closer or left else named


def _without_cases(language: Language, low: str, named: list[_ForeignMention]) -> list[_ForeignMention]:
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


def _names(language: Language, low: str) -> list[_ForeignMention]:
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


def _part(language: Language, low: str, one: _ForeignMention) -> tuple[int, int]:
    """The part of the sentence between punctuation and words of contrast in which a name stands."""
    denials = [match.span() for match in language.lists["not_before"].finditer(low)]
    edges = [match.end() for match in PARTS.finditer(low)]
    edges = [edge for edge in edges if not any(first < edge <= last for first, last in denials)]
    edges += [
        match.start()
        for match in language.lists["contrast"].finditer(low)
        # "no hace falta marcar": a verb right behind a denial opens no wish of its own
        if not any(
            first < match.start() < last
            or (last <= match.start() and low[last : match.start()].strip(" ',") in PARTICLES)
            for first, last in denials
        )
    ]
    start = max((edge for edge in edges if edge <= one.start), default=0)
    end = min((edge for edge in edges if edge > one.end), default=len(low))
    return start, end


def _assertion(language: Language, low: str, one: _ForeignMention, named: list[_ForeignMention]) -> Assertion:
    """Wanted, not wanted, or uncertain where the words say more than the lists can bind."""
    start, end = _part(language, low, one)
    before, behind = (_spans(language, f"not_{where}", low, start, end) for where in ("before", "behind"))
    # "y deja fuera los linfocitos": the longer wording speaks of the name behind it, whatever its last word does alone.
    behind = [
        span
        for span in behind
        if not any(
            _overlap(span, other)
            and other[1] - other[0] > span[1] - span[0]
            and _between(named, other[1], end)
            for other in before
        )
    ]
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


def _spans(language: Language, name: str, low: str, start: int, end: int) -> list[tuple[int, int]]:
    return [match.span() for match in language.lists[name].finditer(low, start, end)]


def _between(names: list[_ForeignMention], start: int, end: int) -> bool:
    return any(start <= other.start < end for other in names)


def _joined(language: Language, low: str, end: int, start: int) -> bool:
    return (end == start and language.code in SPACELESS) or bool(language.joins.fullmatch(low, end, start))


def _head(
    language: Language, low: str, one: _ForeignMention, names: list[_ForeignMention]
) -> _ForeignMention:
    """The first name of the list "A y B", "A ni B" that a name belongs to."""
    for other in reversed([other for other in names if other.end <= one.start]):
        if not _joined(language, low, other.end, one.start):
            break
        one = other
    return one


def _tail(
    language: Language, low: str, one: _ForeignMention, names: list[_ForeignMention]
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
    language: Language,
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
    if language.code in SPACELESS:
        gap += low[wanted[1].end : wanted[1].end + 1]
    op: Any = next((name for name in ("outside", "inside") if language.lists[name].search(gap)), None)
    subject, reference = (
        (wanted[1], wanted[0]) if language.code in (*SPACELESS, "hi") else (wanted[0], wanted[1])
    )
    keys = [
        key for one in (subject, reference) for key, target in targets.items() if target.start == one.start
    ]
    if op is None or len(set(keys)) != 2:
        return targets
    return {**targets, keys[0]: replace(targets[keys[0]], relation=Relation(op, keys[1]))}
