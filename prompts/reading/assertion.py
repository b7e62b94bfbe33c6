"""Is a named object there? The nearest cue whose scope reaches it decides.

A cue before an object reaches forward to the next "but", "however" or new verb of showing; a cue behind it reaches back
to the verb or the object of another statement. A heading takes the word of its value ("Necrosis: absent").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.reading.segments import Cue, Segment, find_cues
from tissuetalk.prompts.target import Assertion
from tissuetalk.prompts.words import Words, word_set

FORWARD = {"pre_absent": 28, "pre_uncertain": 12, "pre_historical": 14}
BACKWARD = {"post_absent": 22, "post_uncertain": 14, "post_historical": 12}
SAYS: dict[str, Assertion] = {
    "pre_absent": "absent",
    "post_absent": "absent",
    "pre_uncertain": "uncertain",
    "post_uncertain": "uncertain",
    "pre_historical": "historical",
    "post_historical": "historical",
}
CONTRAST = frozenset({"but", "however", "now", "although", "currently"})
ZERO_WORDS = frozenset({"0", "zero", "none", "nil"})
COUNTED = word_set("mitosis lymphocyte neutrophil eosinophil plasma_cell necrosis tumor")
SCORE_WORDS = frozenset({"score", "tubule", "grade", "nottingham"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said about one mention. `assertion` None: nothing is said (an empty field). `cue` is the word that says it."""

    assertion: Assertion | None
    cue: Cue | None = None


