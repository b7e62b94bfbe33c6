"""Names of objects: what a few words mean as a whole, and words that look like a name the lexicon does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tissuetalk.models.segmenter import TAUGHT, Prompt
from tissuetalk.prompts.lexicon import is_english, lexicon, read_words
from tissuetalk.prompts.organs import organ_of
from tissuetalk.prompts.reading.mentions import find_mentions, spoken
from tissuetalk.prompts.target import Span, Target
from tissuetalk.prompts.taxonomy import LABELS, Label, labels_of, pathsegmentor_prompt
from tissuetalk.prompts.words import Words, load_terms, phrase

_ENDINGS = "oma|osis|itis|plasia|blast|cyte|phage|iasis|phil|thelial|thelium"
_NOUNS = "body|inclusion|granule|crystal|globule|nest|infiltrate|rosette|deposit"
_OBJECT = re.compile(rf"[a-z]{{3,}}(?:{_ENDINGS})")
_NOUN = re.compile(_NOUNS)
_NAMED_KIND = re.compile("cell|bacillus|bacterium|organism|corpuscle|sign|fiber")
"""Nouns that name something only with a word in front that is no everyday English ("Paneth cells")."""
Tissue = Literal["tumour", "stroma"]
_TISSUES: Mapping[Tissue, re.Pattern[str]] = {
    "tumour": re.compile(r"tumou?r|carcinoma|cancer|neoplas|malignan", re.IGNORECASE),
    "stroma": re.compile(r"stroma", re.IGNORECASE),
}
_NO_OBJECT = frozenset({"diagnosis", "prognosis", "anastomosis"})


def unread(text: str, words: Words | None = None) -> tuple[Span, ...]:
    """Where such words stand, in order. A noun such as "bodies" is taken with the word before it."""
    words = read_words(text, loose=False) if words is None else words
    hits = [hit for hit in lexicon().find(words) if not hit.concept.broad]
    known = {index for hit in hits for index in range(hit.first, hit.last + 1)}
    gaps = []
    for index, word in enumerate(words):
        if index in known or word.norm in _NO_OBJECT:
            continue
        joined = index > 0 and words.gap(index - 1, index) == " "
        if _OBJECT.fullmatch(word.norm):
            gaps.append(Span(word.start, word.end))
        elif joined and (_NOUN.fullmatch(word.norm) or _is_named_kind(words, index, known)):
            gaps.append(Span(words[index - 1].start, word.end))
    return tuple(gaps)


def _is_named_kind(words: Words, index: int, known: set[int]) -> bool:
    before = words[index - 1].norm
    strange = index - 1 not in known and len(before) > 3 and before.isalpha() and not is_english(before)
    return strange and bool(_NAMED_KIND.fullmatch(words[index].norm))


def target_named(words: str, organ: str | None) -> Target | None:
    """What the words of a target mean through the lexicon ("IDC", "TILs"), when they are one name and nothing else."""
    if concept_of(words) is not None:
        return None
    tokens_of = read_words(words, loose=True)
    mentions = find_mentions(tokens_of)
    if len(mentions) != 1:
        return None
    only = mentions[0]
    rest = {token.norm for i, token in enumerate(tokens_of) if not only.first <= i <= only.last}
    if rest - _whole_names().filler or only.concept.own_words:
        return None
    region = organ or only.concept.organ or organ_of(tokens_of)
    place = lexicon().place(only.concept, region)
    if place.label is None and spoken(only, tokens_of) == words:
        return None
    return Target(
        place.label,
        spoken(only, tokens_of),
        organ=region,
        alternatives=place.alternatives,
        reason=place.reason,
    )


def speaks_of(tissue: Tissue, text: str) -> bool:
    """Whether a label or a name has to do with tumour or with stroma; "tumour-associated stroma" has with both."""
    return bool(_TISSUES[tissue].search(text))


def is_known(words: str) -> bool:
    """Whether the lexicon knows an object: that it has no label is then an answer, not a gap."""
    return bool(lexicon().find(read_words(words, loose=False)))


@dataclass(frozen=True)
class _WholeNames:
    """`terms/whole_names.yaml` as sets of words."""

    filler: frozenset[str]
    beside: Mapping[str, frozenset[str]]
    phrases: Mapping[str, frozenset[str]]
    same: Mapping[str, str]
    labels: Mapping[str, str]

    def content(self, text: str) -> list[str]:
        """The words that carry the meaning, in normal form and in order."""
        words = [word for token in phrase(text) for word in self.same.get(token, token).split()]
        return [word for word in words if word.isalpha() and word not in self.filler]


@lru_cache(maxsize=1)
def _whole_names() -> _WholeNames:
    rows = load_terms("whole_names.yaml")
    beside, phrases = (
        {concept: frozenset(words) for concept, words in rows[key].items()} for key in ("beside", "phrases")
    )
    return _WholeNames(frozenset(rows["filler"]), beside, phrases, rows["same"], rows["labels"])


def content_of_name(text: str) -> list[str]:
    """The words of a name that carry its meaning, in normal form and in order."""
    return _whole_names().content(text)


@lru_cache(maxsize=4096)
def concept_of(words: str, label: str | None = None) -> str | None:
    """The concept that a few words name as a whole; None when any of them belongs to something else.

    Words that say no more than their label mean what the label means.
    """
    names = _whole_names()
    content = names.content(words)
    if label is not None and set(content) <= set(names.content(label.replace("-", " "))):
        return names.labels.get(label)
    for concept, phrases in names.phrases.items():
        if " ".join(word for word in content if word not in names.beside.get(concept, ())) in phrases:
            return concept
    return None


def prompt_of(label: str | None, words: str, text: str, *, verbatim: bool = False) -> Prompt:
    """A prompt that carries the concept of its words, as every prompt made from words must."""
    return Prompt(label, words, text, verbatim, concept_of(words, label))


def prompt_for(target: Target) -> Prompt:
    """The target as a model is asked for it: the taxonomy's sentence where there is a label, the words otherwise.

    What was taught is asked for by nothing but its own concept.
    """
    if target.learned:
        return Prompt(target.label, target.words, target.words, True, f"{TAUGHT}{target.learned}")
    text = pathsegmentor_prompt(Label.parse(target.label)) if target.label is not None else target.words
    return prompt_of(target.label, target.words, text)


TEMPLATE = re.compile(
    r"\b(?:(tissue|cell|nuclei)-level )?([a-z][a-z /-]{1,48}?) in ([a-z ]{3,14}) pathology\b", re.IGNORECASE
)


@lru_cache(maxsize=1)
def _label_pattern() -> re.Pattern[str]:
    names = sorted(map(str, LABELS), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, names))})(?![\w-])", re.IGNORECASE)


def labels_in(text: str) -> list[Target]:
    """Targets of a text that is nothing but canonical labels or sentences made from them, each exactly as it says.

    The short sentence "gland in colon pathology" names no structure: it means the first label of that organ and object,
    and the others are alternatives. Empty for any other text.
    """
    found: list[tuple[re.Match[str], tuple[Label, ...]]] = [
        (match, (Label.parse(match.group()),)) for match in _label_pattern().finditer(text)
    ]
    for match in TEMPLATE.finditer(text) if " pathology" in text.lower() else ():
        structure, name, region = (group.lower() if group else group for group in match.groups())
        meant = tuple(
            label
            for label in labels_of(region)
            if label.object_type == name and structure in (None, label.structure)
        )
        if meant:
            found.append((match, meant))
    rest = text
    for match, _ in found:
        rest = rest.replace(match.group(), " ")
    if not found or set(_whole_names().content(rest)) - {"mask", "outline"}:
        return []
    found.sort(key=lambda pair: pair[0].start())
    return [
        Target(
            str(meant[0]),
            meant[0].object_type,
            evidence=match.group(),
            start=match.start(),
            organ=None if meant[0].region == "unspecified" else meant[0].region,
            alternatives=tuple(map(str, meant[1:])),
            reason="named by its label",
        )
        for match, meant in found
    ]
