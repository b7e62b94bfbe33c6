"""A report cut into segments: the stretches of words within which a negation or a heading has its say.

Scanners turn line ends into full stops, so a stop counts as an end only when the words around it agree.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tissuetalk.prompts.lexicon import ARTICLES, Node, branches_of, grow, steps_of, walk
from tissuetalk.prompts.organs import CLUE_WEIGHT, organ_hits
from tissuetalk.prompts.words import Token, Words, load_terms, phrase, word_set

Section = Literal["body", "history", "family", "addendum", "gross", "order"]

LONGEST_ORDER = 2_000
LONGEST_SEGMENT = 150
"""Tokens after which a segment is cut even without punctuation, so that the work stays in proportion to the text."""
OPEN_WORDS = word_set(
    "a an the of in into and or with without no not by for from to at as is are was were which that "
    "than on its per nor neither any all each both this these those between within through "
    "approximately including involving measuring"
)
CLOSING_WORDS = word_set("is are was were of and or in with which that")
YEAR = re.compile(r"(?:19|20)\d\d")
DASH = re.compile(r"\s+[-\u2013\u2014]\s+|\s*[.\u2026]{3,}\s*|\s*\|\s*|\s*\t\s*")
BULLET = re.compile(r"(?:^|\s)[-*\u2022\u00b7](?=\s|$)|\n\s*\n|\n\s*[-*\u2022]|\t|\|")
TABLE_GAP = re.compile(r"\s{2,}|[\t:?.|]")
NO_SECTION = word_set("no not unlike compared as in contrast like")
"""A heading that begins so compares with what it names: "No change from the previous biopsy:"."""
NOTS = word_set("not never neither")
PRIOR = word_set("previous prior earlier")
DOUBTING = word_set("suspicious suggestive concerning worrisome")
CANNOT = word_set("cannot can't couldn't isn't aren't wasn't weren't doesn't didn't hasn't haven't")
CLOSING = CANNOT | {"not", "gone"}
TAKEN_WORD = re.compile(r"biops|specimen|resect|excis|material|slide|report|section|ectomy|polyp")
PASSIVE = re.compile(r"was|were|been|first|originally|\w*ed")
VALUES = word_set("no yes none absent present negative positive nil neg pos")
TAKEN = re.compile(r"biops|specimen|excision|resection|curett|ectomy\b", re.IGNORECASE)
LETTERED = re.compile(r"(?:^|[\s.\n])(?:\(?[A-Z0-9]{1,2}\)|[A-Z]\.|\d{1,2}[.:])$")


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `first`..`last`. `key` segments end at a colon; their value is the next segment of the same sentence."""

    first: int
    last: int
    sentence: int
    key: bool
    empty_value: bool
    section: Section


def segments(words: Words, inside: frozenset[int]) -> list[Segment]:
    """Cut a text. `inside` holds the tokens that continue a phrase of the lexicon: no cut stands before them."""
    cuts: list[tuple[int, int, str]] = []
    start = 0
    for index in range(1, len(words) + 1):
        mark = "." if index == len(words) else _cut(words, index, inside)
        if not mark and index - start >= LONGEST_SEGMENT and index not in inside:
            mark = "."
        if mark:
            cuts.append((start, index - 1, mark))
            start = index
    return _with_sections(words, cuts)


