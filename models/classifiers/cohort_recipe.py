"""A cohort of labelled slides as data: every key is checked, defaults are written here and nowhere else."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from tissuetalk.models.classifiers.blur import SIGMA_PX
from tissuetalk.models.classifiers.patches import LEAST_PATCHES, PATCH_PX, PATCH_UM, TCGA, TissueRules
from tissuetalk.models.errors import InvalidArgumentError

PRESETS = ("diagnosis", "diagnosis-objects")
"""The standard classifier, and the one that reads object by object."""
TISSUE_RULES = {"clam": TissueRules(), "tcga": TCGA}


@dataclass(frozen=True)
class CohortRecipe:
    """Everything that decides a training run of a slide classifier, except the machine."""

    name: str
    """Names the classifier."""
    images: Path
    """Folder of the slides; relative paths start at the recipe's own folder."""
    labels: Path
    """Table (CSV) with one row per slide."""
    classes: Mapping[str, tuple[str, ...]]
    """Class name to the values of the label column that mean it; rows with other values are left out."""
    image_column: str = "slide"
    """Path below ``images``, with or without the file's suffix."""
    label_column: str = "label"
    group_column: str = "patient"
    """Slides of one patient stay on one side of the split."""
    per_group: int = 0
    """At most so many slides of one patient, the first in the table; 0 takes all."""
    suffixes: tuple[str, ...] = (".svs",)
    """Tried where the table names a slide without one."""
    tissue: Literal["clam", "tcga"] = "clam"
    patch_um: float = PATCH_UM
    patch_px: int = PATCH_PX
    """Side of a patch where the scale is unknown."""
    mpp: float | None = None
    """µm per pixel of slides whose files do not say."""
    least_patches: int = LEAST_PATCHES
    """Slides with fewer are left out."""
    encoder: str | None = None
    """A ViT's folder or hub id; our own encoder when left out."""
    feature: Literal["tokens", "pooled"] = "pooled"
    folds: int = 0
    """0: one split in 7:1:2. Otherwise every slide is tested once in that many folds, and the classifier learns from all."""
    epochs: int = 100
    hidden: int = 256
    """Width of the attention."""
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    balanced: bool = True
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training is repeated with each; the first one's classifier is kept."""
    objects: tuple[str, ...] = ()
    """Segmented and blurred in validation and test slides, for object importance; canonical labels."""
    segmenter: str | None = None
    """Who segments them; the default model when left out."""
    sigma_px: float = SIGMA_PX
    draws: int = 1
    """Random-blur controls for every object and slide."""
    summary: str = ""
    training: str = ""
    licence: str = ""
    limits: str = ""
    preset: Literal["diagnosis", "diagnosis-objects"] = "diagnosis"
    """How ``tissuetalk train`` knows what to train."""


@dataclass(frozen=True)
class Slide:
    """One labelled slide. label: number of its class."""

    path: Path
    label: int
    group: str

    @property
    def name(self) -> str:
        return self.path.stem


def read_cohort_recipe(path: Path) -> CohortRecipe:
    """Read and check a recipe. Raises InvalidArgumentError naming the key that is wrong."""
    if not path.is_file():
        raise InvalidArgumentError(
            f"there is no recipe at {path}; shipped ones are in models/classifiers/recipes."
        )
    values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise InvalidArgumentError(f"{path.name} is not a list of keys and values.")
    known = {entry.name for entry in fields(CohortRecipe)}
    if unknown := set(values) - known:
        raise InvalidArgumentError(
            f"{path.name} has unknown keys {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}."
        )
    if missing := {"name", "images", "labels", "classes"} - set(values):
        raise InvalidArgumentError(f"{path.name} lacks {', '.join(sorted(missing))}.")
    if values.get("preset", "diagnosis") not in PRESETS:
        raise InvalidArgumentError(
            f"{path.name} has the preset {values['preset']!r}; a cohort's is one of: {', '.join(PRESETS)}."
        )
    for key in ("images", "labels"):
        values[key] = (path.parent / Path(str(values[key])).expanduser()).resolve()
    values["classes"] = _classes(values["classes"], path.name)
    for key in ("suffixes", "seeds", "objects"):
        if key in values:
            values[key] = tuple(values[key])
    if values.get("tissue", "clam") not in TISSUE_RULES:
        raise InvalidArgumentError(f"{path.name}: tissue is one of {', '.join(TISSUE_RULES)}.")
    if values.get("feature", "pooled") not in ("tokens", "pooled"):
        raise InvalidArgumentError(f"{path.name}: feature is tokens or pooled.")
    return CohortRecipe(**values)


def _classes(told: object, name: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(told, dict) or len(told) < 2:
        raise InvalidArgumentError(f"{name}: classes maps at least two class names to lists of label values.")
    classes = {
        str(key): tuple(str(value) for value in (values if isinstance(values, list) else [values]))
        for key, values in told.items()
    }
    every = [value for values in classes.values() for value in values]
    if len(set(every)) < len(every):
        raise InvalidArgumentError(f"{name}: a label value belongs to two classes; give each to one.")
    return classes


def read_slides(recipe: CohortRecipe) -> list[Slide]:
    """The labelled slides of a recipe, in the order of its table.

    Raises InvalidArgumentError for a missing table, column or slide, and for a class without any slide.
    """
    if not recipe.labels.is_file():
        raise InvalidArgumentError(
            f"there is no table of labels at {recipe.labels}; set `labels` in the recipe."
        )
    number = {value: i for i, values in enumerate(recipe.classes.values()) for value in values}
    with recipe.labels.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        wanted = {recipe.image_column, recipe.label_column, recipe.group_column}
        if missing := wanted - set(rows.fieldnames or ()):
            raise InvalidArgumentError(
                f"{recipe.labels.name} has no column {', '.join(sorted(missing))}; its columns are "
                f"{', '.join(rows.fieldnames or ())}. Name them in the recipe (image_column, label_column, group_column)."
            )
        slides = [
            Slide(
                _find(recipe, row[recipe.image_column]),
                number[row[recipe.label_column]],
                row[recipe.group_column],
            )
            for row in rows
            if row[recipe.label_column] in number
        ]
    if recipe.per_group:
        slides = _first_of_each(slides, recipe.per_group)
    for i, name in enumerate(recipe.classes):
        if not any(slide.label == i for slide in slides):
            raise InvalidArgumentError(
                f"no row of {recipe.labels.name} has the class {name!r} ({', '.join(recipe.classes[name])}); "
                "check `classes` in the recipe."
            )
    return slides


def _first_of_each(slides: list[Slide], most: int) -> list[Slide]:
    seen: Counter[str] = Counter()
    kept = []
    for slide in slides:
        seen[slide.group] += 1
        if seen[slide.group] <= most:
            kept.append(slide)
    return kept


def _find(recipe: CohortRecipe, name: str) -> Path:
    for path in (recipe.images / name, *(recipe.images / f"{name}{suffix}" for suffix in recipe.suffixes)):
        if path.is_file():
            return path
    raise InvalidArgumentError(f"the slide {name!r} of {recipe.labels.name} is not in {recipe.images}.")
