"""A pathology report as findings: what is stated to be in the specimen, ruled out, doubtful, or only history."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tissuetalk.prompts.lexicon import Concept, Placement, lexicon, names_nobody, read_words
from tissuetalk.prompts.organs import organ_hits, organ_of
from tissuetalk.prompts.reading.assertion import SegmentReader, Verdict
from tissuetalk.prompts.reading.doubts import denies_what_was_said
from tissuetalk.prompts.reading.filters import LESIONS, called_normal, is_small_print, keep
from tissuetalk.prompts.reading.mentions import Mention, find_mentions, spoken
from tissuetalk.prompts.reading.segments import (
    Segment,
    covering,
    has_phrase,
    opens_specimen,
    order_spans,
    segments,
)
from tissuetalk.prompts.reading.values import (
    IN_SITU,
    counted,
    heading_verdict,
    is_contradicted,
    marked,
    signed,
    value_verdict,
)
from tissuetalk.prompts.target import Assertion, ReadLine, Target
from tissuetalk.prompts.words import Words, with_spoken_marks, word_set

WITHDRAWN = ("unclear whether", "uncertain whether", "unclear if", "withdrawn", "not confirmed")

LONGEST_LIST = 16
"""Items behind one heading that are parted by semicolons."""
AFFIRMED = word_set("present yes identified positive extensive")
REACHING = word_set("within inside into invade in involve penetrate")
PASSING = word_set("from around between space not no")


@dataclass(frozen=True)
class Finding:
    """One mention that counts: its assertion, where it stands, and the words that decided.

    region: the organ whose label is meant. replaces: it overrides what was said before it (an addendum).
    unqualified: a gland or epithelium that nobody called normal. words: those that the mention counts its tokens in.
    """

    mention: Mention
    concept_id: str
    assertion: Assertion
    region: str | None
    start: int
    end: int
    replaces: bool = False
    unqualified: bool = False
    words: Words = field(default_factory=Words, repr=False)


@dataclass(frozen=True)
class Reading:
    """All findings of a report and the organ it is about."""

    findings: tuple[Finding, ...]
    organ: str | None
    words: Words


def read_report(text: str, organ: str | None) -> Reading:
    """Find every mention, decide each one, and leave out what no reader would outline (margins, stages, orders)."""
    text = with_spoken_marks(text)
    whole = read_words(text, loose=False)
    orders = order_spans(whole)
    # Orders are data: what they name is ruled out, and no word of theirs says anything about the rest.
    words = read_words(without(text, orders), loose=False) if orders else whole
    report = _Report(words, organ)
    findings = report.findings()
    ordered = covering(orders)
    for mention in find_mentions(whole) if orders else ():
        start = whole[mention.core_first].start
        if ordered(start) and mention.concept.report:
            end = whole[mention.last].end
            concept = mention.concept.report_as or mention.concept.id
            findings.append(Finding(mention, concept, "absent", report.region, start, end, words=whole))
    findings.sort(key=lambda finding: finding.start)
    return Reading(tuple(findings), report.region, whole)


class _Report:
    """One report while it is read: its words without orders, its segments with their mentions, and the organs."""

    def __init__(self, words: Words, organ: str | None):
        self.words = words
        mentions = [mention for mention in find_mentions(words) if not is_small_print(words, mention)]
        inside = frozenset(i for m in mentions for i in range(m.core_first + 1, m.last + 1))
        self.parts = segments(words, inside)
        self.named = self._by_segment(mentions)
        self.numbers = {part.first: number for number, part in enumerate(self.parts)}
        self.region = organ or self._organ(range(len(self.parts)))
        self.regions = [organ] * len(self.parts) if organ else self._organs()

    def _by_segment(self, mentions: Sequence[Mention]) -> dict[int, list[Mention]]:
        grouped: dict[int, list[Mention]] = {}
        number = 0
        for mention in mentions:
            while number + 1 < len(self.parts) and self.parts[number].last < mention.core_first:
                number += 1
            grouped.setdefault(number, []).append(mention)
        return grouped

    def _organ(self, numbers: range) -> str | None:
        """The organ that some segments speak of; history does not count."""
        parts = self.parts[numbers.start : numbers.stop]
        words = self.words.part(parts[0].first, parts[-1].last + 1) if parts else self.words
        heads = [self.words[part.first].start for part in parts if part.key]
        past = [
            (self.words[part.first].start, self.words[part.last].end)
            for part in parts
            if part.section in ("history", "family")
        ]
        return organ_of(words, heads=[*heads, words[0].start if words else 0], ignored=past)

    def _organs(self) -> list[str | None]:
        """The organ of each segment: that of its specimen where specimens are lettered, else that of the report."""
        starts = [number for number, part in enumerate(self.parts) if opens_specimen(self.words, part.first)]
        found = [self.region] * len(self.parts)
        for start, stop in pairwise([*starts, len(self.parts)]) if len(starts) > 1 else ():
            own = self._organ(range(start, stop))
            found[start:stop] = [own or self.region] * (stop - start)
        return found

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        for number, own in self.named.items():
            part, value, heading = self.parts[number], self._value(number), self._heading(number)
            reader = SegmentReader(self.words, part, own)
            tumors = [mention for mention in own if mention.concept.id in LESIONS]
            in_value = {m.concept.id for m in self.named.get(number + 1, ())} if part.key and value else set()
            for mention in own:
                if mention.concept.id in IN_SITU and in_value & IN_SITU:
                    continue
                verdict = self._decide(number, reader, mention)
                if verdict.assertion is None or not keep(
                    self.words, mention, verdict.assertion, part, heading, tumors, self.regions[number]
                ):
                    continue
                found.append(self._finding(mention, verdict, number))
        return found + self._tumor_in_vessels() + self._normal_organ()

    def _value(self, number: int) -> Segment | None:
        following = self.parts[number + 1 : number + 2]
        return following[0] if following and following[0].sentence == self.parts[number].sentence else None

    def _heading(self, number: int) -> Segment | None:
        """The heading before the colon; it goes on for the items of a list by semicolons ("Not seen: A; B")."""
        for earlier in range(number - 1, max(number - LONGEST_LIST, 0) - 1, -1):
            before, after = self.parts[earlier], self.parts[earlier + 1]
            if before.sentence == after.sentence:
                return before if earlier == number - 1 or before.last - before.first <= 6 else None
            listed = ";" in self.words.gap(before.last, after.first)
            if not listed or len(self.named.get(earlier, ())) != 1:
                return None
        return None

    def _decide(self, number: int, reader: SegmentReader, mention: Mention) -> Verdict:
        words, part, value, heading = (
            self.words,
            self.parts[number],
            self._value(number),
            self._heading(number),
        )
        verdict = reader.verdict(mention)
        sign = signed(words, part) or marked(words, mention)
        if sign is not None:
            return Verdict(sign)
        if (
            heading is not None
            and verdict.assertion == "present"
            and not self.named.get(self.numbers[heading.first])
        ):
            verdict = heading_verdict(words, heading)
        if part.empty_value and not _opens_fields(mention):
            return Verdict(None)
        if part.key:
            said = value_verdict(words, value, self.named.get(number + 1, ()))
            owner = reader.scope.owns_value(mention)
            if said.assertion == "absent" and owner != "yes":
                verdict = Verdict("uncertain", said.cue) if owner == "perhaps" else verdict
            elif said.assertion != "present" or (
                verdict.assertion in ("absent", "uncertain") and _is_affirmed(words, value)
            ):
                verdict = said
        elif _unanswered(reader, mention):
            return Verdict(None)
        if verdict.assertion == "absent" and self._other_place_does(number):
            return Verdict("present")
        if verdict.assertion == "present" and not part.key and self._taken_back(number):
            verdict = Verdict("uncertain")
        number_said = counted(words, mention, value.last if part.key and value else part.last)
        if number_said is None:
            return Verdict(None)
        if number_said == "absent" or (number_said == "present" and verdict.assertion is None):
            verdict = Verdict("absent" if number_said == "absent" else "present")
        if verdict.assertion is not None and part.section in ("history", "family"):
            return Verdict("historical", verdict.cue)
        return verdict

    def _other_place_does(self, number: int) -> bool:
        """ "The antrum contains no tumour; the body does.": the next statement affirms the same of another place."""
        if number + 1 >= len(self.parts) or self.parts[number].key:
            return False
        following = self.parts[number + 1]
        norms = self.words.norms(following.first, following.last + 1)
        return len(norms) <= 8 and norms[-1] in ("does", "do", "did") and not {"neither", "nor"} & set(norms)

    def _taken_back(self, number: int) -> bool:
        """ "I looked for fungi. They were not there.": a next sentence that names nothing and denies what "they" are."""
        if number + 1 >= len(self.parts) or self.named.get(number + 1) or self.parts[number + 1].key:
            return False
        return denies_what_was_said(self.words, self.parts[number + 1])

    def _finding(self, mention: Mention, verdict: Verdict, number: int) -> Finding:
        words, part, region = self.words, self.parts[number], self.regions[number]
        assertion, concept, cue = verdict.assertion or "present", mention.concept, verdict.cue
        own = _own_region(words, mention) if concept.id in ("tumor", "tumor_nuclei") else None
        other = own is not None and own != region and assertion in ("uncertain", "historical")
        first, last = (
            (mention.first, mention.last)
            if cue is None
            else (
                min(mention.first, cue.first),
                max(mention.last, cue.last),
            )
        )
        withdrawn = cue is not None and " ".join(words.norms(cue.first, cue.last + 1)).endswith(WITHDRAWN)
        return Finding(
            mention,
            concept.report_as or concept.id,
            assertion,
            own if other else region,
            words[first].start,
            words[last].end,
            replaces=part.section == "addendum" or withdrawn,
            unqualified=concept.weak and not called_normal(words, mention, part),
            words=words,
        )

    def _tumor_in_vessels(self) -> list[Finding]:
        """ "Tumour is seen within vessels" and "tumour invades fat and vessel" are lymphovascular invasion in other words."""
        words, found = self.words, []
        for number, own in self.named.items():
            tumor = next((m for m in own if m.concept.id in ("tumor", "tumor_nuclei")), None)
            vessels = [m for m in own if m.concept.id in ("vessel", "lymphatic")]
            vessel = next((v for v in vessels if tumor is not None and 0 < v.first - tumor.last < 12), None)
            if tumor is None or vessel is None or self.parts[number].section in ("history", "family"):
                continue
            between = set(words.norms(tumor.last + 1, vessel.first))
            if not between & REACHING or between & PASSING:
                continue
            said = SegmentReader(words, self.parts[number], own).verdict(vessel).assertion
            if said is not None:
                mention = Mention(lexicon().concepts["lvi"], tumor.first, vessel.last, tumor.first)
                start, end = words[tumor.first].start, words[vessel.last].end
                found.append(Finding(mention, "lvi", said, self.regions[number], start, end, words=words))
        return found

    def _normal_organ(self) -> list[Finding]:
        """ "Non-neoplastic lung: unremarkable" says normal tissue in the two organs that have a label for it."""
        words, region = self.words, self.region
        if region not in ("lung", "prostate"):
            return []
        for part, value in pairwise(self.parts):
            if not part.key or value.sentence != part.sentence or part.last - part.first > 5:
                continue
            spared = has_phrase(words, part.first, part.last, "normal")
            fine = has_phrase(words, value.first, min(value.last, value.first + 3), "normal")
            organs = {hit[2] for hit in organ_hits(words.part(part.first, part.last + 1))}
            if spared and fine and region in organs:
                mention = Mention(lexicon().concepts["normal_epithelium"], part.first, part.last, part.first)
                start, end = words[part.first].start, words[value.first].end
                return [Finding(mention, "normal_epithelium", "present", region, start, end, words=words)]
        return []


def without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with some spans blanked, each an end of what stands before; every offset stays."""
    pieces, end = [], 0
    for low, high in sorted(spans):
        if high > end:
            low = max(low, end)
            pieces += [text[end:low], "\n\n"[: high - low].ljust(high - low)]
            end = high
    return "".join([*pieces, text[end:]])


