"""Is a named object there? The nearest cue whose scope reaches it decides.

A cue before an object reaches forward to the next "but", "however" or new verb of showing; a cue behind it reaches back
to the verb or the object of another statement. A heading takes the word of its value ("Necrosis: absent").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tissuetalk.prompts.lexicon import lexicon
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.reading.segments import Cue, Segment, find_cues, phrases
from tissuetalk.prompts.target import Assertion
from tissuetalk.prompts.words import Words, word_set

FORWARD = {"pre_absent": 28, "pre_uncertain": 12, "pre_historical": 14, "pre_family": 20}
BACKWARD = {"post_absent": 22, "post_uncertain": 14, "post_historical": 12}
"""How many tokens a cue reaches."""
FARTHEST = max(FORWARD.values())
SAYS: dict[str, Assertion] = {
    "pre_absent": "absent",
    "post_absent": "absent",
    "pre_uncertain": "uncertain",
    "post_uncertain": "uncertain",
    "pre_historical": "historical",
    "pre_family": "historical",
    "post_historical": "historical",
}
INSTEAD = word_set("instead rather except besides")
GENERAL = word_set("malignancy tumor carcinoma cancer neoplasm neoplasia")
PLURAL = word_set("are were all both each none neither nothing have")
SETTING_APART = word_set("but except besides than apart aside however and")
OWN_LINKS = word_set("and but has have been is was were now then which that be later since")
CLOSE = word_set("uncertain doubtful")
"""Adjectives that speak of the next word only ("of uncertain malignant potential, with necrosis")."""
SINGULAR = word_set("is was has isn't wasn't hasn't does doesn't")
LINKS = word_set("and or nor & plus")
PRESENT_TENSE = word_set(
    "shows show is are reveals reveal contains contain demonstrates demonstrate exhibits"
)
ASIDE = re.compile(
    r",\s*(?:(?:(?:all|both|each|none|some) of )?which|(?:though|although|while|however|albeit|not|never|previously|first|also|once|as)\b)"
    r"[^,;.:]{0,120},|\s\([^()]{0,120}\)",
    re.IGNORECASE,
)
EARLIER = re.compile(
    r"\b(?:earlier|previous(?:ly)?|prior|outside|last|before|first|originally|initial(?:ly)?)\b",
    re.IGNORECASE,
)
PAST = re.compile(
    EARLIER.pattern
    + r"|\b(?:in|from|of) (?:january |february |march |april |may |june |july |august |september |october |november |december )?(?:19|20)\d\d\b|\b(?:last|years?|months?|weeks?) (?:year|month|week|ago|before)\b",
    re.IGNORECASE,
)
PLACED = re.compile(r"\b(?:in|within|inside|around|beside|near|to|of|at|into|by) (?:the|this|that) $")
BUTS = word_set("but yet and while whereas though although")
NOUGHT_OF = re.compile(
    r"of (?:the |any )?(?P<what>[^,;.:]{1,80}?) (?:there (?:is|are|was|were|remains?)|(?:i|we) (?:see|saw|find|found)) "
    r"(?:none|nothing|no trace|no sign|no hint|not a|never)\b",
    re.IGNORECASE,
)
""" "Of necrosis there is none"."""
ELSEWHERE = word_set("is are was were it they now clearly also again definitely evidently unequivocally")
CONTRAST = frozenset({"but", "however", "now", "although", "currently"})


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
        nought = NOUGHT_OF.match(self.words.text, self.words[self.segment.first].start)
        if nought is not None and self.words[mention.last].end <= nought.end("what"):
            return Verdict("absent")
        best: tuple[int, int, Verdict] | None = None
        reached: set[str] = set()
        for cue in self.cues:
            if not mention.core_first - FARTHEST <= cue.last <= mention.last + FARTHEST + 8:
                continue
            for kind in cue.kinds & SAYS.keys():
                distance = self._reach(cue, kind, mention)
                if distance is None:
                    continue
                says = SAYS[kind]
                reached.add(kind)
                rank = (distance - (3 if says == "uncertain" else 0), 0 if says == "uncertain" else 1)
                if best is None or rank < best[:2]:
                    best = (*rank, Verdict(says, cue))
        if best is None:
            doubted = self._question_mark(mention) or self._denial_without_object(mention)
            return Verdict("uncertain") if doubted else Verdict("present")
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

    def _denial_without_object(self, mention: Mention) -> bool:
        """A denial in the same clause that reaches no named object: what it denies is anybody's guess.

        Behind the object only a verb counts: "tumour cells are negative for CK20" has an object nobody lists.
        """
        for cue in self.cues:
            if "pre_absent" in cue.kinds and cue.last < mention.core_first:
                low, high = cue.last, mention.core_first
            elif "post_absent" in cue.kinds and cue.first > mention.last:
                low, high = mention.last, cue.first
            else:
                continue
            if (
                self.words[cue.last].norm == "by"
                or high - low > 8
                or any(mark in self.words.gap(low, high) for mark in ",;:()")
            ):
                continue
            if SETTING_APART & set(self.words.norms(low, high)):
                continue
            kinds = cue.kinds & SAYS.keys()
            if not any(
                self._reach(cue, kind, other) is not None for kind in kinds for other in self.mentions
            ):
                return True
        return False

    def _gone_since(self, past: Cue, mention: Mention, reached: set[str]) -> bool:
        """ "were seen in 2020 and are not found": behind the word of the past a denial of the same thing."""
        later = [cue for cue in self.cues if cue.first > past.last and "post_absent" in cue.kinds]
        return "post_absent" in reached and past.first > mention.last and bool(later)

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

    def _reach(self, cue: Cue, kind: str, mention: Mention) -> int | None:
        if kind.startswith("pre_"):
            if cue.last >= mention.core_first:
                return None
            distance = mention.core_first - cue.last
            aside = ")" in self.words.gap(cue.last, mention.core_first).split("(", 1)[0]
            blocked = distance > FORWARD[kind] or aside or self._blocked_forward(cue, kind, mention)
            return None if blocked else distance
        if cue.first <= mention.last or (f"pre_{kind[5:]}" in cue.kinds and self._leads(cue)):
            return None
        distance = cue.first - mention.last
        between = self.words.gap(mention.last, cue.first)
        aside = "(" in between and ")" not in between and not between.rstrip().endswith("(")
        blocked = distance > BACKWARD[kind] or aside or self._blocked_backward(cue, mention)
        return None if blocked else distance

    def _leads(self, cue: Cue) -> bool:
        """ "calcification with possible dysplasia": a word that can speak both ways speaks of what follows at once."""
        if self.words[cue.first].norm in ("vs", "versus", "or"):
            return False
        return any(
            0 < other.first - cue.last <= 2
            and not {",", "\n", ".", ")"} & set(self.words.gap(cue.last, other.first))
            for other in self.mentions
        )

    def _between(self, first: int, last: int) -> list[Cue]:
        return [cue for cue in self.cues if first < cue.first and cue.last < last]

    def _blocked_forward(self, cue: Cue, kind: str, mention: Mention) -> bool:
        between = self._between(cue.last, mention.core_first)
        if kind == "pre_family" or (kind == "pre_historical" and cue.first <= self.segment.first + 1):
            tense = set() if kind == "pre_family" else PRESENT_TENSE
            return any(
                self.words[other.first].norm in CONTRAST or self.words[other.last].lower in tense
                for other in between
            )
        if any("stop" in other.kinds and not self._goes_on(cue, other) for other in between):
            return True
        if "pre_absent" in cue.kinds and self._seen_list(cue, mention):
            return False
        if self.words[cue.first].norm in INSTEAD and any("positive" in other.kinds for other in between):
            return True
        if any("verbs" in other.kinds and self._new_statement(other, mention) for other in between):
            return True
        if self.words[cue.last].norm == "against" and "for" in self.words.norms(cue.last, mention.first):
            return True  # "argue against carcinoma and for adenosis"
        if "pre_absent" in cue.kinds and self._where(cue, mention):
            return True
        return self._past_the_list(cue, mention) or self._own_predicate(cue, mention)

    def _goes_on(self, cue: Cue, stop: Cue) -> bool:
        """ "not certain whether there is": the words behind belong to the cue."""
        return stop.first == cue.last + 1 and self.words[cue.last].norm in ("whether", "if", "that", "about")

    def _seen_list(self, cue: Cue, mention: Mention) -> bool:
        """ "No A, B, C seen.": a list of three and more that ends in a bare participle is denied as a whole."""
        inside = [other for other in self.mentions if cue.last < other.first]
        after = next((other for other in self.cues if other.first > mention.last), None)
        if (
            after is None
            or after.last != self.segment.last
            or "positive" not in after.kinds
            or len(inside) < 3
        ):
            return False
        named = {i for other in inside for i in range(other.first, other.last + 1)}
        return all(i in named for i in range(cue.last + 1, after.first))

    def _where(self, cue: Cue, mention: Mention) -> bool:
        """ "no necrosis within the carcinoma": the tumour is the place where nothing was found."""
        before = self.words.text[: self.words[mention.first].start][-24:].lower()
        named = any(cue.last < other.first and other.last < mention.first for other in self.mentions)
        named |= before.endswith("by the ")  # "vessels are spared by the tumour"
        return (
            named
            and mention.concept.id in ("tumor", "tumor_nuclei", "dcis", "adenoma")
            and bool(PLACED.search(before))
        )

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
        if comma and "or" not in link and self._affirmed(mention):
            return True
        if not ("and" in link or (comma and "or" not in link)):
            return False
        after = next((other for other in self.cues if other.first > mention.last), None)
        if after is None or after.first - mention.last > 3 or "positive" not in after.kinds:
            return False
        if any(mention.last < other.first < after.first for other in self.mentions):
            return False
        later_or = any(word.norm in ("or", "nor") for word in self.words[cue.last + 1 : after.first])
        return not later_or and self.words[after.first].norm in ("is", "are", "was", "were", "present")

    def owns_value(self, mention: Mention) -> Literal["yes", "no", "perhaps"]:
        """Whether the value behind this heading speaks of a mention: "Adenocarcinoma, extension: no" has another field.

        "perhaps" for a tumour by its general name that opens a list of findings before the colon.
        """
        gap = self.words.gap(mention.last, self.segment.last) if mention.last < self.segment.last else ""
        if "," not in gap:
            return "yes"
        others = {i for other in self.mentions for i in range(other.first, other.last + 1)}
        tail = [i for i in range(mention.last + 1, self.segment.last + 1) if i not in others]
        if any(self.words[i].norm not in lexicon().modifiers | LINKS for i in tail):
            return "no"
        heads = mention.concept.id == "tumor" and mention.first <= self.segment.first + 1
        if not heads or len(self.mentions) < 2:
            return "yes"
        return "perhaps" if self.words.norms(mention.first, mention.last + 1)[0] in GENERAL else "no"

    def _affirmed(self, mention: Mention) -> bool:
        """ "no necrosis, and focal haemorrhage": a word of amount of its own starts a statement of its own."""
        before = self.words.norms(mention.first - 2, mention.core_first)
        return any((word,) in phrases("affirming") for word in before)

    def _blocked_backward(self, cue: Cue, mention: Mention) -> bool:
        aside = self._aside(mention.last, cue.first)
        between = [
            other
            for other in self._between(mention.last, cue.first)
            if other.first not in aside and not (other.last + 1 == cue.first and "verbs" in other.kinds)
        ]
        if self._own_clause(mention, cue) or self._contrasted(mention, cue):
            return False
        if any(
            {"stop", "verbs", "positive", "post_absent"} & other.kinds
            and not self._same_subject(other, cue, mention)
            for other in between
        ):
            return True
        opened = self.words.text[self.words[cue.first].start - 1 : self.words[cue.first].start + 1]
        if "(" in opened and "," in self.words.gap(mention.last, cue.first):
            return True  # "necrosis (mild), calcification (none)"
        if self._in_an_aside_on_the_past(cue, mention):
            return True
        if self._set_apart(mention) and "," in self.words.gap(mention.last, cue.first):
            return True
        return not aside and self._of_another_item(cue, mention)

    def _own_clause(self, mention: Mention, cue: Cue) -> bool:
        """ "was considered unlikely and has now been excluded", "which has been excluded": nothing but cues and links."""
        if {",", ";"} & set(self.words.gap(mention.last, cue.first)) and self.words[
            mention.last + 1
        ].norm != "which":
            return False
        inside = {i for other in self.cues for i in range(other.first, other.last + 1)}
        return all(
            i in inside or self.words[i].norm in OWN_LINKS for i in range(mention.last + 1, cue.first)
        ) and not any(
            "positive" in other.kinds
            or (other.kinds == {"stop"} and self.words[other.first].norm not in OWN_LINKS)
            for other in self._between(mention.last, cue.first)
        )

    def _contrasted(self, mention: Mention, cue: Cue) -> bool:
        """ "was present in the previous biopsy but is not seen now": the word of contrast stands right before the cue."""
        linked = {"but", "yet"} & set(self.words.norms(max(cue.first - 2, mention.last + 1), cue.first))
        if "and" in self.words.norms(max(cue.first - 2, mention.last + 1), cue.first):
            linked |= {found.group() for found in PAST.finditer(self.words.gap(mention.last, cue.first))}
        return bool(linked) and not any(mention.last < other.first < cue.first for other in self.mentions)

    def _same_subject(self, other: Cue, cue: Cue, mention: Mention) -> bool:
        """ "would be expected but is not found": no other thing stands between "but" and the denial."""
        if self.words[other.first].norm not in ("but", "yet", "though", "although", "however"):
            return False
        return cue.first - other.last <= 2 and not any(
            mention.last < third.first < cue.first for third in self.mentions
        )

    def _in_an_aside_on_the_past(self, cue: Cue, mention: Mention) -> bool:
        """ "haemorrhage, not seen in the earlier biopsy, is now present"."""
        found = ASIDE.match(self.words.text, self.words[mention.last].end)
        inside = found is not None and self.words[cue.first].start < found.end()
        return inside and found is not None and bool(EARLIER.search(found.group()))

    def _set_apart(self, mention: Mention) -> bool:
        """ "Except for haemorrhage, nothing is seen": what is set apart does not take the verb of the others."""
        before = tuple(self.words.norms(mention.core_first - 4, mention.core_first))
        return any(
            before[start : start + n] in phrases("set_apart") for start in range(4) for n in (1, 2, 3, 4)
        )

    def _aside(self, last: int, first: int) -> range:
        """The tokens of ", all of which were sought,": they say nothing about what stands before."""
        found = ASIDE.search(self.words.text, self.words[last].end, self.words[first].start + 1)
        if found is None:
            return range(0)
        inside = [i for i in range(last + 1, first) if found.start() <= self.words[i].start < found.end()]
        return range(inside[0], inside[-1] + 1) if inside else range(0)

    def _of_another_item(self, cue: Cue, mention: Mention) -> bool:
        """ "Seminoma, rete testis negative": after a comma a verbless cue belongs to the item it stands in.

        It belongs to the items before, too, when they are one list ("A, B and C negative"), or its verb is a plural.
        """
        gap = self.words.gap(mention.last, cue.first).replace(" / ", " , ")
        if "," not in gap:
            return False
        comma = self.words[mention.last].end + gap.rindex(",")
        tail = [word.norm for word in self.words[mention.last + 1 : cue.first] if word.start > comma]
        said = self.words.norms(cue.first, cue.last + 1)
        if not tail or (set(said) | set(tail[-1:])) & PLURAL:
            return False
        if said[0] in SINGULAR and not {"or", "nor"} & set(tail):
            return True  # "dysplasia is seen, and necrosis is absent"
        # A diagnosis heads its sentence; the items behind it are findings of their own.
        return not LINKS & set(tail) or (
            mention.concept.id == "tumor" and mention.first <= self.segment.first + 1
        )

    def _denied_doubt(self, cue: Cue | None) -> bool:
        """ "no features suspicious for": a denial right before a word of doubt is a denial."""
        if cue is None:
            return False
        return any("pre_absent" in other.kinds and 0 < cue.first - other.last <= 3 for other in self.cues)

    def _question_mark(self, mention: Mention) -> bool:
        start, end = self.words[mention.first].start, self.words[mention.last].end
        after = self.words.text[end : end + 3].lstrip(" (")
        return self.words.text[max(0, start - 2) : start].rstrip().endswith("?") or after.startswith("?")