def _cut(words: Words, index: int, inside: frozenset[int]) -> str:
    """What ends between tokens index-1 and index: '.' a sentence, ':' a heading, '' nothing."""
    before, after = words[index - 1], words[index]
    gap = words.gap(index - 1, index)
    if index in inside or gap in (" ", "-", ", ", "/"):
        return ""
    if (DASH.fullmatch(gap) or gap in (" [", "[")) and _is_value(words, index):
        return ":"
    if ":" in gap and index > 1 and before.norm in VALUES and words.gap(index - 2, index - 1).startswith("?"):
        return "."  # "Dysplasia? No: reactive change"
    if ":" in gap and not gap.startswith("::"):
        return "." if "\n" in gap[gap.index(":") :] and _is_heading_line(words.text, after.start) else ":"
    if ";" in gap or "!" in gap or gap.startswith("?"):
        answered = after.norm in ("no", "yes", "none", "absent", "present") and (
            _closes(words, index) or words.text[after.end : after.end + 1] == ":"
        )
        return ":" if gap == "? " and answered else "."
    if "=" in gap:
        return ""
    if gap.strip() in ("/", "//") and (before.norm in VALUES or _opens_field(words, index)):
        return "."
    if BULLET.search(gap):
        return "."
    if "\n" in gap:
        if before.norm in VALUES and index > 1 and TABLE_GAP.search(words.gap(index - 2, index - 1)):
            return "."  # a row of a table ends with its value
        titled = _is_title_line(words.text, before.start) or _is_title_line(words.text, after.start)
        return "." if gap.count(".") or titled or _is_heading_line(words.text, after.start) else ""
    if "." in gap or ("[" in gap or "]" in gap):
        asked = words.gap(index - 2, index - 1) if index > 1 else ""
        if before.norm in ("no", "yes") and ({":", "?"} & set(asked) or ".." in asked):
            return "."  # the "no" of a field does not go on with the next sentence
        return "." if "." not in gap or _ends(before, after, words.text) else ""
    return ""


def _opens_field(words: Words, index: int) -> bool:
    """ "Tumour type: adenocarcinoma / Necrosis: absent": behind the slash a heading of few words with its colon."""
    for place in range(index, min(index + 7, len(words) - 1)):
        gap = words.gap(place, place + 1)
        if gap not in (" ", "-"):
            return gap.startswith(":")
    return False


def _is_value(words: Words, index: int) -> bool:
    """Whether a token opens the value of a field written with a dash or dots ("Necrosis - absent")."""
    end = index
    while end + 1 < len(words) and end - index < 4 and words.gap(end, end + 1) == " ":
        end += 1
    cues = find_cues(words, index, end, frozenset())
    said = cues[0].kinds if cues and cues[0].first <= index + 1 else frozenset()
    return bool(said & {"post_absent", "positive", "unknown"}) and cues[-1].last >= end - 1


def _is_heading_line(text: str, start: int) -> bool:
    line = text[start : start + 80].split("\n", 1)[0]
    return ":" in line


def _is_title_line(text: str, place: int) -> bool:
    """Whether the line around a place is nothing but the name of a section."""
    low, high = text.rfind("\n", 0, place) + 1, text.find("\n", place)
    line = text[low : high if high >= 0 else len(text)].strip()
    return 0 < len(line) < 48 and phrase(line) in section_names()


def _ends(before: Token, after: Token, text: str) -> bool:
    """Whether a full stop ends a sentence or is only the scanner's line end."""
    first = text[after.start]
    if before.norm == "not" and first.isupper() and text[before.start].islower():
        return True  # "whereas dysplasia is not. Plasma cells": elsewhere a scanner's stop after "not" is a line end
    if (
        after.norm == "in"
        and first.isupper()
        and text[before.end - 1].islower()
        and text[after.end : after.end + 2] != " s"
    ):
        return True  # "is seen. In 2016": a scanner's stop before "in" leaves it small
    if before.norm in OPEN_WORDS or after.norm in CLOSING_WORDS:
        return False
    lettered = len(before.lower) == 1 and before.lower.isalpha() and text[before.start].isupper()
    if lettered and text[before.start - 1 : before.start] != "-":  # "on PAS-D. Basal hyperplasia"
        return False
    return not first.islower() or _is_lower(text)


@lru_cache(maxsize=4)
def _is_lower(text: str) -> bool:
    return text.islower()


