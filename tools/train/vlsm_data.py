"""Images with a class for the vision-language runs: what their masks say, how they are divided, what is asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal, cast

import numpy as np
from pydantic import AfterValidator, BeforeValidator, ConfigDict

from tissuetalk.models.datasets.manifest import read_manifest, read_rgb
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.annotations import SCORED_KINDS, read_annotations
from tissuetalk.models.reading import table_of
from tissuetalk.models.recipe import Recipe, RecipePath
from tissuetalk.models.segmenter import RGB
from tissuetalk.prompts.attributes import PROMPT_IDS, Attributes, PromptId, attribute_prompt, attributes_of
from tissuetalk.prompts.studies import RICHEST_OF, Study, StudyKind, prompts_of, study_prompt
from tissuetalk.prompts.taxonomy import Label

DRAWN: Final[tuple[PromptId, ...]] = PROMPT_IDS[1:]
"""What ``prompt: random`` draws from, anew for each record and epoch."""
RICHEST: Final[PromptId] = "P6"
"""Prompt that holds every attribute a mask gives."""


def label_or_class(text: object) -> Label:
    """Three parts are a label, and must be one; anything else names a class of its own."""
    name = str(text).strip()
    return Label.parse(name) if name.count("-") >= 2 else Label("unspecified", "tissue", name.lower())


class DataSet(Recipe):
    """One set of images of one class."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    manifest: Annotated[
        RecipePath, AfterValidator(lambda path: path / "manifest.csv" if path.is_dir() else path)
    ]
    """As for `tissuetalk evaluate`: a file, or the folder with ``manifest.csv``."""
    label: Annotated[Label, BeforeValidator(label_or_class)]
    """Canonical label of its one class, or the name of any other class, such as ``polyp``."""
    descriptions: tuple[str, ...] = ()
    """Of the class, as they follow "which is" in P7 to P9; by default those of the taxonomy's labels."""
    kind: StudyKind = "photograph"
    """chest (X-rays), heart and breast (ultrasound) have prompts of their own; report asks with the whole report as P1."""
    studies: RecipePath | None = None
    """Table (CSV) with a row per image: ``file`` (its name) and any of view, pathology (several with semicolons), cycle,
    gender, age, quality, tumour, report, and shape and color, which count before those that the mask gives."""

    @property
    def name(self) -> str:
        return self.manifest.parent.name if self.manifest.name == "manifest.csv" else self.manifest.stem


@dataclass(frozen=True)
class Item:
    """One image and class, with what its mask says about itself."""

    file: Path
    mpp: float | None
    group: str
    mask: Mask
    found: Attributes
    source: DataSet
    study: Study

    @property
    def label(self) -> Label:
        return self.source.label

    def image(self) -> RGB:
        """[H, W, 3], 0..255."""
        return read_rgb(self.file)


def items_of(source: DataSet, split: Literal["train", "val", "test"]) -> list[Item]:
    """Items that show their class, of the rows marked so; unmarked rows train, and where no row is marked test, all test."""
    records = [record for record in read_manifest(source.manifest) if record.kind in SCORED_KINDS]
    chosen = [record for record in records if (record.split or "train") == split]
    if split == "test" and not chosen:
        chosen = records
    studies, items = studies_of(source), []
    for record in chosen:
        mask = np.any([each.mask for each in read_annotations(record)], axis=0)
        if mask.any():
            found = attributes_of(mask, source.label, read_rgb(record.image))
            study = studies.get(record.image.name, Study())
            found = replace(found, shape=study.shape or found.shape, color=study.color or found.color)
            items.append(Item(record.image, record.mpp, record.group, mask, found, source, study))
    return items


def studies_of(source: DataSet) -> dict[str, Study]:
    """What the set's table says, by the image's name. Raises InvalidArgumentError for a table that is missing or names no files."""
    if source.studies is None:
        if source.kind != "photograph":
            raise InvalidArgumentError(
                f"{source.name}: images of the kind {source.kind} need a table; set `studies`."
            )
        return {}
    if not source.studies.is_file():
        raise InvalidArgumentError(f"{source.name}: there is no table of studies at {source.studies}.")
    columns, rows = table_of(source.studies, "utf-8-sig")
    if "file" not in columns:
        raise InvalidArgumentError(f"{source.studies.name} has no column file; it has {', '.join(columns)}.")
    return {Path(row["file"]).name: Study.of(row) for row in rows}


def divided(sources: Sequence[DataSet]) -> tuple[list[Item], list[Item]]:
    """What is learned from, and what says when to stop: rows marked val, and of sets that mark none every fifth group.

    Raises InvalidArgumentError when one side would be empty.
    """
    learning, checking, unmarked = list[Item](), list[Item](), list[Item]()
    for source in sources:
        marked = items_of(source, "val")
        checking += marked
        (learning if marked else unmarked).extend(items_of(source, "train"))
    # sorted, so that the division is the same in every run
    groups = sorted({item.group for item in unmarked})
    held = set(groups[::5]) if len(groups) > 1 else set[str]()
    checking += [item for item in unmarked if item.group in held]
    learning += [item for item in unmarked if item.group not in held]
    if len(learning) < 2 or not checking:
        raise InvalidArgumentError(
            f"{len(learning)} images to learn from and {len(checking)} to validate on are too few: mark rows val in the "
            "manifest, or give images of at least two groups."
        )
    return learning, checking


def prompt_text(item: Item, prompt: str, random: np.random.Generator | None = None) -> str:
    """The prompt of an item; while training, prompt and surface form are drawn, else the form is fixed."""
    chosen, kind = cast(PromptId, prompt), item.source.kind
    if prompt == "random":
        # scores of a model trained on random prompts are of the prompt that says most
        drawn = DRAWN if kind == "photograph" else prompts_of(kind)[1:]
        chosen = RICHEST_OF[kind] if random is None else drawn[int(random.integers(len(drawn)))]
    return asked_with(item, item.found, chosen, 0 if random is None else int(random.integers(5)))


def asked_with(item: Item, found: Attributes, prompt: PromptId, form: int = 0) -> str:
    """A prompt of an item from these attributes, which may be others than its own."""
    if item.source.kind == "photograph":
        return attribute_prompt(prompt, found, item.label, form, item.source.descriptions)
    return study_prompt(item.source.kind, prompt, found, item.study, form)


def places_of(count: int, size: int) -> list[slice]:
    """An epoch in batches; a last one of a single item joins the one before it (batch norm needs two)."""
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]
