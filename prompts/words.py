"""Text as normalised tokens that remember where they came from.

British and American spelling, plurals and case fall together, so that the lexicon holds each word once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import product
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

GROUP = re.compile(r"<(\w+)>")
"""A group of words named in a pattern."""
UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
"""Marks of no width: part of a word, and of no meaning."""
WORD = re.compile(
    rf"[^\W\d_]+(?:[{UNSEEN}]+[^\W\d_]+)*(?:['\u2019][^\W\d_]{{1,2}}(?![^\W\d_]))?|\d+(?:[.,]\d+)?"
)
"""Runs of letters (with a short apostrophe ending) or a number; every hyphen and slash separates."""
_LIGATURES = str.maketrans(
    {"æ": "ae", "œ": "oe", "ﬁ": "fi", "ﬂ": "fl", "\u2019": "'", "ß": "ss"} | dict.fromkeys(UNSEEN, "")
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word: its normal form, its own lower-case form, and where it stands in the text."""

    norm: str
    lower: str
    start: int
    end: int


class Words(tuple[Token, ...]):
    """The tokens of a text, with the text they stand in."""

    text: str
    _norms: list[str]

    @classmethod
    def of(cls, found: Iterable[Token], text: str) -> Words:
        words = cls(found)
        words.text = text
        words._norms = [word.norm for word in words]
        return words

    def part(self, first: int, stop: int) -> Words:
        """The tokens `first`..`stop - 1`; their offsets stay those of the whole text."""
        return Words.of(self[first:stop], self.text)

    def gap(self, before: int, after: int) -> str:
        """The characters between two tokens."""
        return self.text[self[before].end : self[after].start]

    def go_on(self, index: int) -> bool:
        """Whether nothing before a token parts it from the one in front: scanners turn line ends into stops."""
        gap = self.gap(index - 1, index)
        if gap in (" ", "-"):
            return True
        if len(gap) > 6 or any(mark in gap for mark in ",;:()[]?!=+*|\u2022") or gap.count(".") > 1:
            return False
        new_sentence = "." in gap and self.text[self[index].start].isupper()
        return not (new_sentence and self.text[self[index - 1].end - 1].islower())

    def item(self, first: int, last: int) -> tuple[int, int]:
        """The first and last token of the part between commas, semicolons or ends that holds some tokens."""
        while first > 0 and not any(mark in self.gap(first - 1, first) for mark in ",;:.\n"):
            first -= 1
        while last + 1 < len(self) and not any(mark in self.gap(last, last + 1) for mark in ",;:.\n"):
            last += 1
        return first, last

    def quote(self, first: int, last: int) -> str:
        """The characters from the first token to the end of the last, verbatim."""
        return self.text[self[first].start : self[last].end]

    def norms(self, first: int, stop: int) -> list[str]:
        """The normal forms of the tokens `first`..`stop - 1`; a negative `first` is the beginning."""
        return self._norms[max(first, 0) : max(stop, 0)]


def word_set(text: str) -> frozenset[str]:
    """The words of a string as a set."""
    return frozenset(text.split())


@lru_cache(maxsize=16)
def load_terms(name: str) -> Any:
    """One YAML file of `terms/`."""
    text = resources.files("tissuetalk.prompts").joinpath("terms", name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=LOADER)


