"""Findings become targets: one per label, the strongest statement about it, its verbatim words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tissuetalk.prompts.lexicon import Concept, Placement, lexicon
from tissuetalk.prompts.reading.mentions import spoken
from tissuetalk.prompts.reading.report import Finding, Reading
from tissuetalk.prompts.target import Assertion, Target

STRENGTH: dict[Assertion, int] = {"present": 0, "uncertain": 1, "absent": 2, "historical": 3}
IDENTIFIER = re.compile(
    r"\b(?:dr|mr|mrs|ms|prof|mrn|ssn|dob|accession|patient|name|md|phone|tel)\b|\d{4,}|\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d|@|\[|\]",
    re.IGNORECASE,
)
NORMAL_REGIONS = ("lung", "prostate", "breast")
LONGEST_EVIDENCE = 160


def targets_of(reading: Reading, text: str) -> tuple[Target, ...]:
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
        key = place.label or (
            spoken(finding.mention, reading.words, text) if concept.own_words else concept.id
        )
        held = chosen.get(key)
        if held is None or STRENGTH[finding.assertion] < STRENGTH[held[0].assertion]:
            chosen[key] = (finding, place)
    ordered = sorted(chosen.values(), key=lambda pair: pair[0].start)
    return tuple(_target(finding, place, reading, text) for finding, place in ordered)


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


def _target(finding: Finding, place: Placement, reading: Reading, text: str) -> Target:
    evidence, start = quote(text, finding.start, finding.end, *_name_span(finding, reading))
    return Target(
        place.label,
        spoken(finding.mention, reading.words, text),
        finding.assertion,
        evidence,
        start,
        finding.region,
        alternatives=place.alternatives,
        reason=place.reason,
    )


def _name_span(finding: Finding, reading: Reading) -> tuple[int, int]:
    return reading.words[finding.mention.first].start, reading.words[finding.mention.last].end


def quote(text: str, start: int, end: int, name_start: int, name_end: int) -> tuple[str, int]:
    """The verbatim words for a target; cut down to the object's name when they are long or could identify anybody."""
    if end - start <= LONGEST_EVIDENCE and not IDENTIFIER.search(text, start, end):
        return text[start:end], start
    return text[name_start:name_end], name_start