class SegmentReader:
    """Assertions of all mentions of one segment; cues are found once."""

    def __init__(self, words: Words, segment: Segment, mentions: Sequence[Mention]):
        self.words, self.segment, self.mentions = words, segment, mentions
        taken = frozenset(i for mention in mentions for i in range(mention.core_first, mention.last + 1))
        self.taken = taken
        self.cues = find_cues(words, segment.first, segment.last, taken)

    def verdict(self, mention: Mention) -> Verdict:
        """The assertion of one mention of this segment, without its heading or value."""
        best: tuple[int, int, Verdict] | None = None
        for cue in self.cues:
            for kind, says in SAYS.items():
                if kind not in cue.kinds:
                    continue
                distance = self._reach(cue, kind, mention)
                if distance is None:
                    continue
                rank = (distance - (3 if says == "uncertain" else 0), 0 if says == "uncertain" else 1)
                if best is None or rank < best[:2]:
                    best = (*rank, Verdict(says, cue))
        if best is None:
            return Verdict("uncertain") if self._question_mark(mention) else Verdict("present")
        if best[2].assertion == "uncertain" and self._denied_doubt(best[2].cue):
            return Verdict("absent", best[2].cue)
        if best[2].assertion == "historical" and any("current" in cue.kinds for cue in self.cues):
            return Verdict("present")
        return best[2]

    def _reach(self, cue: Cue, kind: str, mention: Mention) -> int | None:
        if kind.startswith("pre_"):
            if cue.last >= mention.core_first:
                return None
            distance = mention.core_first - cue.last
            aside = ")" in self.words.gap(cue.last, mention.core_first).split("(", 1)[0]
            blocked = distance > FORWARD[kind] or aside or self._blocked_forward(cue, kind, mention)
            return None if blocked else distance
        if cue.first <= mention.last:
            return None
        distance = cue.first - mention.last
        between = self.words.gap(mention.last, cue.first)
        aside = "(" in between and ")" not in between and not between.rstrip().endswith("(")
        blocked = distance > BACKWARD[kind] or aside or self._blocked_backward(cue, mention)
        return None if blocked else distance

    def _between(self, first: int, last: int) -> list[Cue]:
        return [cue for cue in self.cues if first < cue.first and cue.last < last]

    def _blocked_forward(self, cue: Cue, kind: str, mention: Mention) -> bool:
        between = self._between(cue.last, mention.core_first)
        if kind == "pre_historical" and cue.first <= self.segment.first + 1:
            return any(self.words[other.first].norm in CONTRAST for other in between)
        if any("stop" in other.kinds for other in between):
            return True
        if any("verbs" in other.kinds and self._new_statement(other, mention) for other in between):
            return True
        return self._past_the_list(cue, mention) or self._own_predicate(cue, mention)

    def _past_the_list(self, cue: Cue, mention: Mention) -> bool:
        """A denial crosses a comma only within a list: "no A, B or C" does, "without A, B, C" does not."""
        start, end = self.words[cue.last].end, self.words[mention.core_first].start
        if "pre_absent" not in cue.kinds or "," not in self.words.text[start:end]:
            return False
        links = {"or", "nor"} if self.words[cue.last].norm == "without" else {"or", "nor", "and"}
        after = self.words[cue.last + 1 : min(self.segment.last, mention.last + 14) + 1]
        return not any(word.norm in links for word in after)

    def _new_statement(self, verb: Cue, mention: Mention) -> bool:
        """A verb with an object of its own before the mention starts another statement."""
        return verb.first > 0 and any(verb.first - 4 <= other.last < verb.first for other in self.mentions)

    def _own_predicate(self, cue: Cue, mention: Mention) -> bool:
        """ "no carcinoma, and lymphocytes are present": after ", and" a mention with a verb of its own is not denied."""
        earlier = [
            other
            for other in self.mentions
            if cue.last < other.core_first and other.last < mention.core_first
        ]
        if not earlier:
            return False
        link = set(self.words.norms(earlier[-1].last + 1, mention.core_first))
        comma = "," in self.words.gap(earlier[-1].last, mention.core_first)
        if not ("and" in link or (comma and "or" not in link)):
            return False
        after = next((other for other in self.cues if other.first > mention.last), None)
        if after is None or after.first - mention.last > 3 or "positive" not in after.kinds:
            return False
        if any(mention.last < other.first < after.first for other in self.mentions):
            return False
        later_or = any(word.norm in ("or", "nor") for word in self.words[cue.last + 1 : after.first])
        return not later_or and self.words[after.first].norm in ("is", "are", "was", "were", "present")

    def _blocked_backward(self, cue: Cue, mention: Mention) -> bool:
        between = self._between(mention.last, cue.first)
        return any({"stop", "verbs", "positive", "post_absent"} & other.kinds for other in between)

    def _denied_doubt(self, cue: Cue | None) -> bool:
        """ "no features suspicious for": a denial right before a word of doubt is a denial."""
        if cue is None:
            return False
        return any("pre_absent" in other.kinds and 0 < cue.first - other.last <= 3 for other in self.cues)

    def _question_mark(self, mention: Mention) -> bool:
        start = self.words[mention.first].start
        after = self.words.text[self.words[mention.last].end : self.words[mention.last].end + 2]
        return self.words.text[max(0, start - 2) : start].rstrip().endswith("?") or after.lstrip().startswith(
            "?"
        )


def value_verdict(words: Words, value: Segment | None) -> Verdict:
    """What the value of a heading says about the objects the heading names; None for an empty or unanswered field."""
    if value is None:
        return Verdict(None)
    cues = find_cues(words, value.first, min(value.last, value.first + 7), frozenset())
    opening = [cue for cue in cues if cue.first <= value.first + 2]
    for cue in opening:
        if "unknown" in cue.kinds:
            return Verdict(None, cue)
    for cue in opening:
        if "pre_uncertain" in cue.kinds or "post_uncertain" in cue.kinds:
            denied = any("pre_absent" in other.kinds and other.first < cue.first for other in opening)
            return Verdict("absent" if denied else "uncertain", cue)
    for cue in opening:
        if cue.first == value.first and ("pre_absent" in cue.kinds or "post_absent" in cue.kinds):
            return Verdict("absent", cue)
        if "post_absent" in cue.kinds and cue.last - cue.first >= 1:
            return Verdict("absent", cue)
    if words[value.first].norm in ZERO_WORDS:
        return Verdict("absent", Cue(frozenset({"post_absent"}), value.first, value.first))
    return Verdict("present")


def counted(words: Words, mention: Mention, limit: int) -> Assertion | bool | None:
    """A number with the mention: "absent" for a count of 0, None for a mitotic score of 1, False where no number speaks."""
    if mention.concept.id not in COUNTED:
        return False
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
