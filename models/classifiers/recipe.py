"""A cohort of labelled slides as data: what a training run of a slide classifier reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tissuetalk.models.classifiers.importance import SIGMA_PX
from tissuetalk.models.classifiers.objects import listed_objects
from tissuetalk.models.classifiers.occlusion import Occlusion
from tissuetalk.models.classifiers.patches import LEAST_PATCHES, PATCH_PX, PATCH_UM, PatchPx, PatchUm
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images.files import PLAUSIBLE_MPP
from tissuetalk.models.reading import table_of
from tissuetalk.models.recipe import Recipe, RecipePath


def _values(told: object) -> object:
    """One value or several, whatever YAML took them for."""
    return tuple(str(value) for value in (told if isinstance(told, list | tuple) else [told]))


def _objects(told: object) -> object:
    return listed_objects(told) if isinstance(told, str) else told


Values = Annotated[tuple[str, ...], BeforeValidator(_values)]


def _two_at_least(classes: dict[str, Values]) -> dict[str, Values]:
    if len(classes) < 2:
        raise ValueError("it maps at least two class names to lists of label values")
    every = [value for values in classes.values() for value in values]
    if len(set(every)) < len(every):
        raise ValueError("a label value belongs to two classes; give each to one")
    return classes


class CohortRecipe(Recipe):
    """Everything that decides a training run of a slide classifier, except the machine."""

    preset: Literal["diagnosis", "diagnosis-objects"] = "diagnosis"
    """The standard classifier, or the one that reads object by object."""
    name: str
    """Names the classifier."""
    images: RecipePath
    """Folder of the slides."""
    labels: RecipePath
    """Table (CSV) with one row per slide."""
    classes: Annotated[dict[str, Values], AfterValidator(_two_at_least)]
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
    patch_um: PatchUm = PATCH_UM
    patch_px: PatchPx = PATCH_PX
    """Side of a patch where the scale is unknown."""
    mpp: Annotated[float | None, Field(ge=PLAUSIBLE_MPP[0], le=PLAUSIBLE_MPP[1])] = None
    """µm per pixel of slides whose files do not say."""
    least_patches: int = LEAST_PATCHES
    """Slides with fewer are left out."""
    encoder: str | None = None
    """A ViT's folder or hub id; our own encoder when left out."""
    feature: Literal["tokens", "pooled"] = "pooled"
    folds: int = 0
    """0: one split in 7:1:2. Otherwise every slide is tested once in that many folds, and the classifier learns from all."""
    epochs: int = 100
    patience: int = Field(default=20, ge=0)
    """Epochs without a better validation loss before training ends, not before ``earliest``."""
    earliest: int = Field(default=30, ge=1)
    hidden: int = 256
    """Width of the attention."""
    gated: bool = True
    """False, with ``hidden: 128``, is the plain attention of the first attention MIL."""
    dropout: float = Field(default=0.25, ge=0, lt=1)
    pre_fc: int = Field(default=0, ge=0)
    """Width of a layer between patch vectors and attention, as CLAM has one; 0 has none. Not for ``diagnosis-objects``."""
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    balanced: bool = True
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training is repeated with each; the first one's classifier is kept."""
    objects: Annotated[tuple[str, ...], BeforeValidator(_objects)] = ()
    """Segmented and blurred in validation and test slides, for object importance; canonical labels, or the name of a
    question or an organ whose well segmented objects are meant."""
    segmenter: str | None = None
    """Who segments them; the default model when left out."""
    sigma_px: float = SIGMA_PX
    further_sigmas_px: tuple[float, ...] = ()
    """Importance with other blurs, each a file ``importance-sigma-N.json`` of its own."""
    draws: int = 1
    """Random-blur controls for every object and slide."""
    occlusions: tuple[Occlusion, ...] = ()
    """Maps that know no objects, to compare with: ``occlusion.json`` says how well each finds the objects."""
    occlusion_patches: int = Field(default=5, ge=1)
    """Of every slide, those that weigh most; each takes 50 to 200 encodings a method."""
    summary: str = ""
    training: str = ""
    licence: str = ""
    limits: str = ""


@dataclass(frozen=True)
class Slide:
    """One labelled slide. label: number of its class."""

    path: Path
    label: int
    group: str

    @property
    def name(self) -> str:
        return self.path.stem


def read_slides(recipe: CohortRecipe) -> list[Slide]:
    """The labelled slides of a recipe, in the order of its table.

    Raises InvalidArgumentError for a missing table, column or slide, and for a class without any slide.
    """
    if not recipe.labels.is_file():
        raise InvalidArgumentError(
            f"there is no table of labels at {recipe.labels}; set `labels` in the recipe."
        )
    number = {value: i for i, values in enumerate(recipe.classes.values()) for value in values}
    # spreadsheets write a byte order mark, which would be part of the first column's name
    found, rows = table_of(recipe.labels, "utf-8-sig")
    columns = (recipe.image_column, recipe.label_column, recipe.group_column)
    if missing := set(columns) - set(found):
        raise InvalidArgumentError(
            f"{recipe.labels.name} has no column {', '.join(sorted(missing))}; its columns are "
            f"{', '.join(found)}. Name them in the recipe (image_column, label_column, group_column)."
        )
    told = [tuple(row[column] for column in columns) for row in rows]
    slides = [
        Slide(_find(recipe, image), number[label], group) for image, label, group in told if label in number
    ]
    if recipe.per_group:
        seen: Counter[str] = Counter()
        ranks = []
        for slide in slides:
            ranks.append(seen[slide.group])
            seen[slide.group] += 1
        slides = [slide for slide, rank in zip(slides, ranks, strict=True) if rank < recipe.per_group]
    for i, name in enumerate(recipe.classes):
        if not any(slide.label == i for slide in slides):
            raise InvalidArgumentError(
                f"no row of {recipe.labels.name} has the class {name!r} ({', '.join(recipe.classes[name])}); "
                "check `classes` in the recipe."
            )
    return slides


def _find(recipe: CohortRecipe, name: str) -> Path:
    for path in (recipe.images / name, *(recipe.images / f"{name}{suffix}" for suffix in recipe.suffixes)):
        if path.is_file():
            return path
    raise InvalidArgumentError(f"the slide {name!r} of {recipe.labels.name} is not in {recipe.images}.")
