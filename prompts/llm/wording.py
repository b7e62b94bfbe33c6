"""What the language model is told: the templates, filled in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from itertools import groupby
from string import Template

from tissuetalk.prompts.lexicon import is_english
from tissuetalk.prompts.llm.seam import MAX_TARGETS, Turn
from tissuetalk.prompts.taxonomy import LABELS, labels_of

_ANSWER_CHARACTERS = 1200
"""Of an unusable answer that is shown again: enough to mend it, not enough to fill the context."""


@lru_cache(maxsize=8)
def template(name: str) -> Template:
    """One of ``prompts/templates/llm_*.txt``."""
    file = resources.files("tissuetalk.prompts").joinpath("templates", f"llm_{name}.txt")
    return Template(file.read_text(encoding="utf-8").rstrip("\n"))


def compact_taxonomy(organ: str | None) -> str:
    """One line per region and structure; the organ's and the unspecified labels only, when the organ is known."""
    labels = (*labels_of(organ), *labels_of("unspecified")) if organ else LABELS
    groups = groupby(labels, key=lambda label: f"{label.region}-{label.structure}")
    return "\n".join(
        f"{group}: {', '.join(label.object_type for label in members)}" for group, members in groups
    )


def _fence(text: str) -> str:
    """A mark that the text cannot contain by intention: it depends on the whole text."""
    return f"==={hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}==="


def ask_for(
    text: str, organ: str | None, mentions: Sequence[str] = (), max_targets: int = MAX_TARGETS
) -> tuple[Turn, ...]:
    """The conversation that asks for the targets of one passage.

    mentions: verbatim words of the text that deserve special attention.
    """
    fence = _fence(text)
    system = template("system").substitute(
        fence=fence,
        max_targets=max_targets,
        taxonomy=compact_taxonomy(organ),
        organ_line=f" It is known: {organ}." if organ else "",
    )
    focus = (
        template("focus").substitute(mentions="; ".join(f'"{words}"' for words in mentions))
        if mentions
        else ""
    )
    user = template("text").substitute(fence=fence, text=text, focus=focus)
    return Turn("system", system), Turn("user", user)


def ask_again(turns: Sequence[Turn], answer: str, problem: str) -> tuple[Turn, ...]:
    """The conversation continued once, with what was wrong."""
    repair = template("repair").substitute(problem=problem)
    return (*turns, Turn("assistant", answer[:_ANSWER_CHARACTERS] or "{}"), Turn("user", repair))


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


_PERSON = re.compile(r"dr|mrs?|ms|prof|name|patient|physician|surgeon", re.IGNORECASE)
_NAME = re.compile(r"[^\W\d_a-z][^\W\d_]{2,40}")


def masked(text: str) -> str:
    """The text with dates, long numbers, addresses and names as rows of x, at the same offsets.

    A name is known by a labelled place, and then hidden wherever it stands.
    """
    names: set[str] = set()
    for pattern in _PATTERNS:
        if pattern.groups:
            people = (match for match in pattern.finditer(text) if _PERSON.match(match.group()))
            names.update(word for match in people for word in _NAME.findall(match.group(1)))
        text = pattern.sub(_hidden, text)
    # "Patient: Jane Roe" tells that the Roe of "Roe's carcinoma" is one, too
    names = {name for name in names if not is_english(name.lower())}
    return _NAME.sub(
        lambda match: "x" * len(match.group()) if match.group() in names else match.group(), text
    )


def _hidden(match: re.Match[str]) -> str:
    """The match with its group, or else all of it, hidden."""
    which = 1 if match.re.groups else 0
    start, end = match.start(which) - match.start(), match.end(which) - match.start()
    said = match.group()
    return said[:start] + "".join(" " if mark.isspace() else "x" for mark in said[start:end]) + said[end:]
