"""Which objects are segmented well enough to explain a diagnosis with: a Dice rule over published scores.

`object_dice.csv` holds, for every label that was scored, PathSegmentor's Dice on its internal test (arXiv 2506.20988,
Supplementary Table 15) and how many masks were published for it. Spec explain.md, section 8.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import yaml

from tissuetalk.models.errors import InvalidArgumentError

MINIMUM_DICE: Final = 0.4
FEW_MASKS: Final = 10
"""Below this many published masks a Dice says little."""
OTHER: Final = "other"
"""All tissue that no listed object covers."""


@dataclass(frozen=True)
class SegmentedObject:
    """A label with how well it is segmented (Dice, 0..1) and on how many published masks that rests."""

    label: str
    dice: float
    published_masks: int

    @property
    def organ(self) -> str:
        return self.label.split("-", 1)[0]

    @property
    def rests_on_few(self) -> bool:
        return self.published_masks < FEW_MASKS

    def __str__(self) -> str:
        caution = ", very few" if self.rests_on_few else ""
        return f"{self.label} (Dice {self.dice:.3f}, {self.published_masks} masks{caution})"


@lru_cache(maxsize=1)
def scored_objects() -> tuple[SegmentedObject, ...]:
    """Every label with a published Dice, best first."""
    text = resources.files("tissuetalk.models.classifiers").joinpath("object_dice.csv").read_text("utf-8")
    rows = [
        SegmentedObject(row["label"], float(row["dice"]), int(row["published_masks"]))
        for row in csv.DictReader(text.splitlines())
    ]
    return tuple(sorted(rows, key=lambda row: -row.dice))


def data_objects(organ: str, *, minimum_dice: float = MINIMUM_DICE) -> tuple[SegmentedObject, ...]:
    """The organ's objects with a Dice of at least ``minimum_dice``, best first (breast: 21).

    Raises InvalidArgumentError when the organ has none; the message names those that have.
    """
    kept = tuple(row for row in scored_objects() if row.organ == organ and row.dice >= minimum_dice)
    if not kept:
        known = sorted({row.organ for row in scored_objects() if row.dice >= minimum_dice})
        raise InvalidArgumentError(
            f"no object of {organ!r} is segmented with a Dice of {minimum_dice:g} or more; "
            f"name the objects yourself, or use one of: {', '.join(known)}"
        )
    return kept


def map_objects(organ: str, *, minimum_dice: float = MINIMUM_DICE) -> tuple[str, ...]:
    """The labels of the object activation map: those of ``data_objects``, and ``other`` last (breast: 22)."""
    return with_other(row.label for row in data_objects(organ, minimum_dice=minimum_dice))


def with_other(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels once each, in their order, and ``other`` last."""
    return (*dict.fromkeys(label for label in labels if label != OTHER), OTHER)


def questions() -> tuple[str, ...]:
    """The diagnostic questions whose relevant objects are known."""
    return tuple(_questions())


def importance_objects(question: str = "breast-idc-ilc") -> tuple[SegmentedObject, ...]:
    """The objects relevant for a question among those the Dice rule keeps, best segmented first (IDC or ILC: 12).

    Raises InvalidArgumentError for a question nobody has written a list for.
    """
    if question not in _questions():
        raise InvalidArgumentError(
            f"no list of relevant objects for {question!r}; known: {', '.join(questions())}. "
            "Name the objects yourself for another question."
        )
    chosen = _questions()[question]
    return tuple(row for row in data_objects(str(chosen["organ"])) if row.label in chosen["relevant"])


@lru_cache(maxsize=1)
def _questions() -> dict[str, dict[str, Any]]:
    text = resources.files("tissuetalk.models.classifiers").joinpath("object_lists.yaml").read_text("utf-8")
    lists: dict[str, dict[str, Any]] = yaml.safe_load(text)["questions"]
    return lists
