"""Is a named object there? The nearest cue whose scope reaches it decides; a heading takes the word of its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tissuetalk.prompts.reading.doubts import is_denied_twice, is_doubted
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.reading.scope import EARLIER, FARTHEST, Scope
from tissuetalk.prompts.reading.segments import Cue, Segment
from tissuetalk.prompts.target import Assertion
from tissuetalk.prompts.words import Words, word_set

SAYS: dict[str, Assertion] = {
    "pre_absent": "absent",
    "post_absent": "absent",
    "pre_uncertain": "uncertain",
    "post_uncertain": "uncertain",
    "pre_historical": "historical",
    "pre_family": "historical",
    "post_historical": "historical",
}
CLOSE = word_set("uncertain doubtful")
"""Adjectives that speak of the next word only ("of uncertain malignant potential, with necrosis")."""
BUTS = word_set("but yet and while whereas though although")
LIKEWISE = re.compile(
    r" (?:likewise|similarly|ditto|idem|too|same|as well)(?=\s*(?:[.;,)]|\n|$))", re.IGNORECASE
)
""" "perineural invasion excluded, vascular invasion likewise": as the item before."""
NOUGHT_OF = re.compile(
    r"of (?:the |any )?(?P<what>[^,;.:]{1,80}?) (?:there (?:is|are|was|were|remains?)|(?:i|we) (?:see|saw|find|found)) "
    r"(?:none|nothing|no trace|no sign|no hint|not a|never)\b",
    re.IGNORECASE,
)
""" "Of necrosis there is none"."""
ELSEWHERE = word_set("is are was were it they now clearly also again definitely evidently unequivocally")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said about one mention. `assertion` None: nothing is said (an empty field). `cue` is the word that says it."""

    assertion: Assertion | None
    cue: Cue | None = None


class SegmentReader:
    """Assertions of all mentions of one segment; cues are found once."""

    def __init__(self, words: Words, segment: Segment, mentions: Sequence[Mention]):
        self.words, self.segment, self.mentions = words, segment, mentions
        self.scope = Scope(words, segment, mentions)
        self.cues = self.scope.cues
        self.nought_of = NOUGHT_OF.match(words.text, words[segment.first].start)

    def verdict(self, mention: Mention) -> Verdict:
        """The assertion of one mention of this segment, without its heading or value."""
        if LIKEWISE.match(self.words.text, self.words[mention.last].end):
            earlier = [other for other in self.mentions if other.last < mention.first]
            if earlier:
                return self.verdict(earlier[-1])
        if self.nought_of is not None and self.words[mention.last].end <= self.nought_of.end("what"):
            return Verdict("absent")
        best: tuple[int, int, Verdict] | None = None
        reached: set[str] = set()
        for cue in self.cues:
            if not mention.core_first - FARTHEST <= cue.last <= mention.last + FARTHEST + 8:
                continue
            for kind in cue.kinds & SAYS.keys():
                distance = self.scope.reach(cue, kind, mention)
                if distance is None:
                    continue
                says = SAYS[kind]
                reached.add(kind)
                rank = (distance - (3 if says == "uncertain" else 0), 0 if says == "uncertain" else 1)
                if best is None or rank < best[:2]:
                    best = (*rank, Verdict(says, cue))
        if best is None:
            return Verdict("uncertain" if is_doubted(self.scope, mention) else "present")
        said, by = best[2].assertion, best[2].cue
        if said == "absent" and by is not None and by.first > mention.last and self._seen_after_all(by):
            return Verdict("present")
        if said == "uncertain" and (self._denied_doubt(by) or self._settled(by, mention, reached)):
            return Verdict("absent", by)
        if (
            said == "uncertain"
            and by is not None
            and self.words[by.first].norm in CLOSE
            and by.last + 3 < mention.core_first
        ):
            return Verdict("present")
        if said == "historical" and by is not None and self._gone_since(by, mention, reached):
            return Verdict("absent", by)
        if said == "historical" and "pre_family" not in reached and self._is_current(mention):
            return Verdict("absent" if "post_absent" in reached else "present")
        if said == "absent" and is_denied_twice(self.scope, mention, by):
            return Verdict("uncertain", by)
        return best[2]

    def _seen_after_all(self, denial: Cue) -> bool:
        """ "was absent in the previous biopsy but is now seen": a contrast and a present of the same thing."""
        if any(other.first > denial.last for other in self.mentions):
            return False
        if self._seen_elsewhere(denial):
            return True
        links = [i for i in range(denial.last + 1, self.segment.last) if self.words[i].norm in ("but", "yet")]
        if not links:
            return False
        earlier = bool(EARLIER.search(self.words.gap(denial.last, links[0])))
        said = [cue for cue in self.cues if cue.first > links[0]]
        return (
            earlier
            and any({"positive", "current"} & cue.kinds for cue in said)
            and not any({"pre_absent", "post_absent"} & cue.kinds for cue in said)
        )

    def _seen_elsewhere(self, denial: Cue) -> bool:
        """ "is absent from the left lobe but present in the right": present in one place is present."""
        for cue in self.cues:
            if "positive" not in cue.kinds or cue.first <= denial.last:
                continue
            link = cue.first - 1
            while link > denial.last and self.words[link].norm in ELSEWHERE:
                link -= 1
            if link > denial.last + 1 and self.words[link].norm in BUTS:
                return True
        return False

    def _gone_since(self, past: Cue, mention: Mention, reached: set[str]) -> bool:
        """ "were seen in 2020 and are not found": behind the word of the past a denial of the same thing."""
        later = [cue for cue in self.cues if cue.first > past.last and "post_absent" in cue.kinds]
        return bool({"post_absent"} & reached) and not {"pre_family", "pre_absent"} & reached and bool(later)

    def _is_current(self, mention: Mention) -> bool:
        """ "previously biopsied carcinoma, now larger"; but in "biopsied as dysplasia, now carcinoma" only the carcinoma."""
        later = [other for other in self.mentions if other.first > mention.last]
        return any(
            "current" in cue.kinds
            and (cue.last < mention.first or not any(o.first > cue.last for o in later))
            for cue in self.cues
        )

    def _settled(self, cue: Cue | None, mention: Mention, reached: set[str]) -> bool:
        """ "The possibility of a lymphoma was ruled out": a doubt that ends in a denial behind the mention."""
        if cue is None:
            return False
        if cue.last < mention.core_first:
            return "post_absent" in reached
        later = [other for other in self.cues if other.first > cue.last and "post_absent" in other.kinds]
        links = {"but", "and", "then"}
        return bool(later) and bool(links & set(self.words.norms(cue.last + 1, later[0].last)))

    def _denied_doubt(self, cue: Cue | None) -> bool:
        """ "no features suspicious for": a denial right before a word of doubt is a denial."""
        if cue is None:
            return False
        return any("pre_absent" in other.kinds and 0 < cue.first - other.last <= 3 for other in self.cues)