def _opens_fields(mention: Mention) -> bool:
    """A tumour's full name before a colon heads the fields about it; it is not an empty field itself."""
    return mention.concept.id == "tumor" and mention.last > mention.first


def _is_affirmed(words: Words, value: Segment | None) -> bool:
    return value is not None and (words[value.first].norm in AFFIRMED or is_contradicted(words, value))


def _unanswered(reader: SegmentReader, mention: Mention) -> bool:
    """ "lymphovascular invasion not assessed": a cue of no answer right behind the mention."""
    return any(
        "unknown" in cue.kinds
        and 0 < cue.first - mention.last <= 3
        and ("," not in reader.words.gap(mention.last, cue.first) or cue.first == mention.last + 1)
        for cue in reader.cues
    )


def _own_region(words: Words, mention: Mention) -> str | None:
    """The organ a tumour's own name or its neighbour names: "renal cell carcinoma", "cancer of the colon"."""
    low, high = mention.first, mention.last
    if words.norms(high + 1, high + 2) in (["of"], ["in"], ["from"]):
        high = min(high + 3, len(words) - 1)
    hits = organ_hits(words.part(low, high + 1))
    return next((region for _, _, region, _ in hits if region != "elsewhere"), None)


STRENGTH: dict[Assertion, int] = {"present": 0, "uncertain": 1, "absent": 2, "historical": 3}
IDENTIFIER = re.compile(
    r"\b(?:dr|mr|mrs|ms|prof|mrn|ssn|dob|accession|patient|name|md|phone|tel)\b|\d{4,}|\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d|@|\[|\]",
    re.IGNORECASE,
)
NORMAL_REGIONS = ("lung", "prostate", "breast")
LONGEST_EVIDENCE = 160
SENTENCE_ENDS = (". ", ".\n", "\n", ";")
MOST_LINES = 200
"""Findings of one report that are listed with their sentences."""


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
        key = place.label or (spoken(finding.mention, finding.words) if concept.own_words else concept.id)
        held = chosen.get(key)
        if held is None or STRENGTH[finding.assertion] < STRENGTH[held[0].assertion]:
            chosen[key] = (finding, place)
    ordered = sorted(chosen.values(), key=lambda pair: pair[0].start)
    return tuple(_target(finding, place, reading) for finding, place in ordered)


