"""Hiding what looks like an identifier before a text leaves the process. A help, not an anonymiser."""

from __future__ import annotations

import re

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_FIELD = r"(?:name|patient|mrn|ssn|dob|born|accession|case|specimen|record|physician|surgeon|phone|tel|fax|address)"
_PATTERNS = (
    re.compile(r"\S{1,64}@\S{1,64}"),
    re.compile(
        r"\b(?i:dr|mr|mrs|ms|prof)\b\.? {1,2}((?:[A-Z]\. ){0,2}[A-Z][\w'-]{1,30}(?: [A-Z][\w'-]{1,30})?)"
    ),
    re.compile(
        rf"\b(?:{_FIELD} ?(?:no|number|id)?\.? ?[:#] ?)([^\s,;.]{{1,30}}(?: [^\s,;.]{{1,30}}){{0,2}})",
        re.IGNORECASE,
    ),
    re.compile(r"\b\d{1,4}[/.-]\d{1,2}[/.-]\d{2,4}\b"),
    re.compile(rf"\b(?:\d{{1,2}}\.? )?{_MONTH}\.? \d{{1,2}}(?:,? \d{{4}})?\b", re.IGNORECASE),
    re.compile(rf"\b{_MONTH},? \d{{4}}\b", re.IGNORECASE),
    re.compile(r"\b[A-Z]{0,3}\d{0,2}-?\d{5,}\b"),
)


def masked(text: str) -> str:
    """The text with dates, long numbers, addresses and names in labelled places as rows of x, at the same offsets."""
    for pattern in _PATTERNS:
        text = pattern.sub(_hidden, text)
    return text


def _hidden(match: re.Match[str]) -> str:
    """The match with its group, or else all of it, hidden."""
    which = 1 if match.re.groups else 0
    start, end = match.start(which) - match.start(), match.end(which) - match.start()
    said = match.group()
    return said[:start] + "".join(" " if mark.isspace() else "x" for mark in said[start:end]) + said[end:]
