"""Slides drawn from real labelled tissue with evidence planted in them, so that the right explanation is known.

A bag mixes patches of several tissues. Each tissue comes as a pair from the same images: patches with its object, whose mask is
known, and patches without. Which tissues a bag shows has nothing to do with its label; only the planted object decides it:
every bag of class 1 has patches with that object, no bag of class 0 has one. Objects that are not planted come and go at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tissuetalk.models.classifiers.patch_bag import DrawnBag, Patch
from tissuetalk.models.errors import InvalidArgumentError


@dataclass(frozen=True)
class TissuePair:
    """Patches of one tissue. with_object: the object covers part of each; without: the object is in none of them."""

    object: str
    with_object: tuple[Patch, ...]
    without: tuple[Patch, ...]


def planted_bags(
    pairs: Sequence[TissuePair],
    planted: str,
    *,
    count: int,
    patches_per_tissue: int = 4,
    evidence: tuple[int, int] = (1, 3),
    seed: int = 0,
    name: str = "bag",
) -> list[DrawnBag]:
    """``count`` bags, half of either class.

    evidence: least and most patches with the planted object in a bag of class 1; other objects have none to as many, by chance.
    Raises InvalidArgumentError when no tissue carries the planted object, or one lacks patches of a kind.
    """
    objects = tuple(pair.object for pair in pairs)
    if planted not in objects:
        raise InvalidArgumentError(f"no tissue carries {planted!r}; choose from: {', '.join(objects)}.")
    for pair in pairs:
        if not pair.with_object or not pair.without:
            raise InvalidArgumentError(
                f"there are no patches with, or none without, {pair.object}; take more images."
            )
    random = np.random.default_rng([seed, objects.index(planted)])
    return [
        _bag(pairs, planted, number % 2, patches_per_tissue, evidence, random, f"{name}-{planted}-{number}")
        for number in range(count)
    ]


def _bag(
    pairs: Sequence[TissuePair],
    planted: str,
    label: int,
    size: int,
    evidence: tuple[int, int],
    random: np.random.Generator,
    name: str,
) -> DrawnBag:
    chosen: list[tuple[Patch, bool]] = []
    for pair in pairs:
        some = int(random.integers(evidence[0], evidence[1] + 1))
        shown = some if (label if pair.object == planted else random.integers(2)) else 0
        chosen += [(patch, pair.object == planted) for patch in _draw(pair.with_object, shown, random)]
        chosen += [(patch, False) for patch in _draw(pair.without, size - shown, random)]
    order = [chosen[i] for i in random.permutation(len(chosen))]
    return DrawnBag(
        name=name,
        patches=tuple(patch for patch, _ in order),
        objects=tuple(pair.object for pair in pairs),
        label=label,
        planted=planted if label else None,
        evidence=tuple(i for i, (_, is_evidence) in enumerate(order) if is_evidence),
    )


def _draw(patches: Sequence[Patch], count: int, random: np.random.Generator) -> list[Patch]:
    """Without repeats while there are enough."""
    picked = random.choice(len(patches), size=count, replace=count > len(patches))
    return [patches[int(i)] for i in picked]


def without_evidence(bag: DrawnBag, pairs: Sequence[TissuePair], *, seed: int = 0) -> DrawnBag:
    """The same bag with each evidence patch replaced by one of the same tissue without the object."""
    replacement: Mapping[str, TissuePair] = {pair.object: pair for pair in pairs}
    random = np.random.default_rng(seed)
    patches = list(bag.patches)
    for index in bag.evidence:
        patches[index] = _draw(replacement[bag.planted or ""].without, 1, random)[0]
    return DrawnBag(f"{bag.name}-without", tuple(patches), bag.objects, bag.label)
