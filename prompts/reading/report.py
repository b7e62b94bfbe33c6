"""A pathology report as findings: what is stated to be in the specimen, ruled out, doubtful, or only history."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tissuetalk.prompts.lexicon import Concept, Placement, lexicon, read_words
from tissuetalk.prompts.organs import organ_hits, organ_of
from tissuetalk.prompts.reading.assertion import (
    SegmentReader,
    Verdict,
    counted,
    heading_verdict,
    signed,
    value_verdict,
)
from tissuetalk.prompts.reading.filters import called_normal, keep
from tissuetalk.prompts.reading.mentions import Mention, find_mentions, spoken
from tissuetalk.prompts.reading.segments import Segment, has_phrase, order_spans, segments
from tissuetalk.prompts.target import Assertion, Target
from tissuetalk.prompts.words import Words

WITHDRAWN = ("unclear whether", "uncertain whether", "unclear if", "withdrawn", "not confirmed")

IN_SITU = frozenset({"dcis", "lcis", "cis"})


@dataclass(frozen=True)
class Finding:
    """One mention that counts: its assertion, where it stands, and the words that decided.

    region: the organ whose label is meant. replaces: it overrides what was said before it (an addendum).
    unqualified: a gland or epithelium that nobody called normal.
    """

    mention: Mention
    concept_id: str
    assertion: Assertion
    region: str | None
    start: int
    end: int
    replaces: bool = False
    unqualified: bool = False


@dataclass(frozen=True)
class Reading:
    """All findings of a report and the organ it is about."""

    findings: tuple[Finding, ...]
    organ: str | None
    words: Words


def read_report(text: str, organ: str | None) -> Reading:
    """Find every mention, decide each one, and leave out what no reader would outline (margins, stages, orders)."""
    words = read_words(text, loose=False)
    mentions = find_mentions(words)
    inside = frozenset(i for m in mentions for i in range(m.core_first + 1, m.last + 1))
    parts = segments(words, inside)
    orders = order_spans(words)
    region = organ or _organ(words, parts, orders)
    findings: list[Finding] = []
    grouped = _by_segment(parts, mentions)
    for number, part in enumerate(parts):
        own = grouped.get(number, [])
        if not own:
            continue
        reader = SegmentReader(words, part, own)
        value = (
            parts[number + 1]
            if number + 1 < len(parts) and parts[number + 1].sentence == part.sentence
            else None
        )
        heading = parts[number - 1] if number and parts[number - 1].sentence == part.sentence else None
        named = grouped.get(number + 1, []) if part.key and value is not None else []
        for mention in own:
            if (
                named
                and mention.concept.id in IN_SITU
                and any(other.concept.id in IN_SITU for other in named)
            ):
                continue
            verdict = _decide(
                words,
                reader,
                mention,
                part,
                value,
                orders,
                heading,
                bool(grouped.get(number - 1)) if heading else False,
            )
            if verdict.assertion is None:
                continue
            said = verdict.assertion
            if not keep(words, mention, said, part, heading, own, region):
                continue
            findings.append(_finding(words, mention, verdict, part, region))
    findings += _tumor_in_vessels(words, parts, grouped, region)
    findings += _normal_organ(words, parts, region)
    findings.sort(key=lambda finding: finding.start)
    return Reading(tuple(findings), region, words)


def _by_segment(parts: Sequence[Segment], mentions: Sequence[Mention]) -> dict[int, list[Mention]]:
    grouped: dict[int, list[Mention]] = {}
    number = 0
    for mention in mentions:
        while number + 1 < len(parts) and parts[number].last < mention.core_first:
            number += 1
        grouped.setdefault(number, []).append(mention)
    return grouped


def _organ(words: Words, parts: Sequence[Segment], orders: Sequence[tuple[int, int]]) -> str | None:
    heads = [words[part.first].start for part in parts if part.key] + [0]
    ignored = [
        (words[part.first].start, words[part.last].end)
        for part in parts
        if part.section in ("history", "family")
    ]
    return organ_of(words, heads=heads, ignored=[*ignored, *orders])


def _decide(
    words: Words,
    reader: SegmentReader,
    mention: Mention,
    part: Segment,
    value: Segment | None,
    orders: Sequence[tuple[int, int]],
    heading: Segment | None,
    named_in_heading: bool,
) -> Verdict:
    start = words[mention.core_first].start
    if any(low <= start < high for low, high in orders):
        return Verdict("absent")
    verdict = reader.verdict(mention)
    number = counted(words, mention, value.last if part.key and value else part.last)
    if (sign := signed(words, part)) is not None:
        return Verdict(sign)
    if heading is not None and verdict.assertion == "present" and not named_in_heading:
        verdict = heading_verdict(words, heading)
    if part.empty_value and not _opens_fields(mention):
        return Verdict(None)
    if part.key:
        said = value_verdict(words, value)
        if said.assertion != "present" or (verdict.assertion == "absent" and _is_affirmed(words, value)):
            verdict = said
    elif _unanswered(reader, mention):
        return Verdict(None)
    if number is None:
        return Verdict(None)
    if number == "absent" or (number == "present" and verdict.assertion is None):
        verdict = Verdict("absent" if number == "absent" else "present")
    if verdict.assertion is not None and part.section in ("history", "family"):
        return Verdict("historical", verdict.cue)
    return verdict


def _opens_fields(mention: Mention) -> bool:
    """A tumour's full name before a colon heads the fields about it; it is not an empty field itself."""
    return mention.concept.id == "tumor" and mention.last > mention.first


