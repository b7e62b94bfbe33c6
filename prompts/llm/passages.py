"""Cutting a long text where a reader would: at headings, else paragraphs, lines, sentences, words."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tissuetalk.prompts.target import Span

if TYPE_CHECKING:
    from collections.abc import Iterator


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


_ENCODING = "cl100k_base"
_RANKS_URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
_OTHER_TOKENIZERS = 1.3
"""The served model has a tokenizer of its own. On 57 scanned reports SmolLM2's needs 0.98 to 1.26 times as many."""
_BYTES_PER_TOKEN = 2
"""The estimate without ranks. On the same reports a token of SmolLM2 has 2.1 bytes or more."""
_PIECE_CHARACTERS = 4000
"""Longest piece handed to the tokenizer, so that one endless word costs no more than others."""


@dataclass(frozen=True)
class TokenCounter:
    """Counts tokens, on the safe side. ``note`` says how, when it is only an estimate."""

    count: Callable[[str], int]
    note: str = ""


def _estimate(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def _rank_folders() -> list[Path]:
    """Where tiktoken's rank file may lie: the user's own cache, or inside an installed litellm (not imported)."""
    folders = [Path(value) for value in [os.environ.get("TIKTOKEN_CACHE_DIR")] if value]
    spec = importlib.util.find_spec("litellm")
    for package in (spec and spec.submodule_search_locations) or ():
        folders.append(Path(package) / "litellm_core_utils" / "tokenizers")
    return folders


@contextmanager
def _cache_folder(folder: Path) -> Iterator[None]:
    """Point tiktoken at a folder for the time of one call."""
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


@lru_cache(maxsize=1)
def token_counter() -> TokenCounter:
    """tiktoken with ranks that are on this machine, else one token per two bytes."""
    file_name = hashlib.sha1(_RANKS_URL.encode(), usedforsecurity=False).hexdigest()
    folder = next((folder for folder in _rank_folders() if (folder / file_name).is_file()), None)
    if folder is None or importlib.util.find_spec("tiktoken") is None:
        return TokenCounter(_estimate, "token budget estimated at two bytes a token (no tiktoken ranks here)")
    import tiktoken

    with _cache_folder(folder):
        encoding = tiktoken.get_encoding(_ENCODING)

    def count(text: str) -> int:
        pieces = (text[at : at + _PIECE_CHARACTERS] for at in range(0, len(text), _PIECE_CHARACTERS))
        exact = sum(len(encoding.encode(piece, disallowed_special=())) for piece in pieces)
        return int(exact * _OTHER_TOKENIZERS) + 1

    return TokenCounter(count)
