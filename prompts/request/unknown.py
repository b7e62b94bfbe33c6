"""Objects a request names that the lexicon does not know: they are passed on in plain words, never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tissuetalk.prompts.lexicon import ARTICLES, groups_of, lexicon
from tissuetalk.prompts.organs import organ_hits
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.request.roles import find_terms
from tissuetalk.prompts.words import Token, Words, load_terms, phrase, word_set

ASKING = word_set(
    "segment outline mark highlight find delineate trace mask detect locate extract isolate circle "
    "annotate count measure show quantify identify pick label contour draw where"
)
STRUCTURES = word_set("border membrane layer wall edge rim lining surface structure")
LONGEST_NAME = 5
LINKING = frozenset({"and", "or"})


@dataclass(frozen=True, slots=True)
class Unknown:
    """Tokens `first`..`last` name something. `extends` is the mention whose name goes on with them, if any."""

    first: int
    last: int
    extends: Mention | None = None


NO_NAMES = {
    "cues.yaml": "pre_absent post_absent pre_uncertain stop verbs positive normal invading order_verbs",
    "request.yaml": "common verbs case_words unwanted_before unwanted_behind subtracting always_space inside union "
    "intersection everything",
}
"""Lists of the lexicon whose words never name an object."""


@lru_cache(maxsize=1)
def _common_words() -> frozenset[str]:
    texts = (
        text
        for file, lists in NO_NAMES.items()
        for texts in [*(load_terms(file)[name] for name in lists.split()), *groups_of(file).values()]
        for text in texts
    )
    return frozenset(word for text in texts for word in phrase(str(text))) | lexicon().modifiers


def find_unknown(words: Words, mentions: Sequence[Mention]) -> list[Unknown]:
    """Runs of words that are neither ordinary English nor in the lexicon, where an object would stand."""
    taken = {i: mention for mention in mentions for i in range(mention.first, mention.last + 1)}
    organs = {i for first, last, _, _ in organ_hits(words) for i in range(first, last + 1)}
    measured = {
        i
        for first, last, _ in find_terms(words, "inside", "always_space", "beside")
        for i in range(first, last + 1)
    }
    free = [
        i not in taken and i not in organs and i not in measured and _is_strange(word)
        for i, word in enumerate(words)
    ]
    found: list[Unknown] = []
    index = 0
    while index < len(words):
        if not free[index]:
            index += 1
            continue
        last = index
        while last + 1 < len(words) and free[last + 1] and _joined(words, last):
            last += 1
        while last + 1 < len(words) and words[last + 1].norm in STRUCTURES and _joined(words, last):
            last += 1
        unknown = _judge(words, index, last, taken, bool(mentions))
        if unknown is not None:
            found.append(unknown)
        index = last + 1
    return found


def _is_strange(word: Token) -> bool:
    if not (word.norm.isalpha() and word.norm.isascii()) or len(word.norm) < 3:
        return False
    return word.norm not in _common_words() and word.lower not in _common_words()


def _joined(words: Words, last: int) -> bool:
    return words.gap(last, last + 1) in (" ", "-", "  ")


def _judge(
    words: Words, first: int, last: int, taken: dict[int, Mention], anything_known: bool
) -> Unknown | None:
    """An unknown run counts when it goes on with a known name, follows a word that asks, or stands in a list."""
    before = taken.get(first - 1)
    if before is not None and _joined(words, first - 1):
        return Unknown(before.first, last, before) if _is_noun(words[last]) else None
    if taken.get(last + 1) is not None and _joined(words, last):
        return None
    start = first
    while start > 0 and words[start - 1].norm in ARTICLES | {"all", "every", "each", "any", "only", "just"}:
        start -= 1
    previous = words[start - 1].norm if start else ""
    asked = (
        previous in ASKING
        or (previous in LINKING and bool(anything_known))
        or (start == 0 and not anything_known and len(words) <= LONGEST_NAME)
    )
    listed = start > 0 and (start - 1) in taken and "," in words.gap(start - 1, start)
    if not (asked or listed) or not _is_noun(words[last]):
        return None
    return Unknown(first, last)


def _is_noun(word: Token) -> bool:
    """A rough test: adverbs and participles end a sentence, they do not name things."""
    return not word.norm.endswith(("ly", "ing", "ed", "ward")) or len(word.norm) < 5
