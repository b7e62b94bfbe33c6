"""Who is tested on, and how well: splits of labelled slides, and scores with their spread (explain.md, section 7).

No patient is on two sides and every side has every class in proportion. Scores are averaged over classes without weighting.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.metrics.statistics import RESAMPLES, SEED

Floats = NDArray[np.float64]
SHARES = (0.7, 0.1, 0.2)
"""Of training, validation and test slides."""


@dataclass(frozen=True)
class Spread:
    """A score and how it varies over bootstrap draws of the test slides: standard deviation and 95 % interval."""

    value: float
    std: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Scores:
    """units: how many patients (or slides, without groups) were drawn from."""

    macro_auc: Spread
    macro_accuracy: Spread
    macro_f1: Spread
    units: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def macro_auc(probabilities: ArrayLike, truth: ArrayLike) -> float:
    """One class against the rest, averaged over the classes that are there; nan where the truth has a single class."""
    scores, labels = np.asarray(probabilities, np.float64), np.asarray(truth)
    areas = []
    for column in range(scores.shape[1]):
        positive = labels == column
        count = int(positive.sum())
        if 0 < count < len(labels):
            # the area under the curve from ranks (Mann-Whitney U); ties count half
            ranks = rankdata(scores[:, column])[positive].sum()
            areas.append((ranks - count * (count + 1) / 2) / (count * (len(labels) - count)))
    return float(np.mean(areas)) if areas else float("nan")


def macro_accuracy(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Mean recall of the classes that are there."""
    guesses, labels = np.asarray(predicted), np.asarray(truth)
    return float(np.mean([np.mean(guesses[labels == label] == label) for label in np.unique(labels)]))


def macro_f1(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Mean F1 of the classes that are there."""
    guesses, labels = np.asarray(predicted), np.asarray(truth)
    scores = []
    for label in np.unique(labels):
        hits = float(np.sum((guesses == label) & (labels == label)))
        scores.append(2 * hits / float(np.sum(guesses == label) + np.sum(labels == label)))
    return float(np.mean(scores))


def classification_scores(
    probabilities: ArrayLike,
    truth: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Scores:
    """Scores of [N, C] probabilities against [N] class numbers.

    groups: patient of every slide; whole patients are drawn, because their slides are not independent.
    """
    scores, labels = np.asarray(probabilities, np.float64), np.asarray(truth)
    drawn_by = np.arange(len(labels)) if groups is None else np.asarray(groups)
    _, units = np.unique(drawn_by, return_inverse=True)
    members = [np.nonzero(units == unit)[0] for unit in range(int(units.max()) + 1)]
    draws = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([members[i] for i in draws.integers(len(members), size=len(members))])
        # a draw that lacks a class has no macro score
        if len(np.unique(labels[rows])) == len(np.unique(labels)):
            drawn.append(_three(scores[rows], labels[rows]))
    table = np.asarray(drawn or [_three(scores, labels)])
    low, high = np.percentile(table, [2.5, 97.5], axis=0)
    spreads = [
        Spread(value, float(table[:, i].std()), float(low[i]), float(high[i]))
        for i, value in enumerate(_three(scores, labels))
    ]
    return Scores(spreads[0], spreads[1], spreads[2], len(members))


def _three(scores: Floats, labels: NDArray[np.generic]) -> tuple[float, float, float]:
    guesses = scores.argmax(1)
    return macro_auc(scores, labels), macro_accuracy(guesses, labels), macro_f1(guesses, labels)


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """(mean, standard deviation) of one score over training seeds; kept apart from the spread over slides."""
    return float(np.mean(values)), float(np.std(values))


@dataclass(frozen=True)
class Split:
    """Indices of slides."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def _by_class(
    labels: Sequence[int], groups: Sequence[str] | None, parts: int
) -> list[tuple[int, list[list[int]]]]:
    """Every class with its groups as lists of indices; a group is of the class most of its slides have."""
    if groups is not None and len(groups) != len(labels):
        raise InvalidArgumentError(
            f"{len(labels)} labels but {len(groups)} groups; give one group for every slide."
        )
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups or map(str, range(len(labels)))):
        members[group].append(index)
    classes: dict[int, list[list[int]]] = defaultdict(list)
    for group in sorted(members):
        own = [labels[index] for index in members[group]]
        # sorted, so that a tie goes to the same class whatever order the table has
        classes[max(sorted(set(own)), key=own.count)].append(members[group])
    for label, held in sorted(classes.items()):
        if len(held) < parts:
            raise InvalidArgumentError(
                f"class {label} has {len(held)} patients; a split in {parts} needs at least {parts} of every class."
            )
    return sorted(classes.items())


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
    for label, held in _by_class(labels, groups, 3):
        order = list(held)
        # a generator for every class: slides added to one class leave the others' split as it is
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
    for label, held in _by_class(labels, groups, folds):
        order = list(held)
        random.Random(f"{seed}/{label}").shuffle(order)
        # patients with many slides first, each to the part that has least of the class
        for members in sorted(order, key=len, reverse=True):
            lightest = min(parts, key=lambda part: sum(labels[i] == label for i in part))
            lightest.extend(members)
    return [tuple(sorted(part)) for part in parts]