def _with_sections(words: Words, cuts: Sequence[tuple[int, int, str]]) -> list[Segment]:
    found: list[Segment] = []
    section: Section = "body"
    sentence = 0
    for number, (first, last, mark) in enumerate(cuts):
        key = mark == ":"
        opened = _section_of(words, first, last, key)
        if opened is not None:
            section = opened
        elif section in ("history", "family") and _new_specimen(words, first, last, key):
            section = "body"
        tail = words.text[words[last].end : words[last].end + 3]
        empty = mark == "." and tail.lstrip(" )").startswith(":")
        found.append(Segment(first, last, sentence, key, empty, section))
        if not key or number + 1 == len(cuts):
            sentence += 1
    return found


def _section_of(words: Words, first: int, last: int, key: bool) -> Section | None:
    names = section_names()
    norms = tuple(words.norms(first, last + 1))
    if norms and norms[0] in NO_SECTION:
        return None
    if not key:
        return names.get(norms)  # type: ignore[return-value]  # the file holds only section names
    for size in range(len(norms), 0, -1):
        if norms[-size:] in names:
            return names[norms[-size:]]  # type: ignore[return-value]  # the file holds only section names
        if norms[:size] in names and len(norms) - size <= 2:
            return names[norms[:size]]  # type: ignore[return-value]  # as above
    return None


def _new_specimen(words: Words, first: int, last: int, key: bool) -> bool:
    """A lettered heading, one in capitals or one that names an organ before a colon, ends the clinical history."""
    if has_phrase(words, first, last, "now_looking"):
        return True
    if (
        key
        and last - first < 4
        and any(weight >= CLUE_WEIGHT for *_, weight in organ_hits(words.part(first, last + 1)))
    ):
        return True
    if LETTERED.search(words.text[max(0, words[first].start - 9) : words[first].start].rstrip()):
        return True
    span = words.quote(first, last)
    return key and last - first < 12 and (span.isupper() or bool(TAKEN.search(span)))


ADDRESSED = re.compile(
    r"[(\[\"\u201c]\s*(?:(?:note )?(?:to|for) (?:the )?|dear |attention )?(?:image )?"
    r"(?:software|ai|assistant|system|model|llm|algorithm|computer|chatbot)\b[^()\[\]:]{0,40}:[^()\[\]\"\u201d]{0,600}[)\]\"\u201d]",
    re.IGNORECASE,
)
"""A bracket that speaks to a machine."""
SPECIMEN_MARK = re.compile(
    r"(?:(?:specimen|part|block|sample|jar)\s*#?\s*)?(?:[A-Z]|\d{1,2})\s?[).:]", re.IGNORECASE
)


def opens_specimen(words: Words, index: int) -> bool:
    """Whether a token begins "A.", "2)" or "Part 3:" at the start of a line or a sentence."""
    start = words[index].start
    before = words.text[max(0, start - 4) : start].rstrip(" \t(")
    return (not before or before[-1] in ".;\n:") and bool(SPECIMEN_MARK.match(words.text, start))


def order_spans(words: Words) -> list[tuple[int, int]]:
    """Character spans that give orders to a machine or a reader: the whole bracket, or to the end of the sentence."""
    wanted = phrases("order_phrases")
    norms = words.norms(0, len(words))
    spans = [found.span() for found in ADDRESSED.finditer(words.text)]
    addressed, reached = covering(spans), 0
    for index, word in enumerate(words):
        if word.start < reached or addressed(word.start):
            continue
        if not any(tuple(norms[index : index + size]) in wanted for size in range(2, 6)):
            continue
        spans.append(_around(words.text, word.start))
        reached = spans[-1][1]
    return spans


def covering(spans: Sequence[tuple[int, int]]) -> Callable[[int], bool]:
    """Whether a place lies in any of the spans, in less time than looking through them."""
    ends: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if not ends or high > ends[-1][1]:
            ends.append((low, high))
    starts = [low for low, _ in ends]

    def covered(place: int) -> bool:
        at = bisect_right(starts, place) - 1
        return at >= 0 and place < ends[at][1]

    return covered


