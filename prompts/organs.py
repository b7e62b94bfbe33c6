"""Which organ a text is about, from its own words.

An organ named outright counts most, most of all at the head of a specimen; tumours, operations and cells that only one
organ has are clues. Family and earlier disease do not count.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache

from tissuetalk.prompts.lexicon import Node, grow, lexicon, phrases_of
from tissuetalk.prompts.taxonomy import REGIONS
from tissuetalk.prompts.words import Words, load_terms, phrase, tokens

NAME_WEIGHT, CLUE_WEIGHT, STRONG_WEIGHT, HEAD_WEIGHT, TUMOR_WEIGHT = 4.0, 1.5, 7.0, 6.0, 6.0
REPEATED = 0.4
ELSEWHERE = "elsewhere"


@lru_cache(maxsize=1)
def _tree() -> Node:
    tree: Node = {}
    for region, rows in load_terms("organs.yaml").items():
        for kind, weight in (("clues", CLUE_WEIGHT), ("names", NAME_WEIGHT), ("strong", STRONG_WEIGHT)):
            for name in rows.get(kind, ()):
                grow(tree, phrase(name), (region, weight))
    return tree


def organ_hits(words: Words) -> list[tuple[int, int, str, float]]:
    """Every word that points to an organ: (first token, last token, region, weight)."""
    return [(first, last, *value) for first, last, value in phrases_of(_tree(), words)]


def organ_of(
    words: Words, *, heads: Iterable[int] = (), ignored: Iterable[tuple[int, int]] = ()
) -> str | None:
    """The region of the taxonomy a text is about, or None when it does not say.

    heads: character offsets where a specimen's heading begins. ignored: character spans that do not count (history).
    """
    spans, starts = tuple(ignored), sorted(heads)
    score: dict[str, float] = {}
    seen: set[tuple[str, ...]] = set()
    for first, last, region, weight in organ_hits(words):
        start = words[first].start
        if any(low <= start < high for low, high in spans):
            continue
        name = tuple(words.norms(first, last + 1))
        value = weight * (REPEATED if name in seen else 1.0)
        seen.add(name)
        if weight >= NAME_WEIGHT and _names_the_tumor(words, first, last):
            value += TUMOR_WEIGHT
        if weight == NAME_WEIGHT and _just_behind(starts, start):
            value += HEAD_WEIGHT
        if not score:
            value += 1.0
        score[region] = score.get(region, 0.0) + value
    if not score:
        return None
    best = max(score, key=lambda region: score[region])
    return None if best == ELSEWHERE else best


def _just_behind(heads: Sequence[int], start: int) -> bool:
    """Whether a place stands within 25 characters behind one of some sorted places."""
    before = bisect_right(heads, start)
    return before > 0 and start - heads[before - 1] <= 25


def _names_the_tumor(words: Words, first: int, last: int) -> bool:
    """ "adenocarcinoma of the endometrium", "prostatic adenocarcinoma": the organ word belongs to a tumour's name."""
    heads = lexicon().tumor_heads
    before = words.norms(first - 4, first)
    after = words.norms(last + 1, last + 3)
    followed = bool(after) and (after[0] in heads or (after[0] in lexicon().modifiers and after[-1] in heads))
    return ("of" in before and bool(heads & set(before))) or followed


def region_of(name: str | None) -> str | None:
    """The region for an organ as a caller writes it ("Large bowel", "breast"); None when it is none of the 20."""
    if not name:
        return None
    plain = " ".join(name.lower().split())
    if plain in REGIONS:
        return None if plain == "unspecified" else plain
    return organ_of(tokens(name))
