"""Dice at the five levels of the label system (A21), beside what was published for the same names."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final, Literal

from tissuetalk.models.metrics.statistics import Interval, bootstrap
from tissuetalk.models.metrics.tables import csv_text, intervals_svg, table, with_limits

Level = Literal["source", "region", "structure", "object", "category"]
LEVELS: Final[tuple[Level, ...]] = ("source", "region", "structure", "object", "category")
PUBLISHED_METHODS: Final = ("pathsegmentor", "medsam_union_box", "biomedparse", "nnunet")
CONSEP: Final = "consep"


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


@dataclass(frozen=True)
class Member:
    """One source, region, structure, object type or category. published: Dice of other methods under that name."""

    level: Level
    name: str
    dice: Interval
    published: Mapping[str, float]


@lru_cache(maxsize=3)
def published(table: str) -> dict[str, dict[str, float]]:
    """Method to Dice, by name in lower case. table: ``by_source``, ``by_category`` or ``external_consep`` (arXiv 2506.20988)."""
    text = resources.files("tissuetalk.models.metrics").joinpath("published", f"{table}.csv")
    (_, *methods), *rows = csv.reader(text.read_text(encoding="utf-8").splitlines())
    return {name.lower(): dict(zip(methods, map(float, values), strict=True)) for name, *values in rows}


def members(rows: Sequence[Mapping[str, Any]]) -> list[Member]:
    """Every member of every level, from the rows of ``scores.csv`` that show their target.

    A row without a canonical label counts at its source only.
    """
    shown = [row for row in rows if row["dice"] is not None and row["target_present"]]
    samples = [Sample(row["source"], row["label"], float(row["dice"]), row["group"]) for row in shown]
    tables = {"source": "by_source", "category": "by_category"}
    # the published object figures of CoNSeP are of a model that never saw it
    if {sample.source.lower() for sample in samples} == {CONSEP}:
        tables["object"] = "external_consep"
    found = []
    for level in LEVELS:
        able = samples if level == "source" else [sample for sample in samples if sample.label]
        known = published(tables[level]) if level in tables else {}
        for name, dice in by_level(able, level).items():
            of_name = known.get(name.lower(), {}).items()
            figures = dict(pair for pair in of_name if pair[0] in PUBLISHED_METHODS)
            found.append(Member(level, name, dice, figures))
    return found


def levels_csv(found: Sequence[Member]) -> str:
    """The members as a table, published figures last."""
    columns = ["level", "name", "n", "dice", "low", "high", *PUBLISHED_METHODS]
    rows = [
        {"level": one.level, "name": one.name, "dice": one.dice.mean, **one.published}
        | {"n": one.dice.n, "low": one.dice.low, "high": one.dice.high}
        for one in found
    ]
    return csv_text(rows, columns)


def levels_markdown(found: Sequence[Member]) -> str:
    """One Markdown table per level."""
    parts = []
    for level in LEVELS:
        here = [one for one in found if one.level == level]
        methods = [method for method in PUBLISHED_METHODS if any(method in one.published for one in here)]
        lines = [
            [one.name, str(one.dice.n), with_limits(one.dice)]
            + [f"{one.published[method]:.3f}" if method in one.published else "" for method in methods]
            for one in here
        ]
        if lines:
            parts.append(table([level, "n", "dice", *(f"{name}, published" for name in methods)], lines))
    return "\n\n".join(parts)


def level_plots(found: Sequence[Member]) -> dict[str, str]:
    """One SVG per level that has at least two members, by file name."""
    drawn = {}
    for level in LEVELS:
        here = {one.name: one.dice for one in found if one.level == level}
        if len(here) > 1:
            drawn[f"dice-by-{level}.svg"] = intervals_svg(f"Dice by {level}", here)
    return drawn
