"""Means of per-sample scores at every level of the label system, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from tissuetalk.models.metrics.bootstrap import Interval, bootstrap

Level = Literal["source", "region", "structure", "object", "category"]
LEVELS: Final[tuple[Level, ...]] = ("source", "region", "structure", "object", "category")


@dataclass(frozen=True)
class Sample:
    """One score of one image and label. ``label`` is canonical: region-structure-object; ``group`` patient or slide."""

    source: str
    label: str
    score: float
    group: str = ""

    def key(self, level: Level) -> str:
        if level == "source":
            return self.source
        if level == "category":
            return self.label
        region, structure, obj = self.label.split("-", 2)
        return {"region": region, "structure": structure, "object": obj}[level]


def by_level(samples: Sequence[Sample], level: Level) -> dict[str, Interval]:
    """Mean and bootstrap interval of every member of a level, sorted by name."""
    members: dict[str, list[float]] = {}
    for sample in samples:
        members.setdefault(sample.key(level), []).append(sample.score)
    return {name: bootstrap(scores) for name, scores in sorted(members.items())}


def overall(samples: Sequence[Sample]) -> Interval:
    """Mean over samples, so that a source weighs as much as it has masks."""
    return bootstrap([sample.score for sample in samples])


def weighted_overall(means: Mapping[str, float], n_samples: Mapping[str, int]) -> float:
    """The overall mean when only the mean and size of each source are known."""
    names = list(means)
    return float(np.average([means[name] for name in names], weights=[n_samples[name] for name in names]))


CONSEP_STAND_INS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "malignant epithelial": (("WSSS4LUAD", "tumor epithelial tissue"),),
    "healthy epithelial": tuple(
        (source, "epithelial") for source in ("MoNuSAC", "PanNuke", "SegPath", "TNBC")
    ),
    "endothelial": (("SegPath", "endothelial"), ("TNBC", "endothelial")),
    "fibroblast": (("NuCLS", "fibroblast"), ("TNBC", "fibroblast")),
    "inflammatory": (("PanNuke", "inflammatory"),),
    "muscle": (("SegPath", "smooth muscle cells"),),
}
"""Which specialised model (source, its class) may answer for each CoNSeP type; of several the best counts."""


def valid_external_types(external: Iterable[str], trained_labels: Iterable[str]) -> list[str]:
    """Object types of an external set that were trained under any region."""
    trained = {label.split("-", 2)[2] for label in trained_labels}
    return [name for name in external if name in trained]


def best_stand_in(
    object_type: str, scores: Mapping[tuple[str, str], float]
) -> tuple[tuple[str, str], float] | None:
    """The specialised model that does best for a CoNSeP type, with its score; None when none was run."""
    able = [(pair, scores[pair]) for pair in CONSEP_STAND_INS.get(object_type, ()) if pair in scores]
    return max(able, key=lambda item: item[1]) if able else None
