"""Scores of a vision-language run: Dice per set, beside how much of it was seen in training, and of wrong attributes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import open_image
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.tables import csv_text
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.models.writing import write_whole
from tissuetalk.prompts.attributes import (
    ATTRIBUTES,
    Attributes,
    Swap,
    relative_change,
    wrong,
)
from tissuetalk.prompts.names import prompt_of
from tissuetalk.prompts.studies import RICHEST_OF
from tissuetalk.tools.segment.engine import find_masks
from tissuetalk.tools.segment.field import FieldOfView, scale_of
from tissuetalk.tools.train.vlsm_data import DataSet, Item, asked_with, items_of, prompt_text

if TYPE_CHECKING:
    from tissuetalk.tools.train.vlsm import VlsmRecipe

Ask = Callable[[Item, str], Mask]
"""The mask of an item's image for a text."""


def through_registry(model: Segmenter) -> Ask:
    """Any text-prompted model of the server, asked with exactly the words of the prompt."""

    def ask(item: Item, text: str) -> Mask:
        name = item.found.object_type
        capability = model.capability(prompt_of(str(item.label), name, name))
        prompt = prompt_of(str(item.label), name, text, verbatim=True)
        if capability is None:
            raise InvalidArgumentError(
                f"{model.card.name} does not know {item.label}; test it on another set."
            )
        with open_image(item.file, name=item.file.name) as source:
            field = FieldOfView(source, model, source.box, scale_of(source, item.mpp, model))
            (found,) = find_masks(field, [(prompt, capability)])
        return found.mask

    return ask


def score(
    recipe: VlsmRecipe, ask: Ask, out: Path, learned: Sequence[Item] = (), checked: Sequence[Item] = ()
) -> None:
    """Mean Dice at the size of the masks, per test set; and per wrong attribute with its change in per cent.

    learned, checked: what the network was trained and validated on. How many of a set's images are among them stands
    beside its score, and a score of seen images is warned of.
    """
    rows: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    trained, validated = ({item.file.resolve() for item in some} for some in (learned, checked))
    for source in recipe.test:
        items = items_of(source, "test")
        values = [dice(ask(item, prompt_text(item, recipe.prompt)), item.mask) for item in items]
        mean = float(np.mean(values)) if values else None
        seen = {
            "trained_on": sum(item.file.resolve() in trained for item in items),
            "validated_on": sum(item.file.resolve() in validated for item in items),
        }
        rows.append({"set": source.name, "prompt": recipe.prompt, "dice": mean, "n": len(values)} | seen)
        if any(seen.values()):
            print(
                f"{source.name}: {seen['trained_on']} of the {len(items)} scored images were trained on and "
                f"{seen['validated_on']} validated on; its score is no test. Mark rows of it test.",
                file=sys.stderr,
            )
        if recipe.wrong_attributes:
            changed += _wrong_rows(source, items, ask, recipe.seed)
    write_whole(out / "scores.csv", csv_text(rows))
    if recipe.wrong_attributes:
        write_whole(out / "wrong_attributes.csv", csv_text(changed))


def _wrong_rows(source: DataSet, items: Sequence[Item], ask: Ask, seed: int) -> list[dict[str, Any]]:
    """One row per attribute and kind of swap, over the items that have the attribute."""
    rows = []
    swaps: tuple[Swap, ...] = ("random word", "other value")

    def reached(item: Item, found: Attributes) -> float:
        text = asked_with(item, found, RICHEST_OF[source.kind])
        return dice(ask(item, text), item.mask)

    right = [reached(item, item.found) for item in items]
    for attribute, swap in product(ATTRIBUTES, swaps):
        swapped = [wrong(item.found, attribute, swap, seed + number) for number, item in enumerate(items)]
        pairs = [
            (good, reached(item, found))
            for item, good, found in zip(items, right, swapped, strict=True)
            if found is not None
        ]
        if pairs:
            before, after = np.mean(pairs, axis=0).tolist()
            row = {"set": source.name, "attribute": attribute, "swap": swap, "dice": before}
            row |= {"dice_wrong": after, "change_percent": relative_change(before, after), "n": len(pairs)}
            rows.append(row)
    return rows
