"""Whether what is said of a finding is understood: an everyday word that reports do not use may mean anything there.

Nobody can list the ways in which a finding is denied ("is off the table", "has been laid to rest"). The words of
`terms/unfamiliar.txt` are those of everyday English that stand in no report the list was made from
(`benchmarks/sentence_words.py`). One of them in the predicate of a finding leaves the finding open. Words of the
trade and scanner's errors are not everyday words, so they say nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.reading.scope import Scope
from tissuetalk.prompts.words import Words, word_set

AUXILIARIES = word_set(
    "is are was were be been being has have had can could may might must should will would do does did isn't aren't "
    "wasn't weren't remain appear seem get got become go went gone come came"
)
LEAVING = word_set("out off away aside down behind back over clean clear empty nothing")
"""What may follow a verb of being where something is gone, though reports use the words for other things, too."""
JOINING = word_set("and or nor with plus")
GOVERNING = word_set("of for about on over against from to")
DETERMINERS = word_set("the a an any this that our his her their new further more")
MARKS = ",;:()[]\n"
ASIDE = re.compile(
    r"(?:\s*,[^,;.:()\n]{1,80},|\s+[-\u2013\u2014]\s[^,;.:()\n]{1,60}\s[-\u2013\u2014]|\s*\([^()]{1,80}\))\s+"
    rf"(?=(?:{'|'.join(sorted(AUXILIARIES))})\b)",
    re.IGNORECASE,
)
""" "Lymphoma, as queried, is ...": an aside between a finding and its verb."""
FARTHEST_WORD = 14
"""Tokens behind a finding within which its predicate is looked for."""


@lru_cache(maxsize=1)
def unfamiliar_words() -> frozenset[str]:
    """The list as normalised words."""
    text = resources.files("tissuetalk.prompts").joinpath("terms", "unfamiliar.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def is_unfamiliar(words: Words, at: int) -> bool:
    """Whether a token is an everyday word that reports do not use; adverbs of manner change nothing."""
    word = words[at]
    return word.norm in unfamiliar_words() and not word.lower.endswith("ly")


def answers_unfamiliarly(words: Words, first: int, last: int) -> bool:
    """Whether the value of a field is such a word ("Granulomas: clean")."""
    return any(is_unfamiliar(words, at) or words[at].norm in LEAVING for at in range(first, last + 1))


def is_said_unfamiliarly(scope: Scope, mention: Mention) -> bool:
    """Whether a word that governs a finding, stands behind it or in its predicate is unfamiliar, and of no known phrase."""
    words = scope.words
    if _governed_by_a_stranger(scope, mention):
        return True
    first = _behind_an_aside(scope, mention)
    predicate = first > mention.last + 1
    for at in range(first, min(scope.segment.last, first + FARTHEST_WORD) + 1):
        if at > first and _is_parted(words, at):
            return False
        if at in scope.taken:
            if predicate or not JOINING & set(words.norms(mention.last + 1, at)):
                return False
            continue
        predicate |= words[at].norm in AUXILIARIES
        if at in scope.held or not (predicate or at == first):
            continue
        if is_unfamiliar(words, at) or (predicate and words[at].norm in LEAVING):
            return True
    return False


def _governed_by_a_stranger(scope: Scope, mention: Mention) -> bool:
    """ "the spectre of lymphoma", "worries about a lymphoma": an unfamiliar word, "of" or the like, and the finding."""
    words, at = scope.words, mention.first - 1
    while at > scope.segment.first and words[at].norm in DETERMINERS and not _is_parted(words, at + 1):
        at -= 1
    if at <= scope.segment.first or words[at].norm not in GOVERNING or _is_parted(words, at + 1):
        return False
    return at - 1 not in scope.held | scope.taken and is_unfamiliar(words, at - 1)


def _behind_an_aside(scope: Scope, mention: Mention) -> int:
    """The token behind a finding, or behind ", as queried," and "(see flow)" where a verb of being follows."""
    words, first = scope.words, mention.last + 1
    found = ASIDE.match(words.text, words[mention.last].end)
    if found is None:
        return (
            first if first <= scope.segment.last and not _is_parted(words, first) else scope.segment.last + 1
        )
    behind = first
    while behind <= scope.segment.last and words[behind].start < found.end():
        behind += 1
    return behind


def _is_parted(words: Words, at: int) -> bool:
    return any(mark in words.gap(at - 1, at) for mark in MARKS)
