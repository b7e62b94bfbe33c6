"""The words that decide whether a named object is there, as one tree of phrases (`terms/cues.yaml`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tissuetalk.prompts.lexicon import Node, grow, load_terms, longest
from tissuetalk.prompts.words import Token, phrase

CUE_KINDS = (
    "verbs",
    "stop",
    "current",
    "positive",
    "pre_historical",
    "post_historical",
    "post_absent",
    "pre_absent",
    "post_uncertain",
    "pre_uncertain",
    "unknown",
    "pseudo",
)


@dataclass(frozen=True, slots=True)
class Cue:
    """A cue phrase at tokens `first`..`last`; a phrase can speak both ways, so it can have several kinds."""

    kinds: frozenset[str]
    first: int
    last: int


@lru_cache(maxsize=1)
def _tree() -> Node:
    rows = load_terms("cues.yaml")
    kinds: dict[tuple[str, ...], set[str]] = {}
    for kind in CUE_KINDS:
        for text in rows[kind]:
            kinds.setdefault(phrase(str(text)), set()).add(kind)
    tree: Node = {}
    for words, found in kinds.items():
        grow(tree, words, frozenset(found))
    return tree


def find_cues(words: Sequence[Token], text: str, first: int, last: int, taken: frozenset[int]) -> list[Cue]:
    """All cues among tokens `first`..`last`, longest first from the left, none inside a named object (`taken`)."""
    cues: list[Cue] = []
    index = first
    while index <= last:
        end = next((inner for inner in range(index, last + 1) if inner in taken), last + 1)
        found = longest(_tree(), words[:end], index, text) if end > index else None
        if found is None:
            index += 1
            continue
        cues.append(Cue(found[1], index, found[0]))
        index = found[0] + 1
    return cues


@lru_cache(maxsize=32)
def phrases(name: str) -> frozenset[tuple[str, ...]]:
    """A list of `cues.yaml` as normalised phrases."""
    return frozenset(phrase(str(text)) for text in load_terms("cues.yaml")[name])


@lru_cache(maxsize=1)
def section_names() -> dict[tuple[str, ...], str]:
    """Which section a heading opens."""
    rows = load_terms("cues.yaml")["sections"]
    return {phrase(text): section for section, texts in rows.items() for text in texts}


def has_phrase(words: Sequence[Token], first: int, last: int, name: str) -> bool:
    """Whether any phrase of the list stands among tokens `first`..`last`."""
    wanted = phrases(name)
    norms = [word.norm for word in words[max(first, 0) : last + 1]]
    return any(
        tuple(norms[i : i + n]) in wanted
        for i in range(len(norms))
        for n in (1, 2, 3, 4)
        if i + n <= len(norms)
    )
