"""Words of a report that look like the name of an object but that the lexicon does not know."""

from __future__ import annotations

import re

from tissuetalk.prompts.lexicon import lexicon, read_words
from tissuetalk.prompts.target import Span

_ENDINGS = "oma|osis|itis|plasia|blast|cyte|phage|iasis|phil|thelial|thelium"
_NOUNS = "body|inclusion|granule|crystal|globule|nest|infiltrate|rosette|deposit"
_OBJECT = re.compile(rf"[a-z]{{3,}}(?:{_ENDINGS})")
_NOUN = re.compile(_NOUNS)
_NO_OBJECT = frozenset({"diagnosis", "prognosis", "anastomosis"})


def unread(text: str) -> tuple[Span, ...]:
    """Where such words stand, in order. A noun such as "bodies" is taken with the word before it."""
    words = read_words(text, loose=False)
    known = {index for hit in lexicon().find(words) for index in range(hit.first, hit.last + 1)}
    gaps = []
    for index, word in enumerate(words):
        if index in known or word.norm in _NO_OBJECT:
            continue
        if _OBJECT.fullmatch(word.norm):
            gaps.append(Span(word.start, word.end))
        elif _NOUN.fullmatch(word.norm) and index > 0 and text[words[index - 1].end : word.start] == " ":
            gaps.append(Span(words[index - 1].start, word.end))
    return tuple(gaps)


def is_known(words: str) -> bool:
    """Whether the lexicon knows an object: that it has no label is then an answer, not a gap."""
    return bool(lexicon().find(read_words(words, loose=False)))
