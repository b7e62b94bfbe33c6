"""Names that users gave to what they taught: which words mean them, and what a text says of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from tissuetalk.models.errors import NoTargetInWordsError
from tissuetalk.prompts.lexicon import lexicon, read_words
from tissuetalk.prompts.names import content_of_name
from tissuetalk.prompts.target import Assertion, Reader, Target
from tissuetalk.prompts.taxonomy import OBJECT_TYPES, is_label
from tissuetalk.prompts.words import phrase

_STAND_INS = ("keratin pearls", "psammoma bodies")
"""Things without a label that every reader knows: what a text says of one in the place of a name, it says of the name."""


def same_thing(name: str, target: Target) -> bool:
    """Whether a target's words, or its label in any organ, mean what a name does."""
    last = (target.label or "").rsplit("-", 1)[-1]
    meant = [text for text in (target.words, target.label, last) if text]
    return any(_senses(name) & _senses(text) for text in meant)


def is_name_of_a_label(name: str) -> bool:
    """Whether the taxonomy has a label or an object of that name."""
    return is_label(name) or " ".join(name.casefold().split()) in OBJECT_TYPES


def named_in(words: str, names: Iterable[str]) -> list[str]:
    """The names that a text says, in any case and number."""
    said = " ".join(phrase(words))
    return [name for name in names if f" {' '.join(phrase(name))} " in f" {said} "]


def target_of_name(reader: Reader, words: str, name: str, organ: str | None) -> Target:
    """What a text says of a name that no lexicon has: there, ruled out, uncertain or historical."""
    pattern = re.compile(r"\W+".join(map(re.escape, name.split())), re.IGNORECASE)
    stand_in = next((each for each in _STAND_INS if each not in words.casefold()), _STAND_INS[0])
    assertion: Assertion = "present"
    try:
        read = reader.translate(pattern.sub(stand_in, words), organ=organ)
        assertion = next(each.assertion for each in read.targets if each.words == stand_in)
    except (NoTargetInWordsError, StopIteration):
        pass  # nothing is said of it but its name
    found = pattern.search(words)
    evidence = found.group() if found else name
    return Target(None, name, assertion, evidence, organ=organ, reason="a name that was taught")


@lru_cache(maxsize=4096)
def _senses(text: str) -> frozenset[str]:
    """The content words in their normal form, and the concept that the whole of them names."""
    words = read_words(text.replace("-", " "), loose=True)
    senses = {" ".join(content_of_name(text)), " ".join(phrase(text))} - {""}
    hits = lexicon().find(words)
    if len(hits) == 1 and hits[0].first == 0 and hits[0].last == len(words) - 1:
        concept = hits[0].concept
        # "melanoma" is no name for every tumour
        senses |= {f"concept {concept.id}"} - {"concept tumor"} if not concept.broad else set()
    return frozenset(senses)
