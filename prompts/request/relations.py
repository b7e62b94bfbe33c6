"""The set operation a request asks for between two of its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.request.roles import Part, find_terms, term_phrases
from tissuetalk.prompts.target import RelationOp
from tissuetalk.prompts.words import Words

Found = tuple[RelationOp, Mention, Mention]
CELLS = "cells"
AREA_MEASURES = frozenset({"area", "area_fraction"})


def find_relation(
    words: Words, parts: Sequence[Part], measures: Sequence[str]
) -> tuple[Found | None, list[Part]]:
    """The relation (op, subject, reference), and the parts with subtracted objects turned into wanted ones.

    A comparison of two places would need two relations, so it has none.
    """
    parts = list(parts)
    subtracted = _subtraction(words, parts, measures)
    if subtracted is not None:
        return subtracted
    live = [part.mention for part in parts if part.role == "wanted"]
    if len(live) < 2:
        return None, parts
    joint = _joint(words, live)
    if joint is not None:
        return joint, parts
    links = _links(words, live)
    if not links or (
        len({(id(one[1])) for one in links if one[0] == "inside"}) == 1 and _compared(words, links, live)
    ):
        return None, parts
    return links[0], parts


def _subtraction(
    words: Words, parts: list[Part], measures: Sequence[str]
) -> tuple[Found | None, list[Part]] | None:
    """ "tumour area excluding necrosis": what is taken away in space must be outlined too."""
    wanted = [part for part in parts if part.role == "wanted"]
    for number, part in enumerate(parts):
        if part.role != "unwanted" or part.cue is None or part.cue[0] > part.mention.last or not wanted:
            continue
        if wanted[0].mention.first > part.mention.last and "." in words.gap(
            part.mention.last, wanted[0].mention.first
        ):
            continue  # "Exclude the necrosis. Segment the tumour." names two wishes
        said = tuple(part.exclusion.split())
        spatial = said in term_phrases("always_space")
        able = said in term_phrases("subtracting") or spatial
        subject = _subject(wanted, part)
        regions = part.mention.concept.kind != CELLS and subject.concept.kind != CELLS
        broad = subject.concept.broad and part.mention.concept.kind != CELLS
        by_area = bool(AREA_MEASURES & set(measures)) and part.mention.concept.kind != CELLS
        soft = (
            said[0] in ("without", "ignoring", "leaving", "leave", "omitting", "less", "but") and not by_area
        )
        if spatial or (able and not soft and (regions or broad or by_area)):
            parts[number] = replace(part, role="wanted")
            return ("outside", subject, part.mention), parts
    return None


def _subject(wanted: Sequence[Part], part: Part) -> Mention:
    earlier = [other.mention for other in wanted if other.mention.first < part.mention.first]
    return earlier[-1] if earlier else wanted[0].mention


def _joint(words: Words, live: Sequence[Mention]) -> Found | None:
    """Union and overlap: words that speak of two objects at once."""
    found = find_terms(words, "union", "intersection")
    inside = {i for m in live for i in range(m.first, m.last + 1)}
    kinds = [kind for first, _, kind in found if first not in inside and words[first].norm != "both"]
    if "intersection" in kinds:
        return "intersection", live[0], live[1]
    return ("union", live[0], live[1]) if "union" in kinds else None


def _links(words: Words, live: Sequence[Mention]) -> list[Found]:
    """Prepositions between neighbours, or in front of the first of them."""
    found: list[Found] = []
    opening = _link(words, -1, live[0])
    if opening is not None and live[0].first - _first_link(words, live[0]) <= 5 and _opens(words, live[0]):
        found.append((opening, live[1], live[0]))
    subject = live[0]
    for one, other in pairwise(live):
        op = _link(words, one.last, other)
        if op is not None and not any(link[1] is other and link[2] is one for link in found):
            found.append((op, subject if _continues(words, one, other, found) else one, other))
        elif op is None and _holds(words, one, other):
            found.append(("inside", other, one))
        if op is None:
            subject = other
    return found


def _continues(words: Words, one: Mention, other: Mention, found: Sequence[Found]) -> bool:
    """ "A inside B but outside C": the second place still speaks of A."""
    between = set(words.norms(one.last + 1, other.first))
    return bool(found) and bool(between & {"but", "and"}) and found[-1][2] is one


def _link(words: Words, last: int, other: Mention) -> RelationOp | None:
    """What the words between a token and a mention say; the last preposition counts."""
    part = words.part(last + 1, other.first)
    if not part:
        return None
    gap = words.text[words[last].end if last >= 0 else 0 : words[other.first].start]
    if last >= 0 and any(mark in gap for mark in ".;:?"):
        return None
    found = find_terms(part, "inside", "always_space", *(("beside",) if last >= 0 else ()))
    if not found or len(part) - 1 - found[-1][1] > 3:
        return None
    if last >= 0 and found[-1][2] == "inside" and "," in gap and part[0].norm in ("and", "or"):
        return None
    behind = part[found[-1][1] + 1].norm if found[-1][1] + 1 < len(part) else ""
    if behind[:1].isdigit():
        return None
    return "inside" if found[-1][2] == "inside" else "outside"


def _first_link(words: Words, mention: Mention) -> int:
    found = find_terms(words.part(0, mention.first), "inside", "always_space")
    return found[-1][0] if found else -99


def _opens(words: Words, mention: Mention) -> bool:
    """ "Within the DCIS, segment the necrosis": the place stands first, then a comma or a verb."""
    if mention.last + 1 >= len(words):
        return False
    gap = words.gap(mention.last, mention.last + 1)
    return "," in gap or ":" in gap or _first_link(words, mention) <= 1


def _holds(words: Words, one: Mention, other: Mention) -> bool:
    """ "stroma with lymphocytes in it", "glands containing mucin"."""
    between = words.norms(one.last + 1, other.first)
    after = words.norms(other.last + 1, other.last + 3)
    return "containing" in between or (
        "with" in between and after[:2] in (["in", "it"], ["inside", "it"], ["in", "them"], ["within", "it"])
    )


def _compared(words: Words, links: Sequence[Found], live: Sequence[Mention]) -> bool:
    """ "plasma cells in tumour versus stroma": one subject, two places."""
    place = links[0][2]
    later = [m for m in live if m.first > place.last]
    if not later or len(live) < 3:
        return False
    between = set(words.norms(place.last + 1, later[0].first))
    return bool(between & {"versus", "vs", "v", "and", "or", "against", "with", "to", "than"})