def spelt_out(pattern: str, groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Every phrase a pattern stands for: "is|was not_found" is "is not found" and "was not found"; "?" may be left out.

    "<seen>" is the group of that name: its phrases of several words are spelt out, its single words stay one symbol.
    """
    choices: list[list[str]] = []
    for word in pattern.split():
        options: list[str] = []
        for choice in word.removesuffix("?").split("|"):
            name = GROUP.fullmatch(choice)
            inside = groups[name.group(1)] if name else ()
            options += [choice if name else choice.replace("_", " ")]
            options += [text.replace("_", " ") for text in inside if "_" in text]
        choices.append(options + [""] * word.endswith("?"))
    return (" ".join(chosen) for chosen in product(*choices))


@lru_cache(maxsize=1)
def _american() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (re.compile(pattern), said) for pattern, said in load_terms("forms.yaml")["american"].items()
    )


@lru_cache(maxsize=20_000)
def normal(word: str) -> str:
    """American, singular, lower-case form of one word."""
    low = word.lower().translate(_LIGATURES)  # marks of no width go, too
    low = low.removesuffix("'s")
    if not low.isalpha():
        return low
    for pattern, american in _american():
        low = pattern.sub(american, low)
    return singular(low)


def singular(word: str) -> str:
    """The singular by the rules of English and of medical Latin; short and -us/-is/-ss words stay."""
    irregular: str | None = load_terms("forms.yaml")["irregular"].get(word)
    if irregular is not None:
        return irregular
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "ous")):
        return word[:-1]
    return word


_OCR = re.compile(r"(?<=[^\W\d_]{2})[015$](?=[^\W\d_]{2})|(?<=[^\W\d_]{3})[015$](?=[^\W\d_])")
_ZERO = re.compile(
    r"(?<=[A-Za-z])0(?=[A-Za-z])|(?:(?<=[.:;\n])|(?<=[.:;\n]\s)|(?<![\s\S]))N0(?=\s+[A-Za-z]{3,}|\s*[.;\n]|\s*$)"
)
_SIGN = re.compile(r"\( ?([-+]) ?\)")
_SHORT_SIGN = re.compile(r"(?<![\w-])([-\u2013+])ve\b", re.IGNORECASE)
_OCR_LETTERS = {"0": "o", "1": "i", "5": "s", "$": "s"}


def unscan(text: str) -> str:
    """Digits that a scanner read for letters inside a word, and signs for words, put right; every offset stays."""
    text = _ZERO.sub(lambda match: match.group().replace("0", "O"), text)
    text = _SIGN.sub(
        lambda match: ("neg" if match.group(1) == "-" else "pos").center(len(match.group())), text
    )
    text = _SHORT_SIGN.sub(lambda match: "pos" if match.group(1) == "+" else "neg", text)
    return _OCR.sub(lambda match: _OCR_LETTERS[match.group()], text)


SPOKEN = {
    "period": ".\n",
    "full stop": ".\n",
    "comma": ",",
    "semicolon": ";",
    "colon": ":",
    "new line": "\n",
    "newline": "\n",
    "new paragraph": "\n",
    "next line": "\n",
}
_SPOKEN_MARK = re.compile(rf"(?<=\w) (?:{'|'.join(SPOKEN)})(?=[\s.]|$)", re.IGNORECASE)


def with_spoken_marks(text: str) -> str:
    """Marks that a dictation spells out ("... seen period no necrosis period") as marks; every offset stays.

    "Colon" alone is an organ: a text that speaks its marks says at least two others.
    """
    found = [match.group()[1:].lower() for match in _SPOKEN_MARK.finditer(text[:100_000])]
    if sum(name != "colon" for name in found) < 2 or not {"period", "full stop", "comma"} & set(found):
        return text
    return _SPOKEN_MARK.sub(
        lambda match: (
            match.group()
            if match.group()[1:].lower() == "colon"
            else SPOKEN[match.group()[1:].lower()].ljust(len(match.group()))
        ),
        text,
    )


def tokens(text: str) -> Words:
    """All words and numbers of the text in order."""
    found = (
        Token(normal(match.group()), match.group().lower(), match.start(), match.end())
        for match in WORD.finditer(unscan(text))
    )
    return Words.of(found, text)


@lru_cache(maxsize=20_000)
def phrase(text: str) -> tuple[str, ...]:
    """The normal forms of a phrase of the lexicon."""
    return tuple(normal(match.group()) for match in WORD.finditer(text))


def clean(text: str) -> str:
    """A verbatim span as a short prompt: lower case, one line, without the scanner's stray stops."""
    flat = re.sub(r"[.,;:](?=\s|$)", " ", text)
    return " ".join(flat.lower().split()).strip(" -/()[]{}\"'*#")
