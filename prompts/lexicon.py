"""What words mean: concepts, the labels that stand for them in each organ, and how they are found in a text.

All knowledge is in `terms/*.yaml`; this module only reads it and matches. A match is a walk down a tree of normalised
words, so a text takes time in proportion to its length whatever it says.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import OSA

from tissuetalk.prompts.taxonomy import is_label
from tissuetalk.prompts.words import (
    WORD,
    Token,
    Words,
    load_terms,
    normal,
    phrase,
    spelt_out,
    tokens,
    word_set,
)

ARTICLES = word_set("the a an that those these any")
Node = dict[str, Any]


@dataclass(frozen=True)
class Concept:
    """One kind of object as people name it. Fields as explained at the top of `terms/concepts.yaml`."""

    id: str
    name: str
    kind: str
    labels: Mapping[str, tuple[str, ...]]
    near: tuple[str, ...] = ()
    why: str = ""
    organ: str | None = None
    report_as: str | None = None
    merge: str | None = None
    alone: str | None = None
    normal: bool = False
    weak: bool = False
    broad: bool = False
    layer: bool = False
    in_situ: bool = False
    own_words: bool = False
    report: bool = True


@dataclass(frozen=True)
class Placement:
    """A concept in one organ: its label, or None when only the words will do."""

    label: str | None
    words: str
    alternatives: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A phrase of the lexicon at tokens `first`..`last` (inclusive)."""

    concept: Concept
    first: int
    last: int


def grow(tree: Node, words: Sequence[str], value: Any) -> None:
    """Add one phrase to a tree of words; the value hangs under the empty word."""
    node = tree
    for word in words:
        node = node.setdefault(word, {})
    node[""] = value


def walk(
    tree: Node,
    words: Words,
    start: int,
    stop: int,
    skipped: frozenset[str],
    branches: Mapping[str, tuple[str, ...]],
) -> tuple[int, list[Any]] | None:
    """The longest phrase that begins at token `start` and ends before `stop`: its last token and its values.

    Words of `skipped` may stand inside a phrase without being part of it. `branches` gives for a word what it may be
    in the tree: itself, and the groups of words it belongs to.
    """
    nodes, best = [tree], None
    for index in range(start, stop):
        if index > start and not words.go_on(index):
            break
        word = words[index].norm
        steps = branches.get(word, (word,))
        taken = [node[step] for node in nodes for step in steps if step in node]
        if taken:
            nodes = taken
            ends = [node[""] for node in nodes if "" in node]
            best = (index, ends) if ends else best
        elif index == start or word not in skipped:
            break
    return best


