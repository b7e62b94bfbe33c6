"""What an object is, in plain words.

One card per object type of the taxonomy (`terms/glossary.yaml`) and one per object that is only asked for in words
(`terms/glossary_words.yaml`, by the id of its concept). Each names where a reviewer can check it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tissuetalk.models.errors import UnknownLabelError
from tissuetalk.prompts.lexicon import lexicon
from tissuetalk.prompts.taxonomy import Label, nearest_labels
from tissuetalk.prompts.words import load_terms, phrase


@dataclass(frozen=True)
class GlossaryCard:
    """Five short answers for a lay reader. All fields are whole sentences except `name` and `confused_with`."""

    name: str
    what_it_is: str
    what_it_looks_like: str
    why_it_matters: str
    confused_with: str
    reference: str

    def __str__(self) -> str:
        return (
            f"{self.name[0].upper()}{self.name[1:]}. {self.what_it_is} In H&E: {self.what_it_looks_like} "
            f"Why it matters: {self.why_it_matters} Easily confused with {self.confused_with}."
        )


def _read(name: str) -> dict[str, GlossaryCard]:
    works = load_terms("references.yaml")
    return {
        str(kind): GlossaryCard(
            row["name"],
            row["what"],
            row["look"],
            row["why"],
            row["confused"],
            "; ".join(works[code] for code in row["ref"].split()),
        )
        for kind, row in load_terms(name).items()
    }


@lru_cache(maxsize=1)
def _cards() -> dict[str, GlossaryCard]:
    return _read("glossary.yaml")


@lru_cache(maxsize=1)
def _word_cards() -> dict[str, GlossaryCard]:
    return _read("glossary_words.yaml")


def card_for(label: Label | str) -> GlossaryCard:
    """The card of a label. Raises UnknownLabelError for a text that is none of the 160 labels."""
    parsed = Label.parse(label) if isinstance(label, str) else label
    return _cards()[parsed.object_type]


def cards() -> dict[str, GlossaryCard]:
    """All cards by object type."""
    return dict(_cards())


def card_for_concept(concept_id: str) -> GlossaryCard | None:
    """The card of a concept of the lexicon: its own, or that of a label it can be placed at, of its name if there is one."""
    if (own := _word_cards().get(concept_id)) is not None:
        return own
    concept = lexicon().concepts[concept_id]
    regions = ("breast", "colon", "lung", *(name for name in concept.labels if name not in "*?"), None)
    labels = [label for region in regions if (label := lexicon().place(concept, region).label) is not None]
    of_that_name = [label for label in labels if Label.parse(label).object_type == concept.name]
    return card_for((of_that_name or labels)[0]) if labels else None


def card_for_words(words: str) -> GlossaryCard:
    """The card for an object as somebody names it ("TILs", "fat"), through the lexicon.

    Raises:
        UnknownLabelError: nothing in the words is known; the message names the nearest labels.
    """
    node = lexicon().tree
    for word in phrase(words):
        node = node.get(word, {})
    concept = node.get("")
    card = None if concept is None else card_for_concept(concept.id)
    if card is not None:
        return card
    near = ", ".join(str(label) for label in nearest_labels(words, 3))
    raise UnknownLabelError(f"no glossary card for {words[:60]!r}; nearest labels: {near}.")


def plain_line(label: str) -> str:
    """One line for a lay reader: what it is and how to spot it."""
    card = card_for(label)
    return f"{card.name[0].upper()}{card.name[1:]}: {card.what_it_is} {card.what_it_looks_like}"