def _is_affirmed(words: Words, value: Segment | None) -> bool:
    return value is not None and words[value.first].norm in (
        "present",
        "yes",
        "identified",
        "positive",
        "extensive",
    )


def _unanswered(reader: SegmentReader, mention: Mention) -> bool:
    """ "lymphovascular invasion not assessed": a cue of no answer right behind the mention."""
    return any(
        "unknown" in cue.kinds
        and 0 < cue.first - mention.last <= 3
        and ("," not in reader.words.gap(mention.last, cue.first) or cue.first == mention.last + 1)
        for cue in reader.cues
    )


def _finding(words: Words, mention: Mention, verdict: Verdict, part: Segment, region: str | None) -> Finding:
    assertion = verdict.assertion or "present"
    concept = mention.concept
    own = _own_region(words, mention) if concept.id in ("tumor", "tumor_nuclei") else None
    other = own is not None and own != region and assertion in ("uncertain", "historical")
    first, last = mention.first, mention.last
    if verdict.cue is not None:
        first, last = min(first, verdict.cue.first), max(last, verdict.cue.last)
    cue_words = "" if verdict.cue is None else " ".join(words.norms(verdict.cue.first, verdict.cue.last + 1))
    return Finding(
        mention,
        concept.report_as or concept.id,
        assertion,
        own if other else region,
        words[first].start,
        words[last].end,
        replaces=part.section == "addendum" or cue_words.endswith(WITHDRAWN),
        unqualified=concept.weak and not called_normal(words, mention, part),
    )


def _own_region(words: Words, mention: Mention) -> str | None:
    """The organ a tumour's own name or its neighbour names: "renal cell carcinoma", "cancer of the colon"."""
    low, high = mention.first, mention.last
    after = words.norms(high + 1, high + 4)
    if after and after[0] in ("of", "in", "from"):
        high = min(high + 3, len(words) - 1)
    hits = organ_hits(words.part(low, high + 1))
    regions = [region for _, _, region, _ in hits if region != "elsewhere"]
    return regions[0] if regions else None


def _tumor_in_vessels(
    words: Words,
    parts: Sequence[Segment],
    grouped: dict[int, list[Mention]],
    region: str | None,
) -> list[Finding]:
    """ "Tumour is seen within vessels" and "tumour invades fat and vessel" say lymphovascular invasion in other words."""
    found: list[Finding] = []
    for number, own in grouped.items():
        tumors = [m for m in own if m.concept.id in ("tumor", "tumor_nuclei")]
        vessels = [m for m in own if m.concept.id in ("vessel", "lymphatic")]
        if not tumors or not vessels:
            continue
        tumor = tumors[0]
        vessel = next((v for v in vessels if 0 < v.first - tumor.last < 12), None)
        if vessel is None:
            continue
        between = set(words.norms(tumor.last + 1, vessel.first))
        reached = between & {"within", "inside", "into", "invade", "in", "involve", "penetrate"}
        if not reached or between & {"from", "around", "between", "space", "not", "no"}:
            continue
        reader = SegmentReader(words, parts[number], own)
        said = reader.verdict(vessel).assertion
        if said is None or parts[number].section in ("history", "family"):
            continue
        mention = Mention(lexicon().concepts["lvi"], tumor.first, vessel.last, tumor.first)
        found.append(Finding(mention, "lvi", said, region, words[tumor.first].start, words[vessel.last].end))
    return found


