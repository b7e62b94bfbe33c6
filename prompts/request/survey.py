"""Open questions: from an organ to everything worth showing in it, most useful first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

from tissuetalk.prompts.glossary import card_for, plain_line
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.request.roles import find_terms
from tissuetalk.prompts.target import Target
from tissuetalk.prompts.taxonomy import Label, is_label
from tissuetalk.prompts.words import Words, load_terms, word_set

NO_JUDGEMENT = (
    "what is shown are structures that can be looked for; nothing here says whether something is benign, malignant or "
    "dangerous: a pathologist has to judge that"
)
Scope = Literal["", "everything", "cells"]


@lru_cache(maxsize=1)
def _terms() -> dict[str, Any]:
    found: dict[str, Any] = load_terms("survey.yaml")
    return found


def open_question(words: Words, wanted: Sequence[Mention]) -> Scope:
    """Whether a text asks for everything there is, or every kind of cell; "" when it asks for particular things."""
    wanted = [mention for mention in wanted if mention.concept.id != "cell"]
    cells = _phrases(words, wanted, "only_cells")
    if cells:
        return "cells"
    strong, weak = _phrases(words, wanted, "strong"), _phrases(words, wanted, "everything")
    if strong and not wanted:
        return "everything"
    if strong and _limited(words, strong[0][1]):
        return ""
    if strong and not any(
        mention.first > strong[0][1] and _near(words, strong[0][1], mention) for mention in wanted
    ):
        return "everything"
    return "everything" if weak and not wanted else ""


def _limited(words: Words, last: int) -> bool:
    """ "everything that is ...", "everything else", "everything apart from": not the whole organ."""
    after = words.norms(last + 1, last + 3)
    return bool(after) and after[0] in word_set("else of that which but except apart other excluding outside")


def _phrases(words: Words, wanted: Sequence[Mention], name: str) -> list[tuple[int, int, str]]:
    """Phrases of a list that are not part of a named object ("everything nuclear")."""
    taken = {index for mention in wanted for index in range(mention.first, mention.last + 1)}
    return [found for found in find_terms(words, name) if found[0] not in taken and found[1] not in taken]


def _near(words: Words, last: int, mention: Mention) -> bool:
    """The object follows in the same sentence, so the question is about it."""
    gap = words.gap(last, mention.first)
    return not any(mark in gap for mark in ".?!")


def survey(words: Words, organ: str | None, scope: Scope) -> list[Target]:
    """One target per kind of object of the organ, near-duplicates as alternatives, each with a plain line."""
    found = find_terms(words, "only_cells") or find_terms(words, "strong", "everything")
    first, last, _ = found[0]
    return survey_of(organ, scope, words.quote(first, last), words[first].start)


def survey_of(organ: str | None, scope: Scope, evidence: str, start: int) -> list[Target]:
    """The same for an open question whose words are known."""
    reason = "an open question is answered with every kind of object of the organ, most useful first"
    targets = [
        Target(
            label,
            card_for(Label.parse(label)).name,
            evidence=evidence,
            start=start,
            organ=organ,
            alternatives=others,
            reason=reason,
            plain=plain_line(label),
            surveyed=True,
        )
        for label, others in _kinds(organ, scope)
    ]
    for name in _terms()["unknown"]["words"] if organ is None else ():
        line = "The dark round dots: every cell has one nucleus, which holds its genes."
        nuclei = Target(None, name, evidence=evidence, start=start, reason=reason, plain=line, surveyed=True)
        targets.insert(0, nuclei)
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
