"""Questions whose denial is part of the question: "isn't there necrosis?", "no tumour, right?"."""

from __future__ import annotations

import re

from tissuetalk.prompts.kind import ORDERING
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.words import Words

DISEASES = frozenset({"tumor", "tumor_nuclei", "cis", "dcis", "adenoma", "inflammation", "necrosis"})
NEGATED_QUESTION = re.compile(
    r"(?:(?:so|and|but|hey|hi|ok|well)\W+)?(?:(?:is|are|was|were|does|do|did|has|have)n['\u2019]t\b|"
    r"\w+n['\u2019]t (?:this|that|it|there|these|those|they)\b|\w+n['\u2019]t (?:you|we|i) (?:see|find|think|agree|call|say|notice|spot|miss|know)\b|(?:is|are|was|were) "
    r"(?:this|that|it|there|these|those) (?:no|not)\b|why (?:not|is there no)|"
    r"(?:why|how come|since when) .*(?:\b(?:no|not|none|never|nothing|without)\b|n['\u2019]t\b)|"
    r"am i (?:right|wrong|correct)\b|(?:is|are|was|were|do|does|has|have) (?:no|not any|none)\b|(?:is|was) (?:it|this|that) \w+ (?:that|if|when)\b.*\b(?:no|not|none|never)\b|"
    r"(?:is|are|was|were|do|does|did|has|have) (?:i|you|we|they|he|she|it|this|that|these|those|there|my|the|his|her|your|anyone|anybody)\b[^,;]*\b(?:no|not|none|never|nothing)\b)",
    re.IGNORECASE,
)
DENIED_QUESTION = re.compile(
    r"^(?:(?:so|and|but|then|really|hm+|ok|well|there (?:is|are))\W+)*(?:no|not|none|nothing|never|absolutely no)\b|\b(?:sure|certain|true|mean|say|saying|think|believe|positive)\b.*\b(?:no|not|none|n't)\b|\b(?:is|are|was|were) there (?:really |truly )?(?:no|not|none)\b|"
    r"^(?:(?:so|and|but|then|surely|really|hm+|ok|well|oh|maybe|perhaps|therefore|now)\W+)*"
    r"(?:(?:it|this|that|these|those|there|they|which)\b.*(?:\b(?:no|not|never|none|cannot)\b|n['\u2019]t\b)|"
    r"you (?:can )?(?:see|find)\b.*\b(?:no|not|none)\b|(?:i|we|you) (?:do|can)(?:n?['\u2019]t|not| not) (?:see|find|think|believe)\b)",
    re.IGNORECASE,
)
"""Questions whose denial is what is asked about ("no necrosis?", "are you sure there is no tumour?")."""
RULED_OUT = re.compile(
    r"^(?:so |and )?(?:can|could|would|do|did|does|is it possible to|how (?:can|do)) ?(?:you|we|i|one|it|this|that)? ?(?:really |safely |help me )?(?:exclude|rule out|confirm or exclude)\b|\bbe (?:excluded|ruled out)\b",
    re.IGNORECASE,
)
ASKED_FOR = re.compile(
    r"\b(?:can|could|would|will) you (?:please |kindly |just )?(?!see|tell|say|find out|confirm|exclude|rule)\w+|\bplease\b",
    re.IGNORECASE,
)
IGNORANT = re.compile(
    r"\b(?:(?:no|not the slightest|not the faintest|haven't an?|without any) (?:idea|clue|notion)|(?:not|n't|never|un) ?(?:really |quite |exactly |even |too )?"
    r"(?:sure|certain|know|understand|tell|clear|figure out)|never (?:yet |really |actually |even )?(?:seen|heard of|met|noticed|come across))\b"
    r"(?:(?!\b(?:not|no|don't|without|except|only|but)\b)[^.;!?,]){0,60}$",
    re.IGNORECASE,
)
"""Words in front of a thing by somebody who does not know it ("no idea what glands are")."""
NOT_A_WISH = re.compile(
    r"\b(?:check|confirm|verify|establish|tell me|let me know|find out|prove|say if)\b[^.;!?]{0,25}\b(?:no|not|absence of|lack of|can['\u2019]t|cannot|free of|without)\b[^.;!?,]{0,30}$|"
    r"\b(?:you|it|this)(?: have| has|['\u2019]ve|['\u2019]s)? (?:just |also |again )?(?:skipped|missed|forgot|forgotten|overlooked|omitted|dropped|left out|ignored|lost)\b[^.;!?,]{0,30}$|"
    r"\bwhy (?:did|have|do|does|has)\b[^.;!?,]{0,60}$|"
    r"\b(?:hope|hoping|pray|praying|scared|afraid|fear|frightened|worried|relieved|glad|happy)\b[^.;!?]{0,40}$|"
    r"\b(?:says?|said|reads?|states?|wrote|writes)\b:? ?[\"\u201c'][^\"\u201d]{0,40}$|"
    r"\b(?:i|we)(?:['\u2019]ve| have| had| was| were)? (?:just |been |only |always )?(?:read|heard|told|learn(?:ed|t)|understand|understood|gather(?:ed)?|informed)\b[^.;!?]{0,60}$|"
    r"\bwhether or not\b[^.;!?,]{0,40}$|"
    r"\b(?:you|it|this|the (?:software|tool|model|program|computer|machine|ai|mask|outline|result))(?: (?:did|have|has|had) ?(?:not|n['\u2019]t)|(?:'ve|'s) not|['\u2019]ve not) (?!to\b)(?:\w+ )?[^.;!?,]{0,40}$|"
    r"\b(?:(?:my|the|our|your|his|her|a) \w+|doctors?|doc|dr|pathologists?|oncologist|surgeon|specialist|consultant|nurse|gp|radiologist|colleague|lab|report|letter|results?|they|he|she|it)\b[^.;!?]{0,30}"
    r"\b(?:says?|said|told|tells|writes|wrote|claims?|claimed|thinks?|thought|believes?|believed|reports?|reported|states?|stated|insists?|mentions?|mentioned)\b[^.;!?]{0,40}"
    r"\b(?:found|saw|seen|finds?|sees?|there(?:['\u2019]s| is| are| was| were)|there isn['\u2019]t|have|has|had|is|was|are|were|do(?:es)?n['\u2019]t|isn['\u2019]t|wasn['\u2019]t)\b[^.;!?,]{0,30}$",
    re.IGNORECASE,
)
"""Words in front of a thing that deny it for another reason than to leave it out: a case put, a complaint, others' words."""
MISSED = re.compile(
    r" (?:(?:is|are|was|were) (?:still |all |again )?(?:missing|lost|gone)|(?:is|are|was|were|have|has)(?: not|n['\u2019]t) (?:been )?\w+ed)\b[^.;!?]{0,20}"
    r"\b(?:mask|outline|result|overlay|picture|last time|yet|so far|before)\b|"
    r" (?:should not|shouldn['\u2019]t) have been (?:left|skipped|missed|omitted|dropped|ignored|forgotten|excluded)",
    re.IGNORECASE,
)
"""Behind a thing that an earlier answer lacks: it is wanted."""
SUPPOSED = re.compile(
    r"\bwould\b[^.;!?]{0,40}\b(?:look|be|happen|mean|change|differ|appear)\b", re.IGNORECASE
)
""" "How would it look if there were no inflammation?"."""
OWN_DISEASE = re.compile(
    r"\b(?:i|we|he|she|they) (?:do|does|did)(?: not|n['\u2019]t) (?:want to |wanna )?(?:have|get)\b[^.;!?,]{0,12}$",
    re.IGNORECASE,
)
TAG = re.compile(
    r"(?:right|correct|true|yes|no|eh|huh|or not|(?<!what )(?<!where )(?<!which )(?<!who )is(?:n't)? (?:it|there|that|this)|(?<!what )(?<!where )(?<!which )(?<!who )are(?:n't)? (?:they|there|those)|"
    r"does(?:n't)? it|do(?:n't)? they|would(?:n't)? you (?:say|agree)|am i (?:right|wrong))\s*\?$",
    re.IGNORECASE,
)


def only_asked(words: Words, mention: Mention) -> bool:
    """ "That isn't a tumour, right?", "isn't there necrosis?": a negated question asks for what it names."""
    text, start = words.text, words[mention.first].start
    low = max(text.rfind(mark, 0, start) for mark in ".!?\n") + 1
    end = re.compile(r"[.!?\n]|$").search(text, start)
    sentence = text[low : end.end() if end else len(text)].strip()
    if IGNORANT.search(text[low:start]) or NOT_A_WISH.search(text[low:start]):
        return True
    if MISSED.match(text, words[mention.last].end) or (
        mention.concept.id in DISEASES and OWN_DISEASE.search(text[low:start])
    ):
        return True
    if sentence.endswith("?") and SUPPOSED.search(sentence):
        return True
    if re.match(r"why (?:not|don't)\b", sentence, re.IGNORECASE):
        return True
    negated = NEGATED_QUESTION.match(sentence)
    if not sentence.endswith("?") or (ORDERING.search(sentence) and not negated):
        return False
    if negated or TAG.search(sentence) or RULED_OUT.search(sentence):
        return True
    denied = DENIED_QUESTION.search(sentence)
    return bool(denied) and not ASKED_FOR.search(sentence)
