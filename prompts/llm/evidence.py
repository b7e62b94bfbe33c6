"""Whether a quote really stands in the text, and where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

_SAME = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u2011", "''\"\"---")
_EDGES = " \t\r\n\"'.,;:\u2026"
_SHORTEST = 3


@dataclass(frozen=True)
class Span:
    """Part of a text: ``text[start:end]``."""

    start: int
    end: int


class Quotable:
    """A text prepared for looking up quotes. Case, white space and typographic quotes and dashes do not count."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _folded(self) -> tuple[str, list[int]]:
        """The folded text, and for each of its characters the offset it came from."""
        characters: list[str] = []
        offsets: list[int] = []
        for offset, character in enumerate(self.text):
            if character.isspace():
                if characters and characters[-1] != " ":
                    characters.append(" ")
                    offsets.append(offset)
                continue
            for folded in character.translate(_SAME).casefold():
                characters.append(folded)
                offsets.append(offset)
        return "".join(characters), offsets

    def find(self, quote: str, after: int = 0) -> Span | None:
        """The first place at or after an offset where the quote stands as whole words, or None."""
        wanted = " ".join(quote.translate(_SAME).casefold().split()).strip(_EDGES)
        if sum(character.isalnum() for character in wanted) < _SHORTEST:
            return None
        folded, offsets = self._folded
        at = folded.find(wanted)
        while at >= 0:
            end = at + len(wanted)
            if offsets[at] >= after and _is_whole(folded, at, end):
                return Span(offsets[at], offsets[end - 1] + 1)
            at = folded.find(wanted, at + 1)
        return None


def _is_whole(text: str, start: int, end: int) -> bool:
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    behind = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not before and not behind
