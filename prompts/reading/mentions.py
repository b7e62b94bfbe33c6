"""Named objects in a text: lexicon phrases, shared heads ("lymphatic or perineural invasion") and built tumour names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tissuetalk.prompts.lexicon import Concept, Hit, lexicon
from tissuetalk.prompts.words import Words, clean, phrase, word_set

SHARED_HEADS = word_set("invasion involvement permeation infiltration spread embolus")
LIST_WORDS = frozenset({"or", "and", "nor"})
INVASION_ADJECTIVES = word_set(
    "vascular lymphatic lymphovascular venous perineural neural angiolymphatic pleural capsular serosal "
    "microvascular blood vessel arterial lymph angio dermal intraneural perineurial large small "
    "extramural intramural stromal vein portal hepatic renal artery"
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A named object at tokens `first`..`last`; the name itself may be longer to the left than the lexicon's phrase."""

    concept: Concept
    first: int
    last: int
    core_first: int


def find_mentions(words: Words) -> list[Mention]:
    """All named objects in order, none overlapping."""
    book = lexicon()
    shared = _shared_heads(words)
    taken = {index for hit in shared for index in range(hit.first, hit.last + 1)}
    taken |= _adjectives_of(words, shared)
    hits = shared + [h for h in book.find(words) if not any(i in taken for i in range(h.first, h.last + 1))]
    hits.sort(key=lambda hit: hit.first)
    mentions: list[Mention] = []
    previous = -1
    for hit in hits:
        mention = Mention(hit.concept, hit.first, hit.last, hit.first)
        if hit.concept.id in ("tumor", "cis", "benign_tumor", "adenoma"):
            while mentions and _is_modifier(mentions[-1], mention, words):
                mentions.pop()
            previous = mentions[-1].last if mentions else -1
            mention = _extended(mention, words, previous)
        mentions.append(mention)
        previous = mention.last
    return mentions


def _shared_heads(words: Words) -> list[Hit]:
    """Adjectives that share a head: one hit per kind of invasion, the last of them on the head itself."""
    book = lexicon()
    found: list[Hit] = []
    for index, word in enumerate(words):
        if word.norm not in SHARED_HEADS:
            continue
        adjectives = _list_before(words, index)
        if len({words[i].norm for i in adjectives}) < 2:
            continue
        kinds: dict[str, int] = {}
        for place in adjectives:
            node = book.tree.get(words[place].norm, {}).get(word.norm, {})
            concept = node.get("")
            if concept is not None:
                kinds.setdefault(concept.id, place)
        last_kind = max(kinds, key=lambda kind: kinds[kind], default=None)
        for kind, place in kinds.items():
            found.append(Hit(book.concepts[kind], place, index if kind == last_kind else place))
    return found


def _list_before(words: Words, head: int) -> list[int]:
    """Indices of the adjectives of a comma, slash or "or" list that ends right before the head."""
    places: list[int] = []
    index = head - 1
    while index >= 0 and head - index < 14:
        gap = words.gap(index, index + 1)
        if any(mark in gap for mark in ":;") or "\n\n" in gap:
            break
        if words[index].norm in INVASION_ADJECTIVES:
            places.append(index)
        elif words[index].norm not in LIST_WORDS:
            break
        index -= 1
    return places[::-1]


def _adjectives_of(words: Words, shared: Sequence[Hit]) -> set[int]:
    """Tokens of the lists themselves, so that "lymphatic" alone is not taken for a vessel."""
    covered: set[int] = set()
    for hit in shared:
        index = hit.last
        while index >= 0 and (words[index].norm in INVASION_ADJECTIVES | LIST_WORDS | SHARED_HEADS):
            covered.add(index)
            index -= 1
    return covered


def _extended(mention: Mention, words: Words, previous: int) -> Mention:
    """The whole name of a tumour: "high grade papillary urothelial carcinoma" rather than its last word."""
    book = lexicon()
    first = mention.first
    while first - 1 > previous and words[first - 1].norm in book.modifiers:
        if not words.go_on(first) or (
            ". " in words.gap(first - 1, first) and not words.text[words[first].start].islower()
        ):
            break
        first -= 1
    while first < mention.first and words[first].norm in (
        "no",
        "non",
        "in",
        "type",
        "tissue",
        "b",
        "t",
        "ca",
    ):
        if words[first].norm == "non" or (
            words[first].norm in ("b", "t") and words[first + 1].norm == "cell"
        ):
            break
        first += 1
    return replace(mention, first=first)


def _is_modifier(earlier: Mention, mention: Mention, words: Words) -> bool:
    """ "squamous cell" before "carcinoma": a hit that is only part of the tumour's name."""
    book = lexicon()
    if earlier.last + 1 != mention.first or not words.go_on(mention.first):
        return False
    return all(words[i].norm in book.modifiers for i in range(earlier.first, earlier.last + 1))


def spoken(mention: Mention, words: Words) -> str:
    """What a target is called: the words of the text where they say it plainly, else the concept's own name."""
    said = clean(words.quote(mention.first, mention.last))
    concept = mention.concept
    norms = set(words.norms(mention.first, mention.last + 1))
    plain = norms & set(phrase(concept.name))
    head = words[mention.last].norm
    built = (
        concept.id == "tumor"
        and mention.last > mention.first
        and len(head) > 4
        and head in lexicon().tumor_heads
    )
    if concept.id in ("lvi", "pni"):
        return concept.name
    if concept.own_words or built or (plain and len(said) > 4):
        return said
    if concept.id == "tumor" and len(said) > 4 and lexicon().is_tumor_word(words[mention.last].norm):
        return said
    return concept.name
