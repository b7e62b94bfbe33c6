"""Scores of a slide classifier, each averaged over classes without weighting, with their spread (explain.md, section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from tissuetalk.models.metrics.statistics import RESAMPLES, SEED

Floats = NDArray[np.float64]


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
    units = (
        np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    )
    members = [np.nonzero(units == unit)[0] for unit in range(int(units.max()) + 1)]
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([members[i] for i in random.integers(len(members), size=len(members))])
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
