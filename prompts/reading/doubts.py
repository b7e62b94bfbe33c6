"""What makes a finding uncertain when no cue reaches it: words of denial, doubt or the past that nothing took up.

The cues know many wordings, never all. A word of denial in the clause of a finding that belongs to no other finding,
and to nothing else that the sentence names, leaves the finding open rather than present.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from tissuetalk.prompts.lexicon import lexicon
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.reading.scope import PRESENT_TENSE, Scope
from tissuetalk.prompts.reading.segments import Cue, Segment, find_cues
from tissuetalk.prompts.reading.unfamiliar import is_said_unfamiliarly
from tissuetalk.prompts.words import Words, load_terms, word_set

SETTING_APART = word_set("but except besides than apart aside however and")
SHIELDED = frozenset({"pseudo", "stop", "unknown"})
PLACING = word_set("by in within from around beside near inside into at on through throughout among between")
LEADING = word_set("without minus sans lacking devoid")
COMPARING = word_set("unchanged compared similar same identical like than since after following as change")
DETERMINERS = word_set("the a an this that these those its their our")
JOINING = word_set("and or nor but neither than")
TAIL_OPENS = word_set(
    "not never none nothing hardly scarcely barely is are was were has have could cannot can does do did though although however on if as in neither absent lacking missing gone which"
)
PRONOUNS = word_set("it they this these those them that he she i we")
ANSWERS = word_set("none neither nil absent negative nothing never not")
FOUND = word_set("is are was were seen found identified present noted detected there observed evident")
TUMORS = frozenset({"tumor", "tumor_nuclei"})
CLAUSE_END = re.compile(r"[,;:()\u2013\u2014]|[.]\s+[A-Z][a-z]")
FARTHEST_WORD = 12
"""Tokens between a finding and a word of denial that may be about it."""


def is_doubted(scope: Scope, mention: Mention) -> bool:
    """Whether anything in the clause of a mention speaks against it, though its grammar is not understood."""
    return (
        _question_mark(scope, mention)
        or _is_atypical(scope, mention)
        or _denial_without_object(scope, mention)
        or any(_may_speak_of(scope, at, mention) for at in _loose_words(scope))
        or _denying_tail(scope, mention)
        or is_said_unfamiliarly(scope, mention)
    )


def is_denied_twice(scope: Scope, mention: Mention, cue: Cue | None) -> bool:
    """ "no section fails to show X", "never lacks X": beside the cue that denies a second denial in the same clause."""
    words = scope.words
    if cue is None:
        return False
    first = max(scope.segment.first, mention.first - FARTHEST_WORD)
    for at in range(first, min(scope.segment.last, mention.last + FARTHEST_WORD) + 1):
        if cue.first <= at <= cue.last or at in scope.taken or not _stems("twice").fullmatch(words[at].lower):
            continue
        low, high = min(at, cue.first, mention.first), max(at, cue.last, mention.last)
        parted = any(mark in words.gap(low, high) for mark in ",;:.()\n\u2013\u2014")
        if high - low > FARTHEST_WORD or parted or JOINING & set(words.norms(low + 1, high)):
            continue
        others = [other for other in scope.mentions if other is not mention]
        own = [one for one in scope.cues if one.first <= at <= one.last]
        if not any(low <= other.first <= high for other in others) and not any(
            _is_taken_up(scope, one, others) for one in own
        ):
            return True
    return False


def _denying_tail(scope: Scope, mention: Mention) -> bool:
    """ "necrosis, if anything, is wanting": behind a comma a verb or a denial at once, and nothing that it could be about."""
    words, last = scope.words, scope.segment.last
    if mention.last >= last or "," not in words.gap(mention.last, mention.last + 1):
        return False
    tail = range(mention.last + 1, last + 1)
    if scope.is_set_apart(mention) or "," in words.gap(tail[0], last):
        return False
    if words[tail[0]].norm not in TAIL_OPENS or len(tail) > 9 or any(i in scope.taken for i in tail):
        return False
    return any(i in tail for i in _loose_words(scope)) and not any(
        _stems("presuming").fullmatch(words[i].lower) for i in tail
    )


def _question_mark(scope: Scope, mention: Mention) -> bool:
    words = scope.words
    start, end = words[mention.first].start, words[mention.last].end
    after = words.text[end : end + 3].lstrip(" (")
    return words.text[max(0, start - 2) : start].rstrip().endswith("?") or after.startswith("?")


def _is_atypical(scope: Scope, mention: Mention) -> bool:
    """ "rare atypical glands": a name that the lexicon takes for tumour, and a pathologist for a question."""
    norms = scope.words.norms(mention.first, mention.last + 1)
    return mention.concept.id in TUMORS and "atypical" in norms and norms[-1] not in lexicon().tumor_heads


def _denial_without_object(scope: Scope, mention: Mention) -> bool:
    """A cue of denial in the same clause that reaches no named object: what it denies is anybody's guess.

    Behind the object only a verb counts: "tumour cells are negative for CK20" has an object nobody lists.
    """
    for cue in scope.cues:
        if "pre_absent" in cue.kinds and cue.last < mention.core_first:
            low, high = cue.last, mention.core_first
        elif "post_absent" in cue.kinds and cue.first > mention.last:
            low, high = mention.last, cue.first
        else:
            continue
        if (
            scope.words[cue.last].norm == "by"
            or high - low > 8
            or any(mark in scope.words.gap(low, high) for mark in ",;:()")
        ):
            continue
        if not SETTING_APART & set(scope.words.norms(low, high)) and not _is_taken_up(scope, cue):
            return True
    return False


def _is_taken_up(scope: Scope, cue: Cue, objects: Sequence[Mention] | None = None) -> bool:
    """Whether a cue reaches any of some named objects, or of all."""
    objects = scope.mentions if objects is None else objects
    kinds = {kind for kind in cue.kinds if kind.startswith(("pre_", "post_"))}
    return any(scope.reach(cue, kind, other) is not None for kind in kinds for other in objects)


@lru_cache(maxsize=4)
def _stems(name: str) -> re.Pattern[str]:
    """A list of `cues.yaml` whose words may end in "*", as one pattern for a whole word."""
    listed = (re.escape(str(text)).replace(r"\*", r"\w*") for text in load_terms("cues.yaml")[name])
    return re.compile("|".join(listed))


@lru_cache(maxsize=20_000)
def _is_loose(word: str) -> bool:
    return any(_stems(name).fullmatch(word) for name in ("loose", "loose_past"))


def has_loose_word(words: Words, first: int, last: int) -> bool:
    """Whether tokens `first`..`last` hold a word of denial or doubt that no longer phrase shields."""
    cues = find_cues(words, first, last, frozenset())
    shielded = {i for cue in cues if SHIELDED & cue.kinds for i in range(cue.first, cue.last + 1)}
    denying = _stems("loose")
    return any(i not in shielded and denying.fullmatch(words[i].lower) for i in range(first, last + 1))


def denies_what_was_said(words: Words, part: Segment) -> bool:
    """Whether a sentence that names nothing denies what the one before it named ("None was found.")."""
    norms = words.norms(part.first, min(part.last, part.first + 8) + 1)
    if norms[0] in ANSWERS:
        opens = len(norms) == 1 or norms[1] in FOUND
    else:
        opens = norms[0] in PRONOUNS or norms[-1] in ("them", "it")
    if not opens or part.last - part.first > 12:
        return False
    lower = [word.lower for word in words[part.first : part.last + 1]]
    return has_loose_word(words, part.first, part.last) and not any(
        _stems("presuming").fullmatch(word) for word in lower
    )


def _loose_words(scope: Scope) -> list[int]:
    """Tokens of a segment that deny, doubt or speak of the past, and that no cue took up for any object."""
    if scope.loose is None:
        inside = range(scope.segment.first, scope.segment.last + 1)
        found = {i for i in inside if i not in scope.taken and _is_loose(scope.words[i].lower)}
        for cue in scope.cues if found else ():
            spoken = found & set(range(cue.first, cue.last + 1))
            if spoken and (SHIELDED & cue.kinds or _is_taken_up(scope, cue)):
                found -= spoken
        scope.loose = sorted(found)
    return scope.loose


def _may_speak_of(scope: Scope, at: int, mention: Mention) -> bool:
    words = scope.words
    low, high = (at, mention.first) if at < mention.first else (mention.last, at)
    if high - low > FARTHEST_WORD or CLAUSE_END.search(words.gap(low, high)):
        return False
    if any(low < other.first < high for other in scope.mentions):
        return False
    between = words.norms(low + 1, high)
    if SETTING_APART & set(between):
        return False
    if _stems("loose_past").fullmatch(words[at].lower) and (COMPARING | PRESENT_TENSE) & set(between):
        return False  # "unchanged compared with the prior specimen"
    if at < mention.first:
        before = [norm for norm in between if norm not in DETERMINERS]
        return not (
            before[-1:] == ["by"] or (len(before) > 1 and before[-1] in PLACING)
        )  # "no nerve involved by the carcinoma"
    if scope.is_set_apart(mention):
        return False
    behind = [word.lower for word in words[at + 1 : min(at + 4, scope.segment.last + 1)]]
    if words[at].norm in LEADING and behind and "," not in words.gap(at, at + 1):
        return False  # "carcinoma without special features"
    return not any(_stems("presuming").fullmatch(word) for word in [*behind, words[at].lower])
