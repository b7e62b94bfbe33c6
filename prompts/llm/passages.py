"""Cutting a long text where a reader would: at headings, else paragraphs, lines, sentences, words."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from tissuetalk.prompts.llm.evidence import Span

# Each pattern matches the place where a new part begins; coarse first. None of them can backtrack far.
_BREAKS = (
    re.compile(r"\n(?=[ \t]{0,4}[A-Z][A-Za-z /&()-]{2,50}:)"),
    re.compile(r"\n[ \t]*\n"),
    re.compile(r"\n"),
    re.compile(r"(?<=[.;!?]) "),
    re.compile(r"\s"),
)


def passages(text: str, size: Callable[[str], int], room: int) -> list[Span]:
    """Cut a text into as few spans of at most ``room`` as its structure allows, in order and without gaps.

    size: cost of a piece of text in any unit (tokens). A piece without any white space is cut by force.
    """
    return _join(text, _pieces(text, Span(0, len(text)), size, room, level=0), size, room)


def _pieces(text: str, span: Span, size: Callable[[str], int], room: int, level: int) -> list[Span]:
    if size(text[span.start : span.end]) <= room:
        return [span]
    if level == len(_BREAKS):
        middle = (span.start + span.end) // 2
        halves = [Span(span.start, middle), Span(middle, span.end)] if middle > span.start else []
        return [part for half in halves for part in _pieces(text, half, size, room, level)] or [span]
    marks = [match.end() for match in _BREAKS[level].finditer(text, span.start, span.end)]
    edges = [span.start, *(mark for mark in marks if span.start < mark < span.end), span.end]
    parts = [Span(a, b) for a, b in pairwise(edges)]
    return [piece for part in parts for piece in _pieces(text, part, size, room, level + 1)]


def _join(text: str, pieces: list[Span], size: Callable[[str], int], room: int) -> list[Span]:
    joined: list[Span] = []
    used = 0
    for piece in pieces:
        cost = size(text[piece.start : piece.end])
        if joined and used + cost <= room:
            joined[-1] = Span(joined[-1].start, piece.end)
            used += cost
        else:
            joined.append(piece)
            used = cost
    return joined