def longest(
    tree: Node, words: Words, start: int, branches: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> tuple[int, Any] | None:
    """The same to the end of the text, past articles, with one value."""
    found = walk(tree, words, start, len(words), ARTICLES, branches)
    return None if found is None else (found[0], found[1][0])


def phrases_of(
    tree: Node, words: Words, branches: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> list[tuple[int, int, Any]]:
    """All phrases of a tree from the left, longest first, none overlapping: (first token, last token, value)."""
    found, index = [], 0
    while index < len(words):
        hit = longest(tree, words, index, branches)
        if hit is not None:
            found.append((index, *hit))
        index = index + 1 if hit is None else hit[0] + 1
    return found


@lru_cache(maxsize=4)
def branches_of(name: str) -> Mapping[str, tuple[str, ...]]:
    """For a word of a file of terms with groups: itself, and the groups it belongs to."""
    found: dict[str, tuple[str, ...]] = {}
    for group, texts in groups_of(name).items():
        for text in texts:
            word = phrase(text) if "_" not in text else ()
            if len(word) == 1:
                found[word[0]] = (*found.get(word[0], (word[0],)), f"<{group}>")
    return found


def groups_of(name: str) -> dict[str, list[str]]:
    """The groups of words of a file of terms."""
    return {group: str(said).split("|") for group, said in load_terms(name)["groups"].items()}


def steps_of(name: str, pattern: str) -> Iterator[tuple[str, ...]]:
    """The phrases of a pattern of a file of terms as steps down a tree: normal words, and groups by their name."""
    for said in spelt_out(pattern, groups_of(name)):
        yield tuple(
            step for part in said.split() for step in ((part,) if part.startswith("<") else phrase(part))
        )


class Lexicon:
    """All concepts, and the phrases that name them."""

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        tumors: Mapping[str, Any],
        lay: Iterable[Mapping[str, Any]],
        fixes: Mapping[str, str],
    ):
        self.concepts: dict[str, Concept] = {}
        self.tree: Node = {}
        self.words: set[str] = set()
        for row in rows:
            concept = _concept(row)
            self.concepts[concept.id] = concept
            for form in row["forms"]:
                self._add(phrase(str(form)), concept)
        for row in lay:
            for form in lay_forms(row):
                self._add(form, self.concepts[row["concept"]])
        tumor = self.concepts["tumor"]
        self.tumor_heads = frozenset(phrase(head)[-1] for head in tumors["heads"])
        for head in tumors["heads"]:
            self._add(phrase(head), tumor)
        self.modifiers = frozenset(phrase(word)[0] for word in tumors["modifiers"])
        self.not_after_head = frozenset(phrase(word)[0] for word in tumors["not_after_head"])
        self.suffixes = tuple(tumors["suffixes"])
        self.not_tumor = frozenset(tumors["not_tumor"])
        self.fixes = dict(fixes)
        self.words |= self.modifiers

    def _add(self, words: Sequence[str], concept: Concept) -> None:
        grow(self.tree, words, concept)
        self.words.update(words)

    def find(self, words: Words) -> list[Hit]:
        """All phrases, longest first from the left, none overlapping."""
        hits: list[Hit] = []
        index = 0
        while index < len(words):
            found = longest(self.tree, words, index)
            if found is not None:
                hits.append(Hit(found[1], index, found[0]))
                index = found[0] + 1
                continue
            if self.is_tumor_word(words[index].norm):
                hits.append(Hit(self.concepts["tumor"], index, index))
            index += 1
        return hits

    def is_tumor_word(self, word: str) -> bool:
        """Whether an unlisted word is a tumour by its ending (fibrosarcoma, esthesioneuroblastoma)."""
        return len(word) > 7 and word.endswith(self.suffixes) and not word.endswith(tuple(self.not_tumor))

    def place(self, concept: Concept, organ: str | None) -> Placement:
        """Which label stands for the concept in an organ; None means the words themselves are the prompt."""
        listed = concept.labels.get(organ or "?", concept.labels.get("*" if organ else "?", ()))
        region = organ or "unspecified"
        found = _existing(listed, region)
        near = tuple(name for name in _existing(concept.near, region) if name not in found)
        if not found:
            return Placement(None, concept.name, near, concept.why)
        return Placement(found[0], concept.name, found[1:] + near, concept.why)


def lay_forms(row: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    """Colour and thing, with a texture in front, between, or none ("stringy pink stuff"), as normalised words."""
    colors, textures, things = (
        [phrase(text) for text in row[name]] for name in ("colors", "textures", "things")
    )
    for color in colors:
        for thing in things:
            yield color + thing
            for texture in textures:
                yield color + texture + thing
                yield texture + color + thing


def _existing(names: Iterable[str], region: str) -> tuple[str, ...]:
    full = (f"{region}-{name}" if is_label(f"{region}-{name}") else name for name in names)
    return tuple(dict.fromkeys(name for name in full if is_label(name)))


def _concept(row: Mapping[str, Any]) -> Concept:
    known = {key: row[key] for key in Concept.__dataclass_fields__ if key in row}
    known["labels"] = {region: tuple(names) for region, names in row["labels"].items()}
    known["near"] = tuple(row.get("near", ()))
    return Concept(**known)


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The lexicon of the package, read once."""
    fixes = load_terms("spelling.yaml")["fixes"]
    return Lexicon(load_terms("concepts.yaml"), load_terms("tumors.yaml"), load_terms("lay.yaml"), fixes)


@lru_cache(maxsize=1)
def _spelling_lists() -> tuple[frozenset[str], tuple[str, ...]]:
    """Words that are right as they are, and words worth guessing at."""
    spelling = load_terms("spelling.yaml")
    organs = load_terms("organs.yaml").values()
    organ_words = {
        word for row in organs for names in row.values() for name in names for word in phrase(name)
    }
    vocabulary = lexicon().words | organ_words
    guesses = {word for text in spelling["guess"] for word in phrase(text)}
    ordinary = {word for text in spelling["ordinary"] for word in phrase(str(text))}
    for name in ("cues.yaml", "request.yaml"):
        ordinary |= {word for text in _strings(load_terms(name)) for word in phrase(text)}
    return frozenset(vocabulary | guesses | ordinary), tuple(
        sorted(word for word in guesses if len(word) >= 5)
    )


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _strings(inner)]
    return [str(text) for text in value]


def is_english(word: str) -> bool:
    """Whether a word is one of the lexicon, or one of its lists of right words."""
    return word in _spelling_lists()[0] or normal(word) in _spelling_lists()[0]


def names_nobody(text: str, start: int, end: int, own: Container[str] = ()) -> bool:
    """Whether every word of a span is one of the lexicon's lists, or of the object's ``own`` words: a surname is neither.

    A listed word can be a surname, too ("Brown"): with a capital inside a sentence it counts as one.
    """
    for match in WORD.finditer(text, start, end):
        word = match.group()
        if word.lower() in own or word[0].isdigit():
            continue
        before = text[max(0, match.start() - 3) : match.start()]
        opens = "\n" in before or before.rstrip()[-1:] in ("", *".:;?!")
        if not is_english(word.lower()) or (word.istitle() and len(word) > 1 and not opens):
            return False
    return True


@lru_cache(maxsize=20_000)
def respell(word: str, loose: bool) -> str:
    """The lexicon's word for a misspelt one, or the word itself. `loose` allows a second error in words of 8 letters."""
    known, guesses = _spelling_lists()
    fixed = lexicon().fixes.get(word)
    if fixed is not None:
        return fixed
    if len(word) < 5 or word in known or not word.isalpha():
        return word
    allowed = 1 if len(word) < (8 if loose else 11) else 2
    best = process.extractOne(word, guesses, scorer=OSA.distance, score_cutoff=allowed)
    if best is None or (best[0][0] != word[0] and len(word) < 8):
        return _by_sound().get(sound(word), word) if loose and len(word) > 5 else word
    return str(best[0])


SOUNDS = (("ph", "f"), ("y", "i"), ("k", "c"), ("ae", "e"), ("oe", "e"), ("z", "s"), ("x", "cs"), ("h", ""))


def sound(word: str) -> str:
    """How a word sounds, roughly: "limfocite" and "lymphocyte" are one."""
    word = re.sub("c(?=[eiy])", "s", word)
    for letters, said in SOUNDS:
        word = word.replace(letters, said)
    return re.sub(r"(.)\1+", r"\1", word)


@lru_cache(maxsize=1)
def _by_sound() -> dict[str, str]:
    return {sound(word): word for word in _spelling_lists()[1]}


def read_words(text: str, *, loose: bool) -> Words:
    """The tokens of a text with misspelt words put right in `norm`; offsets and `lower` stay verbatim."""
    found = (
        Token(respell(token.norm, loose), token.lower, token.start, token.end)
        if token.norm.isalpha()
        else token
        for token in tokens(text)
    )
    return Words.of(found, text)
