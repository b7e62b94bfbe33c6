"""Splitting labelled slides so that no patient is on two sides and every side has every class in proportion."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tissuetalk.models.errors import InvalidArgumentError

SHARES = (0.7, 0.1, 0.2)


@dataclass(frozen=True)
class Split:
    """Indices of slides."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def _by_class(labels: Sequence[int], groups: Sequence[str]) -> dict[int, list[list[int]]]:
    """Groups as lists of indices, under the class most of their slides have."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    classes: dict[int, list[list[int]]] = defaultdict(list)
    for group in sorted(members):
        held = [labels[index] for index in members[group]]
        classes[max(sorted(set(held)), key=held.count)].append(members[group])
    return classes


def _checked(labels: Sequence[int], groups: Sequence[str] | None, parts: int) -> dict[int, list[list[int]]]:
    if groups is not None and len(groups) != len(labels):
        raise InvalidArgumentError(
            f"{len(labels)} labels but {len(groups)} groups; give one group for every slide."
        )
    classes = _by_class(labels, groups or [str(index) for index in range(len(labels))])
    for label, held in sorted(classes.items()):
        if len(held) < parts:
            raise InvalidArgumentError(
                f"class {label} has {len(held)} patients; a split in {parts} needs at least {parts} of every class."
            )
    return classes


def stratified_split(
    labels: Sequence[int],
    groups: Sequence[str] | None = None,
    *,
    shares: tuple[float, float, float] = SHARES,
    seed: int = 0,
) -> Split:
    """7:1:2 within every class, whole patients at a time; no part of any class is empty.

    Raises InvalidArgumentError when a class has fewer than three patients.
    """
    sides: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label, held in sorted(_checked(labels, groups, 3).items()):
        order = list(held)
        random.Random(f"{seed}/{label}").shuffle(order)
        test = max(1, round(shares[2] * len(order)))
        validation = max(1, round(shares[1] * len(order)))
        train = max(1, len(order) - test - validation)
        cuts = (order[:train], order[train : len(order) - test], order[len(order) - test :])
        for side, part in zip(sides, cuts, strict=True):
            side.extend(index for members in part for index in members)
    return Split(*(tuple(sorted(side)) for side in sides))


def stratified_folds(
    labels: Sequence[int], groups: Sequence[str] | None = None, *, folds: int = 5, seed: int = 0
) -> list[tuple[int, ...]]:
    """Test indices of every fold: each slide once, whole patients at a time, classes in proportion."""
    parts: list[list[int]] = [[] for _ in range(folds)]
    for label, held in sorted(_checked(labels, groups, folds).items()):
        order = list(held)
        random.Random(f"{seed}/{label}").shuffle(order)
        for members in sorted(order, key=len, reverse=True):
            lightest = min(parts, key=lambda part: sum(labels[i] == label for i in part))
            lightest.extend(members)
    return [tuple(sorted(part)) for part in parts]
