"""Ids nobody can guess, and the check that keeps them away from the file system until they look right."""

from __future__ import annotations

import re
import secrets
from typing import Literal

IdKind = Literal["res", "job", "msk"]

_RANDOM_BYTES = 16
_SHAPE = re.compile(r"(res|job|msk)_[0-9a-f]{32}")


def new_id(kind: IdKind) -> str:
    """``res_`` and 128 random bits in hexadecimal: safe in a URL, a file name and a shell."""
    return f"{kind}_{secrets.token_hex(_RANDOM_BYTES)}"


def is_id(kind: IdKind, text: str) -> bool:
    """True only for what ``new_id(kind)`` could have returned: no separator, dot or newline can hide in it."""
    match = _SHAPE.fullmatch(text)
    return match is not None and match[1] == kind


def shown(text: str) -> str:
    """An id as a caller gave it, quoted and cut short, for an error message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
