"""What a value says: of a heading ("Necrosis: absent"), a sign ("calcification -") or a number ("mitoses: 0")."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tissuetalk.prompts.reading.assertion import SAYS, Verdict
from tissuetalk.prompts.reading.doubts import TUMORS, has_loose_word
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.reading.segments import Cue, Segment, find_cues, phrases
from tissuetalk.prompts.reading.unfamiliar import answers_unfamiliarly
from tissuetalk.prompts.target import Assertion
from tissuetalk.prompts.words import Words, word_set

FIELD_WORDS = word_set(
    "finding feature result item parameter structure change include are is the and following"
)
"""Words that may stand between a cue and the colon of its heading ("Negative findings:")."""
ZERO_WORDS = word_set("0 zero none nil zip nada naught nought ø")
SURE = word_set("definite definitely certain certainly proven established present yes")
COUNTED = word_set("mitosis lymphocyte neutrophil eosinophil plasma_cell necrosis tumor")
SCORE_WORDS = frozenset({"score", "tubule", "grade", "nottingham"})


def heading_verdict(words: Words, heading: Segment) -> Verdict:
    """What a heading without an object says about its value: "Absent: necrosis", "Differential diagnosis: lymphoma"."""
    cues = find_cues(words, heading.first, heading.last, frozenset())
    for cue in cues:
        for kind in ("pre_uncertain", "pre_absent", "post_absent", "pre_family", "pre_historical"):
            closing = words.norms(cue.last + 1, heading.last + 1)
            if kind in cue.kinds and set(closing) <= FIELD_WORDS and "pseudo" not in cue.kinds:
                return Verdict(SAYS[kind], cue)
    doubted = heading.last - heading.first < 6 and has_loose_word(words, heading.first, heading.last)
    return Verdict("uncertain" if doubted else "present")


def value_verdict(words: Words, value: Segment | None, named: Sequence[Mention] = ()) -> Verdict:
    """What the value of a heading says about the objects the heading names; None for an empty or unanswered field.

    named: the objects that the value itself names; what is said behind the first of them is said of them.
    """
    if value is None:
        return Verdict(None)
    first = value.first
    named_from = named[0].first if named else value.last + 1
    while first < value.last and (words[first].norm,) in phrases("adverbs"):
        first += 1
    cues = find_cues(words, first, min(value.last, first + 7), frozenset())
    opening = [cue for cue in cues if cue.first <= first + 2]
    for cue in opening:
        if "unknown" in cue.kinds:
            return Verdict(None, cue)
    for cue in opening:
        if "pre_uncertain" in cue.kinds or "post_uncertain" in cue.kinds:
            denied = any("pre_absent" in other.kinds and other.first < cue.first for other in opening)
            return Verdict("absent" if denied else "uncertain", cue)
    if is_contradicted(words, value):
        return Verdict("present")
    for cue in opening:
        if cue.first == first and ("pre_absent" in cue.kinds or "post_absent" in cue.kinds):
            return Verdict("absent", cue)
        if "post_absent" in cue.kinds and cue.last - cue.first >= 1:
            return Verdict("absent", cue)
    start = words[first].start
    if BELOW_ONE.match(words.text, start) or BELOW_ONE.match(words.text, max(0, start - 1)):
        return Verdict("uncertain")
    if (
        words[first].norm in ZERO_WORDS
        or ZERO_CODE.match(words.text, start)
        or LETTER.match(words.text, start)
    ):
        return Verdict("absent", Cue(frozenset({"post_absent"}), first, first))
    last = first
    while last < min(value.last, first + 2, named_from - 1) and words.gap(last, last + 1) == " ":
        last += 1
    if named_from > value.last and _ends_in_denial(value, cues):
        return Verdict("absent", cues[-1])
    rated = (words[first].norm,) in phrases("affirming") or any("positive" in cue.kinds for cue in opening)
    doubted = not rated and first < named_from and has_loose_word(words, first, last)
    doubted |= words.text.startswith(
        "?", words[value.last].end
    )  # "High grade dysplasia: focal? None on levels."
    doubted |= not rated and answers_unfamiliarly(words, first, min(last, named_from - 1))
    return Verdict("uncertain" if doubted else "present")


def is_contradicted(words: Words, value: Segment) -> bool:
    """ "Vascular invasion probable? No, definite"."""
    norms = words.norms(value.first, min(value.first + 1, value.last) + 1)
    return len(norms) == 2 and norms[0] == "no" and norms[1] in SURE


def _ends_in_denial(value: Segment, cues: Sequence[Cue]) -> bool:
    """ "Amyloid: Congo red negative", "Dysplasia: to be honest, none": nothing else is affirmed or named."""
    return (
        bool(cues)
        and cues[-1].last == value.last
        and bool({"pre_absent", "post_absent"} & cues[-1].kinds)
        and not any({"positive", "pre_uncertain", "post_uncertain", "pseudo"} & cue.kinds for cue in cues)
    )


SIGN = re.compile(r"\s*:\s*([-+\u2013])\s*(?=[\n;,.)]|$)")


def signed(words: Words, heading: Segment) -> Assertion | None:
    """ "Necrosis: -": a sign for a value."""
    sign = SIGN.match(words.text, words[heading.last].end)
    return None if sign is None else "present" if sign.group(1) == "+" else "absent"


INLINE_SIGN = re.compile(
    r"(?:(?: [(\[]?|[(\[])(?=[-\u2013+])|(?=[-\u2013+]+(?:[,;]|\.?\s*$)))([-\u2013]{1,2}|\+{1,3})[)\]]?(?=\s*(?:[,;./)]|\n|$))"
)
INLINE_ZERO = re.compile(r" (?:in )?(?:\(0\)|0|x ?0|0 ?%|0/\d{1,3})(?=\s*(?:[,;)]|\.\s|\.$|\n|$))")
INLINE_ANSWER = re.compile(r" (?:(no|nil|zero)|yes)(?=\s*(?:[,;.)]|\n|$))", re.IGNORECASE)
""" "necrosis no, capsular invasion yes": fields in a row with the answer behind the name."""
ZERO_CODE = re.compile(
    r"\s*\(?(?:(?:grade|score|stage) )?(?:(?:y?[pc])?(?![NMR]0)[A-Z]{1,3}-?0|(?<=grade )0|(?<=score )0|(?<=stage )0)(?=\s*(?:[,;)/]|\.\s|\.$|\n|$))",
    re.IGNORECASE,
)
""" "tubulitis t0", "fibrosis MF-0", "steatosis grade 0"; nodes, metastases and margins are places of a tumour."""
IN_SITU = frozenset({"dcis", "lcis", "cis"})
"""A disease in situ has the stage 0."""
LETTER = re.compile(r"N(?=\s*(?:[,;.)]|\n|$))")
""" "Atypia: N"."""
BELOW_ONE = re.compile(
    r"[\s:(]*(?:(?:count|rate|activity|cells?|is|are|number)[\s:]+)*(?:(?:fewer|less) than|under|below|<)\s*(?:1|one)\b"
    r"(?!\s*(?:%|percent|per ?cent|[.,]\d|cm\b|mm\b|mic|um\b|\u00b5|third|half|quarter))",
    re.IGNORECASE,
)
""" "fewer than 1 per HPF": none or next to none; a share or a size below one is there."""
NO_SUCH = re.compile(r"(?:^|[.;,:]\s|\n)0 $")
""" "0 granulomas"."""
FEW_OF = re.compile(r"(?:(?:fewer|less) than|<)\s*(?:1|one) (?:single )?$", re.IGNORECASE)


LONGEST_LINE = 200
LEADING = re.compile(r"\(([-+\u2013])\) ?$")
LED = re.compile(r"(?:^|[\n.;:])\s*\([-+\u2013]\)")
""" "(-) dysplasia (+) ulcer": a line whose first thing has its sign in front."""


def marked(words: Words, mention: Mention) -> Assertion | None:
    """ "ulceration ++, necrosis -" and "calcification 0": a sign or a nought right behind a mention."""
    start, end = words[mention.first].start, words[mention.last].end
    led = LEADING.search(words.text, max(0, start - 4), start)
    if led is not None and LED.search(words.text, max(0, start - LONGEST_LINE), start):
        return "present" if led.group(1) == "+" else "absent"
    sign = INLINE_SIGN.match(words.text, end)
    if sign is not None:
        return "present" if sign.group(1)[0] == "+" else "absent"
    answer = INLINE_ANSWER.match(words.text, end)
    if answer is not None:
        return "absent" if answer.group(1) else "present"
    if BELOW_ONE.match(words.text, end) or FEW_OF.search(words.text, max(0, start - 20), start):
        return "uncertain"
    plain = mention.concept.id not in TUMORS | IN_SITU
    coded = plain and (
        ZERO_CODE.match(words.text, end) or NO_SUCH.search(words.text, max(0, start - 8), start)
    )
    return "absent" if coded or INLINE_ZERO.match(words.text, end) else None


def counted(words: Words, mention: Mention, limit: int) -> Assertion | bool | None:
    """A number with the mention: "absent" for a count of 0, None for a mitotic score of 1, False where no number speaks."""
    if mention.concept.id not in COUNTED:
        return False
    if (
        words.norms(mention.first - 1, mention.first) == ["0"]
        and words.gap(mention.first - 1, mention.first) == " "
    ):
        return "absent"
    near = set(words.norms(mention.first - 6, mention.last + 4))
    for index in range(mention.last + 1, min(mention.last + 4, limit + 1)):
        norm = words[index].norm
        if norm == "0":
            return "absent"
        if norm[0].isdigit():
            scored = mention.concept.id == "mitosis" and bool(near & SCORE_WORDS)
            if scored:
                return None if norm == "1" else "present"
            return "present"
        if norm not in (
            "score",
            "count",
            "rate",
            "index",
            "is",
            "activity",
            "of",
            "cell",
            "grade",
            "less",
            "fewer",
            "than",
            "with",
        ):
            break
    return False