def _normal_organ(words: Words, parts: Sequence[Segment], region: str | None) -> list[Finding]:
    """ "Non-neoplastic lung: unremarkable" says normal tissue in the two organs that have a label for it."""
    if region not in ("lung", "prostate"):
        return []
    for part, value in pairwise(parts):
        if not part.key or value.sentence != part.sentence or part.last - part.first > 5:
            continue
        spared = has_phrase(words, part.first, part.last, "normal")
        fine = has_phrase(words, value.first, min(value.last, value.first + 3), "normal")
        if (
            spared
            and fine
            and region in {hit[2] for hit in organ_hits(words.part(part.first, part.last + 1))}
        ):
            mention = Mention(lexicon().concepts["normal_epithelium"], part.first, part.last, part.first)
            start, end = words[part.first].start, words[value.first].end
            return [Finding(mention, "normal_epithelium", "present", region, start, end)]
    return []


STRENGTH: dict[Assertion, int] = {"present": 0, "uncertain": 1, "absent": 2, "historical": 3}
IDENTIFIER = re.compile(
    r"\b(?:dr|mr|mrs|ms|prof|mrn|ssn|dob|accession|patient|name|md|phone|tel)\b|\d{4,}|\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d|@|\[|\]",
    re.IGNORECASE,
)
NORMAL_REGIONS = ("lung", "prostate", "breast")
LONGEST_EVIDENCE = 160


def targets_of(reading: Reading) -> tuple[Target, ...]:
    """One target per label (or per name, where no label exists), in the order of the text."""
    findings = _after_addenda(reading.findings)
    tumor_present = any(f.concept_id == "tumor" and f.assertion == "present" for f in findings)
    chosen: dict[str, tuple[Finding, Placement]] = {}
    for finding in findings:
        concept = lexicon().concepts[finding.concept_id]
        if concept.weak and not finding.unqualified and finding.region in NORMAL_REGIONS:
            concept = lexicon().concepts["normal_epithelium"]
        if concept.id == "gland" and tumor_present and finding.unqualified:
            continue
        place = placed(concept, finding.region, finding.assertion, tumor_present)
        key = place.label or (spoken(finding.mention, reading.words) if concept.own_words else concept.id)
        held = chosen.get(key)
        if held is None or STRENGTH[finding.assertion] < STRENGTH[held[0].assertion]:
            chosen[key] = (finding, place)
    ordered = sorted(chosen.values(), key=lambda pair: pair[0].start)
    return tuple(_target(finding, place, reading) for finding, place in ordered)


def placed(concept: Concept, region: str | None, assertion: Assertion, tumor_present: bool) -> Placement:
    """The label for a concept in a region, with the two rules that look beyond the concept itself."""
    if concept.in_situ and region != "breast" and tumor_present:
        near = lexicon().place(concept, region)
        kept = tuple(name for name in (near.label, *near.alternatives) if name)
        return Placement(
            None, concept.name, kept, "in situ disease beside an invasive tumour has no label of its own"
        )
    place = lexicon().place(concept, region)
    if assertion == "absent" and concept.alone and region not in ("breast", "colon"):
        rest = tuple(name for name in (place.label, *place.alternatives) if name and name != concept.alone)
        return Placement(
            concept.alone, place.words, rest, "a denied cell type does not deny the other inflammatory cells"
        )
    return place


def _after_addenda(findings: Sequence[Finding]) -> list[Finding]:
    """A later addendum, or a comment that withdraws, replaces what was said of the same object before."""
    held: dict[str, list[Finding]] = {}
    for finding in findings:
        own = held.setdefault(finding.concept_id, [])
        if finding.replaces and own and not own[-1].replaces:
            own.clear()
        own.append(finding)
    return sorted((finding for own in held.values() for finding in own), key=lambda finding: finding.start)


def _target(finding: Finding, place: Placement, reading: Reading) -> Target:
    evidence, start = quote(reading.words, finding.start, finding.end, *_name_span(finding, reading))
    return Target(
        place.label,
        spoken(finding.mention, reading.words),
        finding.assertion,
        evidence,
        start,
        finding.region,
        alternatives=place.alternatives,
        reason=place.reason,
    )


def _name_span(finding: Finding, reading: Reading) -> tuple[int, int]:
    return reading.words[finding.mention.first].start, reading.words[finding.mention.last].end


def quote(words: Words, start: int, end: int, name_start: int, name_end: int) -> tuple[str, int]:
    """The verbatim words for a target; cut down to the object's name when they are long or could identify anybody."""
    text = words.text
    if end - start <= LONGEST_EVIDENCE and not IDENTIFIER.search(text, start, end):
        return text[start:end], start
    return text[name_start:name_end], name_start