def _around(text: str, start: int) -> tuple[int, int]:
    """The bracket or quotation around a place, else from it to the end of its sentence."""
    for opening, closing in (
        ("[", "]"),
        ("<", ">"),
        ("{", "}"),
        ('"', '"'),
        ("\u201c", "\u201d"),
        ("(", ")"),
    ):
        low = text.rfind(opening, max(0, start - 300), start + 1)
        high = text.find(closing, start, start + LONGEST_ORDER)
        if low >= 0 and high >= 0 and closing not in text[low + 1 : start]:
            return low, high + 1
    ending = re.compile(r"[.!?](?=\s+[A-Z]|\s*$)|\n").search(text, start, start + LONGEST_ORDER)
    return start, ending.end() if ending else min(len(text), start + LONGEST_ORDER)


CUE_KINDS = (
    "pre_family",
    "verbs",
    "stop",
    "current",
    "positive",
    "pre_historical",
    "post_historical",
    "post_absent",
    "pre_absent",
    "post_uncertain",
    "pre_uncertain",
    "unknown",
    "pseudo",
)


@dataclass(frozen=True, slots=True)
class Cue:
    """A cue phrase at tokens `first`..`last`; a phrase can speak both ways, so it can have several kinds."""

    kinds: frozenset[str]
    first: int
    last: int


@lru_cache(maxsize=1)
def _tree() -> Node:
    kinds: dict[tuple[str, ...], set[str]] = {}
    for kind in CUE_KINDS:
        for text in load_terms("cues.yaml")[kind]:
            for steps in steps_of("cues.yaml", str(text)):
                kinds.setdefault(steps, set()).add(kind)
    tree: Node = {}
    for steps, found in kinds.items():
        grow(tree, steps, frozenset(found))
    return tree


def _longest_cue(words: Words, start: int, stop: int) -> tuple[int, frozenset[str]] | None:
    found = walk(_tree(), words, start, stop, _skipped(), branches_of("cues.yaml"))
    return None if found is None else (found[0], frozenset().union(*found[1]))


@lru_cache(maxsize=1)
def _skipped() -> frozenset[str]:
    return ARTICLES | frozenset(load_terms("cues.yaml")["adverbs"])


def find_cues(words: Words, first: int, last: int, taken: frozenset[int]) -> list[Cue]:
    """All cues among tokens `first`..`last`, longest first from the left, none inside a named object (`taken`)."""
    cues: list[Cue] = []
    ends = _ends_of(first, last, taken)
    index = first
    while index <= last:
        end = ends[index - first]
        found = _longest_cue(words, index, end) if end > index else None
        if found is not None and words[found[0]].norm in NOTS and found[0] > index:
            # "is not" is the beginning of "not associated with", "neither ... nor", "not without"
            further = _longest_cue(words, found[0], end)
            if further is not None and further[0] > found[0]:
                index, found = found[0], further
        if words[index].norm == "free" and index - 1 in taken and words.gap(index - 1, index) == "-":
            found = index, frozenset({"post_absent"})  # "tumour-free"
        if found is not None and words[index].norm == "v" and words.text[words[index].start] == "V":
            found = None  # "factor V"
        found = found or _built_cue(words, index, first, end)
        if found is None:
            index += 1
            continue
        kinds = found[1]
        if words[found[0]].norm == "negative" and words.norms(found[0] + 1, found[0] + 2) == ["for"]:
            # "tumour cells are negative for keratin": the tumour cells are there
            kinds = frozenset({"pre_absent"})
        elif words[index].norm in CLOSING and found[0] == index > first and _closes(words, index):
            kinds = frozenset({"post_absent"})  # "carcinoma is there, necrosis isn't."
        elif words[index].norm == "no" and found[0] == index and _closes(words, index):
            kinds = frozenset({"post_absent", "pre_absent"})  # "necrosis no, haemorrhage yes"
        elif words[index].norm in NOTS and DOUBTING & set(words.norms(index - 3, index)):
            if {"diagnostic", "definitive", "conclusive"} & set(words.norms(index + 1, index + 2)):
                kinds = frozenset({"pre_uncertain"})  # "suspicious, but not diagnostic, of"
        elif "positive" in kinds and {"still", "again"} & set(words.norms(index, found[0])):
            kinds |= {"current"}  # "is still present"
        elif (
            kinds == {"pseudo"}
            and words.norms(found[0] + 1, found[0] + 2) == ["which"]
            and words[index].norm in PRIOR
        ):
            kinds = frozenset({"pre_historical"})  # "compared with the previous biopsy, which held dysplasia"
            found = min(found[0] + 2, last), kinds
        start = index
        if kinds == {"post_historical"} and words[index].norm == "in":
            while start > first and start - 1 not in taken and PASSIVE.fullmatch(words[start - 1].lower):
                start -= 1  # "was diagnosed in 2012"
            cues = [cue for cue in cues if cue.last < start]
        cues.append(Cue(kinds, start, found[0]))
        index = found[0] + 1
    return cues


