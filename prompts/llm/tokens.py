"""How many tokens a text costs, without ever asking the network."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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
