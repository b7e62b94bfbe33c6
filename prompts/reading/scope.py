"""How far a word of denial, doubt or the past reaches: which of the named objects around it it speaks of.

A cue before an object reaches forward to the next "but", "however" or new verb of showing; a cue behind it reaches back
to the verb or the object of another statement.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal

from tissuetalk.prompts.lexicon import lexicon
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.reading.segments import Cue, Segment, find_cues, has_phrase, phrases
from tissuetalk.prompts.words import Words, word_set

FORWARD = {"pre_absent": 28, "pre_uncertain": 12, "pre_historical": 14, "pre_family": 20}
BACKWARD = {"post_absent": 22, "post_uncertain": 14, "post_historical": 12}
"""How many tokens a cue reaches."""
FARTHEST = max(FORWARD.values())
INSTEAD = word_set("instead rather except besides")
GENERAL = word_set("malignancy tumor carcinoma cancer neoplasm neoplasia")
PLURAL = word_set("are were all both each none neither nothing have these those them")
OF_ALL = word_set("these those them all both either neither each")
""" "Granulomas, viral inclusions, iron: none of these": the value speaks of the whole list."""
OWN_LINKS = word_set("and but has have been is was were now then which that be later since")
SEEKING = word_set("sought looked searched hunted")
AMOUNTS = word_set("increased prominent evident conspicuous unequivocal definite obvious significant")
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
PLACED = re.compile(
    r"\b(?:in|within|inside|around|beside|near|to|of|at|into|by) (?:the|this|that) (?:an? )?$"
)
PLACES = frozenset({"tumor", "tumor_nuclei", "dcis", "adenoma"})
CONTRAST = frozenset({"but", "however", "now", "although", "currently"})


class Scope:
    """The cues of one segment, found once, and the mentions that each of them reaches."""

    def __init__(self, words: Words, segment: Segment, mentions: Sequence[Mention]):
        self.words, self.segment, self.mentions = words, segment, mentions
        taken = frozenset(i for mention in mentions for i in range(mention.core_first, mention.last + 1))
        self.cues = find_cues(words, segment.first, segment.last, taken)
        self.taken = taken.union(*(range(mention.first, mention.core_first) for mention in mentions))
        self.starts = [cue.first for cue in self.cues]
        self.held = frozenset(i for cue in self.cues for i in range(cue.first, cue.last + 1))
        self.loose: list[int] | None = None

    def reach(self, cue: Cue, kind: str, mention: Mention) -> int | None:
        """How many tokens lie between a cue and a mention it speaks of; None when it does not."""
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
        inside = self.cues[bisect_right(self.starts, first) : bisect_left(self.starts, last)]
        return [cue for cue in inside if cue.last < last]

    def _blocked_forward(self, cue: Cue, kind: str, mention: Mention) -> bool:
        between = self._between(cue.last, mention.core_first)
        if kind == "pre_family" or (kind == "pre_historical" and cue.first <= self.segment.first + 1):
            tense = set() if kind == "pre_family" else PRESENT_TENSE
            return any(
                self.words[other.first].norm in CONTRAST or self.words[other.last].lower in tense
                for other in between
            )
        if kind == "pre_historical" and CONTRAST & set(self.words.norms(cue.last + 1, mention.core_first)):
            return True  # "was biopsied in May and is now seen to be a carcinoma"
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
        after = next((other for other in self.cues if other.first > mention.last), None)
        if after is None or after.last != self.segment.last or "positive" not in after.kinds:
            return False
        inside = [other for other in self.mentions if cue.last < other.first]
        if len(inside) < 3:
            return False
        named = {i for other in inside for i in range(other.first, other.last + 1)}
        return all(i in named for i in range(cue.last + 1, after.first))

    def _where(self, cue: Cue, mention: Mention) -> bool:
        """ "no necrosis within the carcinoma": the tumour is the place where nothing was found."""
        if mention.concept.id not in PLACES:
            return False
        start = self.words[mention.first].start
        before = self.words.text[max(0, start - 24) : start].lower()
        named = any(cue.last < other.first and other.last < mention.first for other in self.mentions)
        named |= before.endswith("by the ")  # "vessels are spared by the tumour"
        return named and bool(PLACED.search(before))

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
            answer = self.words.norms(self.segment.last + 1, self.segment.last + 5)
            return "perhaps" if OF_ALL & set(answer) else "no"
        heads = mention.concept.id == "tumor" and mention.first <= self.segment.first + 1
        if not heads or len(self.mentions) < 2:
            return "yes"
        return "perhaps" if self.words.norms(mention.first, mention.last + 1)[0] in GENERAL else "no"

    def _affirmed(self, mention: Mention) -> bool:
        """ "no necrosis, and focal haemorrhage": a word of amount of its own starts a statement of its own."""
        before = self.words.norms(mention.first - 2, mention.core_first)
        return any((word,) in phrases("affirming") for word in before)

    def _is_rated(self, mention: Mention) -> bool:
        """ "mitoses brisk, ulceration none": a word of amount behind a name says that the thing is there."""
        behind = self.words.norms(mention.last + 1, min(mention.last + 3, self.segment.last + 1))
        behind = behind[1:] if behind[:1] in (["is"], ["are"], ["very"]) else behind[:1]
        return any((word,) in phrases("affirming") for word in behind) and self.words.go_on(mention.last + 1)

    def _blocked_backward(self, cue: Cue, mention: Mention) -> bool:
        aside = self._aside(mention.last, cue.first)
        between = [
            other
            for other in self._between(mention.last, cue.first)
            if other.first not in aside
            and not (other.last + 1 == cue.first and "verbs" in other.kinds)
            and not self._describes(other)
            and not (
                other.first == mention.last + 1 and EARLIER.search(self.words.gap(other.last, cue.first))
            )
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
        if self._is_rated(mention) and "," in self.words.gap(mention.last, cue.first):
            return True
        if self.is_set_apart(mention) and "," in self.words.gap(mention.last, cue.first):
            return True
        return not aside and self._of_another_item(cue, mention)

    def _describes(self, cue: Cue) -> bool:
        """ "atypia and increased mitoses are not seen": an adjective of the next name is no verb of its own."""
        return (
            cue.first == cue.last
            and self.words[cue.first].norm in AMOUNTS
            and any(other.first <= cue.first + 1 <= other.core_first for other in self.mentions)
        )

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
            linked |= SEEKING & set(self.words.norms(mention.last + 1, cue.first))
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

    def is_set_apart(self, mention: Mention) -> bool:
        """ "Except for haemorrhage, nothing is seen": what is set apart does not take the verb of the others."""
        return has_phrase(self.words, max(mention.core_first - 4, 0), mention.core_first - 1, "set_apart")

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
