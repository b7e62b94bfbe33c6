"""A request or a question as targets, relation, places and measures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tissuetalk.prompts.lexicon import ARTICLES, lexicon, read_words
from tissuetalk.prompts.measures import measures_in
from tissuetalk.prompts.organs import organ_of
from tissuetalk.prompts.reading.mentions import Mention, find_mentions, spoken
from tissuetalk.prompts.reading.report import evidence_of, without
from tissuetalk.prompts.reading.segments import order_spans, phrases
from tissuetalk.prompts.request.choices import choice_notes
from tissuetalk.prompts.request.places import places_in
from tissuetalk.prompts.request.relations import Found, find_relation
from tissuetalk.prompts.request.roles import Part, Role, roles_of
from tissuetalk.prompts.request.survey import open_question, survey
from tissuetalk.prompts.request.unknown import find_unknown
from tissuetalk.prompts.target import Assertion, Relation, Request, Target
from tissuetalk.prompts.words import Words, clean, word_set

QUOTED = re.compile(
    r'"([^"\n]{4,300})"|\u201c([^\u201d\n]{4,300})\u201d|\[([^\]\n]{8,400})\]|\'([^\'\n]{12,300})\''
)
SAYS: dict[Role, Assertion] = {"unwanted": "absent", "unclear": "uncertain", "past": "historical"}
BARE_NORMAL = frozenset({"normal", "healthy", "benign"})
WITHIN = word_set("in within inside of from")
SITE_NOTE = "“lymph node” was taken for where the specimen is from, as an organ is; nothing was cut out to a node's outline"


@dataclass(frozen=True)
class _Named:
    """What one target is made from: its name in the text and what is said of it."""

    target: Target
    mention: Mention | None
    assertion: Assertion


def read_request(text: str, organ: str | None, question: bool) -> Request:
    """Everything a request asks for; `question` when it is an open or lay question."""
    words = read_words(text, loose=True)
    quoted = _order_quotes(words)
    places = places_in(without(text, quoted))
    points, boxes, offsets = places.points, places.boxes, places.offsets
    mentions = _merged(find_mentions(words), words)
    ordered = [m for m in mentions if _inside(words[m.first].start, quoted)]
    mentions = [m for m in mentions if m not in ordered and not _asked_if_normal(words, m)]
    region = organ or organ_of(words, ignored=quoted) or _implied(mentions)
    mentions = _without_vague(mentions)
    sites = _sites(mentions, words)
    parts = roles_of(words, [mention for mention in mentions if mention not in sites])
    cells = any(p.mention.concept.kind == "cells" for p in parts if p.role == "wanted")
    measures = measures_in(without(text, quoted), single_objects=cells)
    opened = open_question(words, [part.mention for part in parts if part.role == "wanted"])
    relation: Found | None = None
    if not opened:
        relation, parts = find_relation(words, parts, measures)
    named = _names(words, parts, mentions, region, quoted) if not opened else []
    if opened:
        named = [n for n in _names(words, parts, mentions, region, quoted) if n.assertion == "absent"]
        left_out = {_key(one.target) for one in named}
        shown = [target for target in survey(words, region, opened) if _key(target) not in left_out]
        named += [_Named(target, None, "present") for target in shown]
        measures = ()
    named += [_Named(_target(words, m, region, "absent", None), m, "absent") for m in ordered]
    targets = _unique(named)
    targets = _related(targets, named, relation, words, points, boxes, offsets)
    kind: Literal["request", "exploratory"] = "exploratory" if question or opened else "request"
    wanted = [one.mention for one in named if one.mention is not None and one.assertion == "present"]
    notes = (*_notes(ordered, sites), *choice_notes(words, wanted), *places.notes)
    return Request(kind, tuple(targets), region, points, boxes, measures, notes=notes)


def _notes(ordered: Sequence[Mention], sites: Sequence[Mention]) -> tuple[str, ...]:
    notes = ("an order inside quoted text was not followed",) if ordered else ()
    return (*notes, SITE_NOTE) if sites else notes


def _order_quotes(words: Words) -> list[tuple[int, int]]:
    """Quoted text that gives orders, and sentences that order the reader about: data, not wishes."""
    spans = order_spans(words)
    verbs = {name[0] for name in phrases("order_verbs")}
    for match in QUOTED.finditer(words.text):
        inside = {word.norm for word in words if match.start() <= word.start < match.end()}
        if inside & verbs and len(inside) > 2:
            spans.append(match.span())
    return spans


def _inside(place: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(low <= place < high for low, high in spans)


def _implied(mentions: Sequence[Mention]) -> str | None:
    """The organ only one kind of object can come from (DCIS, glomerulus)."""
    organs = [mention.concept.organ for mention in mentions if mention.concept.organ]
    return organs[0] if organs else None


def _merged(mentions: list[Mention], words: Words) -> list[Mention]:
    """ "benign" right before "epithelial nuclei" is one object, and says which kind."""
    kept: list[Mention] = []
    for mention in mentions:
        last = kept[-1] if kept else None
        if last is not None and _is_bare_normal(last, words) and mention.first == last.last + 1:
            kept.pop()
            mention = replace(mention, first=last.first)
        kept.extend(_split(mention, words))
    return kept


def _split(mention: Mention, words: Words) -> list[Mention]:
    """ "tumour/stroma" is two objects where "tumour stroma" is one."""
    pair = [words[index].norm for index in range(mention.first, mention.last + 1)]
    if pair != ["tumor", "stroma"]:
        return [mention]
    gap = words.gap(mention.first, mention.last)
    if "/" not in gap and not ("-" in gap and "ratio" in set(words.norms(mention.last, mention.last + 3))):
        return [mention]
    first, last = mention.first, mention.last
    return [
        Mention(lexicon().concepts["tumor"], first, first, first),
        Mention(mention.concept, last, last, last),
    ]


def _asked_if_normal(words: Words, mention: Mention) -> bool:
    """ "Is it normal to have so many purple dots?" asks for no normal tissue."""
    before = words.norms(mention.first - 2, mention.first)
    asked = before[:1] in (["is"], ["are"], ["was"]) and before[-1] in ("it", "this", "that", "these", "they")
    return _is_bare_normal(mention, words) and asked


def _is_bare_normal(mention: Mention, words: Words) -> bool:
    return mention.first == mention.last and words[mention.first].norm in BARE_NORMAL


def _without_vague(mentions: list[Mention]) -> list[Mention]:
    """ "cells" alone says nothing once a closer object is named."""
    closer = [mention for mention in mentions if mention.concept.id != "cell"]
    return closer if closer else mentions


def _sites(mentions: Sequence[Mention], words: Words) -> list[Mention]:
    """ "metastasis in a lymph node": where the specimen is from, as in "in the breast", once something in it is named."""
    found = []
    for mention in mentions:
        before = [norm for norm in words.norms(mention.first - 2, mention.first) if norm not in ARTICLES]
        if mention.concept.id == "lymph_node" and before[-1:] and before[-1] in WITHIN:
            found.append(mention)
    return found if len(found) < len(mentions) else []


def _names(
    words: Words,
    parts: Sequence[Part],
    mentions: Sequence[Mention],
    region: str | None,
    quoted: Sequence[tuple[int, int]],
) -> list[_Named]:
    unknown = [one for one in find_unknown(words, mentions) if not _inside(words[one.first].start, quoted)]
    replaced = {id(one.extends) for one in unknown if one.extends is not None}
    live = [part for part in parts if part.role != "case"] or [p for p in parts if p.role == "case"]
    named: list[_Named] = []
    for part in live:
        if id(part.mention) in replaced:
            continue
        said = SAYS.get(part.role, "present")
        named.append(_Named(_target(words, part.mention, region, said, part.cue), part.mention, said))
        if (
            part.mention.concept.id == "lvi"
            and words[part.mention.last].norm == "vessel"
            and said == "present"
        ):
            vessel = Mention(
                lexicon().concepts["vessel"], part.mention.last, part.mention.last, part.mention.last
            )
            if "invasion" not in set(words.norms(part.mention.first, part.mention.last)):
                named.append(_Named(_target(words, vessel, region, said, None), vessel, said))
    for one in unknown:
        start, end = words[one.first].start, words[one.last].end
        near = () if one.extends is None else _near(one.extends, region)
        reason = "the lexicon does not know this object; it is asked for in these words"
        named.append(
            _Named(
                Target(
                    None,
                    clean(words.text[start:end]),
                    "present",
                    words.text[start:end],
                    start,
                    region,
                    None,
                    near,
                    reason,
                ),
                None,
                "present",
            )
        )
    return named


def _near(mention: Mention, region: str | None) -> tuple[str, ...]:
    place = lexicon().place(mention.concept, region)
    return tuple(name for name in (place.label, *place.alternatives) if name)


def _target(
    words: Words,
    mention: Mention,
    region: str | None,
    said: Assertion,
    cue: tuple[int, int] | None,
) -> Target:
    own = region or mention.concept.organ
    place = lexicon().place(mention.concept, own)
    first, last = (
        (mention.first, mention.last)
        if cue is None
        else (min(mention.first, cue[0]), max(mention.last, cue[1]))
    )
    name_start, name_end = words[mention.first].start, words[mention.last].end
    evidence, start = evidence_of(words, words[first].start, words[last].end, name_start, name_end)
    return Target(
        place.label,
        spoken(mention, words),
        said,
        evidence,
        start,
        own,
        alternatives=place.alternatives,
        reason=place.reason,
    )


def _unique(named: Sequence[_Named]) -> list[Target]:
    """One target per label or name; a wish beats an exclusion."""
    chosen: dict[str, Target] = {}
    for one in named:
        key = one.target.label or one.target.words
        held = chosen.get(key)
        if held is None or (held.assertion != "present" and one.assertion == "present"):
            chosen[key] = one.target
    return list(chosen.values())


def _related(
    targets: list[Target],
    named: Sequence[_Named],
    relation: Found | None,
    words: Words,
    points: Sequence[tuple[float, float]],
    boxes: Sequence[tuple[float, float, float, float]],
    offsets: Sequence[int],
) -> list[Target]:
    """Hang the relation on its subject: the one that was found, else the choice made by a point or a box."""
    by_mention = {id(one.mention): one.target for one in named if one.mention is not None}
    if relation is not None:
        op, subject, reference = relation
        carrier, other = by_mention.get(id(subject)), by_mention.get(id(reference))
        if carrier is None or other is None or _key(carrier) == _key(other):
            return targets
        return _with_relation(targets, carrier, Relation(op, _key(other)))
    wanted = [target for target in targets if target.assertion == "present"]
    if not wanted or not (points or boxes):
        return targets
    if points:
        earlier = [target for target in wanted if (target.start or 0) < offsets[0]]
        return _with_relation(targets, earlier[-1] if earlier else wanted[0], Relation("selected", "point"))
    return _with_relation(targets, wanted[0], Relation("selected", "box"))


def _with_relation(targets: list[Target], carrier: Target, relation: Relation) -> list[Target]:
    return [
        replace(target, relation=relation) if _key(target) == _key(carrier) else target for target in targets
    ]


def _key(target: Target) -> str:
    return target.label or target.words