def _ends_of(first: int, last: int, taken: frozenset[int]) -> list[int]:
    """For each token the next named object at or behind it, where a phrase of words ends."""
    ends = [last + 1] * (last - first + 2)
    for index in range(last, first - 1, -1):
        ends[index - first] = index if index in taken else ends[index - first + 1]
    return ends


def _built_cue(words: Words, index: int, first: int, end: int) -> tuple[int, frozenset[str]] | None:
    """Cues that no list can hold: years, and denials that close a clause ("carcinoma is seen, necrosis cannot.")."""
    norm = words[index].norm
    if norm == "in" and YEAR.fullmatch(" ".join(words.norms(index + 1, index + 2))):
        return index + 1, frozenset({"pre_historical" if index == first else "post_historical"})
    if YEAR.fullmatch(norm):
        return _dated(words, index, end)
    if (norm == "free" or norm in CLOSING) and index > first and _closes(words, index):
        return index, frozenset({"post_absent"})
    return None


def _dated(words: Words, index: int, stop: int) -> tuple[int, frozenset[str]] | None:
    """ "the 2018 biopsy showed" speaks of what follows, "carcinoma (2014)" of what stands before."""
    if index + 1 < stop and TAKEN_WORD.match(words[index + 1].lower) and words.go_on(index + 1):
        return index + 1, frozenset({"pre_historical"})
    around = words.text[max(0, words[index].start - 1) : words[index].end + 1]
    bracketed = around in (f"({words[index].lower})", f" {words[index].lower})")
    return (index, frozenset({"post_historical"})) if bracketed else None


def _closes(words: Words, index: int) -> bool:
    """Whether a comma, a stop or the end follows a token."""
    behind = words.text[words[index].end : words[index].end + 3]
    return not behind.strip() or (behind[0] in ",;.)\n" and not behind[1:].strip()[:1].isdigit())


@lru_cache(maxsize=32)
def phrases(name: str) -> frozenset[tuple[str, ...]]:
    """A list of `cues.yaml` as normalised phrases."""
    return frozenset(phrase(str(text)) for text in load_terms("cues.yaml")[name])


@lru_cache(maxsize=1)
def section_names() -> dict[tuple[str, ...], str]:
    """Which section a heading opens."""
    rows = load_terms("cues.yaml")["sections"]
    return {phrase(text): section for section, texts in rows.items() for text in texts}


def has_phrase(words: Words, first: int, last: int, name: str) -> bool:
    """Whether any phrase of the list stands among tokens `first`..`last`."""
    wanted, lengths = phrases(name), _lengths(name)
    norms = words.norms(first, last + 1)
    return not lengths.keys().isdisjoint(norms) and any(
        tuple(norms[i : i + n]) in wanted
        for i, norm in enumerate(norms)
        if norm in lengths
        for n in lengths[norm]
    )


@lru_cache(maxsize=128)
def _lengths(name: str) -> dict[str, tuple[int, ...]]:
    """By first word, how long the phrases of a list are; those of up to four words are looked for."""
    found: dict[str, set[int]] = {}
    for each in phrases(name):
        if len(each) <= 4:
            found.setdefault(each[0], set()).add(len(each))
    return {norm: tuple(sorted(lengths)) for norm, lengths in found.items()}