def read_lines(reading: Reading) -> tuple[ReadLine, ...]:
    """Every finding with its sentence, in the order of the text; a sentence that could identify anybody is cut down."""
    text, lines = reading.words.text, []
    tumor_present = any(f.concept_id == "tumor" and f.assertion == "present" for f in reading.findings)
    for finding in reading.findings[:MOST_LINES]:
        name_start, name_end = _name_span(finding)
        low = max(text.rfind(mark, 0, name_start) for mark in SENTENCE_ENDS) + 1
        high = (
            min(
                (at for mark in SENTENCE_ENDS if (at := text.find(mark, name_end)) >= 0),
                default=len(text) - 1,
            )
            + 1
        )
        low += len(text[low:high]) - len(text[low:high].lstrip())
        sentence, start = quote(reading.words, low, high, name_start, name_end)
        words = spoken(finding.mention, finding.words)
        place = placed(
            lexicon().concepts[finding.concept_id], finding.region, finding.assertion, tumor_present
        )
        span = (start, start + len(sentence))
        lines.append(
            ReadLine(" ".join(sentence.split()), span, words, finding.assertion, place.label or words)
        )
    return tuple(lines)


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
    evidence, start = evidence_of(reading.words, finding.start, finding.end, *_name_span(finding))
    return Target(
        place.label,
        spoken(finding.mention, finding.words),
        finding.assertion,
        evidence,
        start,
        finding.region,
        alternatives=place.alternatives,
        reason=place.reason,
    )


def _name_span(finding: Finding) -> tuple[int, int]:
    return finding.words[finding.mention.first].start, finding.words[finding.mention.last].end


def quote(words: Words, start: int, end: int, name_start: int, name_end: int) -> tuple[str, int]:
    """The verbatim words for a reader; cut down to the object's name when they are long or could identify anybody."""
    text = words.text
    if end - start <= LONGEST_EVIDENCE and not IDENTIFIER.search(text, start, end):
        return text[start:end], start
    return text[name_start:name_end], name_start


def evidence_of(words: Words, start: int, end: int, name_start: int, name_end: int) -> tuple[str, int]:
    """What is kept of a text for a target: the object's name, with what decided about it unless a name stands between."""
    said, at = quote(words, start, end, name_start, name_end)
    beside = ((at, name_start), (name_end, at + len(said)))
    if all(names_nobody(words.text, low, high) for low, high in beside):
        return said, at
    return words.text[name_start:name_end], name_start
