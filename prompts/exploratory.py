"""Open questions: from an organ to everything worth showing in it, most useful first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

from tissuetalk.prompts.glossary import card_for, plain_line
from tissuetalk.prompts.lexicon import load_terms
from tissuetalk.prompts.request.roles import find_terms
from tissuetalk.prompts.target import Target
from tissuetalk.prompts.taxonomy import Label, is_label
from tissuetalk.prompts.words import Token

Scope = Literal["", "everything", "cells"]
LIST_WORDS = frozenset({"everything", "all", "every", "each", "different", "overview", "list", "kind", "type", "whole"})


@lru_cache(maxsize=1)
def _terms() -> dict[str, Any]:
    found: dict[str, Any] = load_terms("survey.yaml")
    return found


def open_question(words: Sequence[Token], text: str, organ: str | None, names_something: bool) -> Scope:
    """Whether a text asks for everything there is, or every kind of cell; "" when it asks for particular things."""
    cells = find_terms(words, text, "only_cells")
    found = cells or find_terms(words, text, "everything")
    if not found:
        return ""
    asked = {word.norm for word in words} & LIST_WORDS
    if names_something and not (asked and found):
        return ""
    return "cells" if cells else "everything"


def survey(words: Sequence[Token], text: str, organ: str | None, scope: Scope) -> list[Target]:
    """One target per kind of object of the organ, near-duplicates as alternatives, each with a plain line."""
    found = find_terms(words, text, "only_cells") or find_terms(words, text, "everything")
    first, last, _ = found[0]
    evidence, start = text[words[first].start : words[last].end], words[first].start
    reason = "an open question is answered with every kind of object of the organ, most useful first"
    targets = []
    for label, others in _kinds(organ, scope):
        card = card_for(Label.parse(label))
        targets.append(Target(label, card.name, "present", evidence, start, organ, None, others, reason, plain_line(label)))
    if organ is None:
        for name in _terms()["unknown"]["words"]:
            line = "The dark round dots: every cell has one nucleus, which holds its genes."
            targets.insert(0, Target(None, name, "present", evidence, start, None, None, (), reason, line))
    return targets


def _kinds(organ: str | None, scope: Scope) -> Iterable[tuple[str, tuple[str, ...]]]:
    if organ is None:
        for label in _terms()["unknown"]["labels"]:
            yield label, ()
        return
    groups = _terms()["cell_kinds" if scope == "cells" else "kinds"]
    shown: set[str] = set()
    for group in groups:
        names = tuple(f"{organ}-{name}" for name in group if is_label(f"{organ}-{name}"))
        if names:
            shown.add(names[0])
            yield names[0], names[1:]
    for name in _terms()["extra"].get(organ, ()):
        if scope == "everything" and f"{organ}-{name}" not in shown:
            yield f"{organ}-{name}", ()
