"""Fine-tune and score CLIPSeg, CRIS and BiomedCLIPSeg with attribute prompts (spec vlsm.md, section 6).

A recipe is a YAML file with ``preset: vlsm``; ``tissuetalk train`` runs it. One set to train on, or none, or several: the
individual, zero-shot (``epochs: 0``) and pooled experiments; further sets to test on: out of distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

import numpy as np
import torch
from pydantic import AfterValidator, BeforeValidator, ConfigDict, ValidationInfo, model_validator
from safetensors.torch import load_file

from tissuetalk.models import registry
from tissuetalk.models.datasets.manifest import read_manifest, read_rgb
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import open_image
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.annotations import SCORED_KINDS, read_annotations
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.tables import csv_text
from tissuetalk.models.recipe import Recipe, RecipePath
from tissuetalk.models.segmentation.vlsm.networks import (
    NAMES,
    Preset,
    Vlsm,
    build,
    optimiser_of,
    settings_of,
    train_step,
)
from tissuetalk.models.segmenter import RGB, Segmenter
from tissuetalk.models.writing import write_tensors, write_whole
from tissuetalk.prompts.attributes import (
    ATTRIBUTES,
    PROMPT_IDS,
    Attributes,
    PromptId,
    Swap,
    attribute_prompt,
    attributes_of,
    relative_change,
    wrong,
)
from tissuetalk.prompts.names import prompt_of
from tissuetalk.prompts.taxonomy import Label
from tissuetalk.tools.segment.engine import find_masks
from tissuetalk.tools.segment.field import FieldOfView, scale_of

DRAWN: Final[tuple[PromptId, ...]] = PROMPT_IDS[1:]
"""What ``prompt: random`` draws from, anew for each record and epoch."""
RICHEST: Final[PromptId] = "P6"
"""Prompt that holds every attribute a mask gives."""
WEIGHTS: Final = "vlsm.safetensors"


class DataSet(Recipe):
    """One set of images of one class."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    manifest: Annotated[
        RecipePath, AfterValidator(lambda path: path / "manifest.csv" if path.is_dir() else path)
    ]
    """As for `tissuetalk evaluate`: a file, or the folder with ``manifest.csv``."""
    label: Annotated[Label, BeforeValidator(Label.parse)]
    """Canonical label of its one class."""

    @property
    def name(self) -> str:
        return self.manifest.parent.name if self.manifest.name == "manifest.csv" else self.manifest.stem


def _here_or_on_the_hub(place: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    return str((folder / place).resolve()) if folder and (folder / place).exists() else place


HubPlace = Annotated[str, AfterValidator(_here_or_on_the_hub)]
"""Hub id, folder or file; relative files start at the recipe's own folder."""


class VlsmRecipe(Recipe):
    """Everything that decides a run."""

    preset: Literal["vlsm"] = "vlsm"
    name: str
    network: str
    """clipseg, cris, biomedclipseg, biomedclipseg-d; or, with epochs: 0, any text-prompted model of `tissuetalk models`."""
    test: tuple[DataSet, ...]
    """Sets to score on, each on its test rows (all rows when it has none)."""
    train: tuple[DataSet, ...] = ()
    prompt: Literal[PromptId, "random"] = RICHEST
    weights: HubPlace | None = None
    """As the network wants it."""
    tokenizer: HubPlace | None = None
    decoder: HubPlace | None = None
    """CLIPSeg's, whose decoder -D starts from."""
    legacy_layers: bool = False
    train_encoders: bool = False
    """False reproduces the paper: the public CLIPSeg computes its encoders without gradients."""
    settings: Preset = "paper"
    epochs: int = 200
    """At most; training stops early when validation Dice no longer rises."""
    wrong_attributes: bool = False
    """Also ask with one attribute made wrong at a time."""
    seed: int = 7

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        if self.network not in NAMES and (self.epochs or self.network not in registry.MODELS):
            raise ValueError(
                f"network {self.network!r} cannot be trained here; choose {', '.join(NAMES)}, or with "
                f"epochs: 0 one of {', '.join(registry.MODELS)}"
            )
        if self.epochs and not self.train:
            raise ValueError("nothing to train on; give train, or epochs: 0")
        return self


@dataclass(frozen=True)
class Item:
    """One image and class, with what its mask says about itself."""

    file: Path
    mpp: float | None
    group: str
    mask: Mask
    found: Attributes
    label: Label

    def image(self) -> RGB:
        """[H, W, 3], 0..255."""
        return read_rgb(self.file)


Ask = Callable[[Item, str], Mask]


def items_of(source: DataSet, split: str) -> list[Item]:
    """Items that show their class. Rows marked test are tested, all others train; without such rows all do both."""
    records = [record for record in read_manifest(source.manifest) if record.kind in SCORED_KINDS]
    marked = any(record.split == "test" for record in records)
    items = []
    for record in records:
        if marked and (record.split == "test") != (split == "test"):
            continue
        mask = np.any([each.mask for each in read_annotations(record)], axis=0)
        if mask.any():
            found = attributes_of(mask, source.label, read_rgb(record.image))
            items.append(Item(record.image, record.mpp, record.group, mask, found, source.label))
    return items


def prompt_text(item: Item, prompt: str, random: np.random.Generator | None = None) -> str:
    """The prompt of an item; while training, prompt and surface form are drawn, else the form is fixed."""
    chosen = cast(PromptId, prompt)
    if prompt == "random":
        # scores of a model trained on random prompts are of the prompt that says most
        chosen = RICHEST if random is None else DRAWN[int(random.integers(len(DRAWN)))]
    form = 0 if random is None else int(random.integers(5))
    return attribute_prompt(chosen, item.found, item.label, form)


def train(recipe: VlsmRecipe, out: Path) -> Path:
    """Run a recipe and return ``out``: ``scores.csv``, and where asked ``wrong_attributes.csv``, ``log.csv`` and weights."""
    torch.manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    if recipe.network not in NAMES:
        score(recipe, _through_registry(registry.load(recipe.network)), out)
        return out
    model = build(
        cast(Any, recipe.network),
        weights=recipe.weights,
        tokenizer=recipe.tokenizer,
        decoder=recipe.decoder,
        legacy_layers=recipe.legacy_layers,
    )
    if recipe.epochs:
        fine_tune(recipe, model, out)
    score(recipe, lambda item, text: model.segment(item.image(), text), out)
    return out


def fine_tune(recipe: VlsmRecipe, model: Vlsm, out: Path) -> None:
    """Train until validation Dice has not risen for the paper's patience; the best weights are kept and written."""
    items = [item for source in recipe.train for item in items_of(source, "train")]
    learning, checking = _divided(items)
    settings = settings_of(model, recipe.settings)
    model.freeze(train_encoders=recipe.train_encoders)
    optimiser = optimiser_of(model, settings)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, "max", factor=0.1, patience=5)
    random = np.random.default_rng(recipe.seed)
    best, since, log = -1.0, 0, list[dict[str, object]]()
    for epoch in range(1, recipe.epochs + 1):
        losses = []
        for batch in _batches(learning, settings.batch, random):
            images, masks = [item.image() for item in batch], [item.mask for item in batch]
            texts = [prompt_text(item, recipe.prompt, random) for item in batch]
            losses.append(train_step(model, optimiser, settings, images, texts, masks))
        answers = [
            (model.segment(one.image(), prompt_text(one, recipe.prompt)), one.mask) for one in checking
        ]
        reached = float(np.mean([dice(found, truth) for found, truth in answers]))
        log.append({"epoch": epoch, "loss": float(np.mean(losses)), "validation_dice": reached})
        write_whole(out / "log.csv", csv_text(log))
        # only the released code lowers the rate on a plateau
        if recipe.settings == "released":
            plateau.step(reached)
        since += 1
        if reached > best:
            best, since = reached, 0
            write_tensors(out / WEIGHTS, model.state_dict())
        # since counts epochs without a new best
        if since > settings.patience:
            break
    model.load_state_dict(load_file(out / WEIGHTS))


def _divided(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Every fifth group is for validation; at least one of each side."""
    groups = sorted({item.group for item in items})
    if len(groups) < 2:
        raise InvalidArgumentError("training needs images of at least two groups: one learns, one checks.")
    # groups are sorted, so the division is the same in every run
    held = set(groups[::5])
    return [i for i in items if i.group not in held], [i for i in items if i.group in held]


def _batches(items: Sequence[Item], size: int, random: np.random.Generator) -> Iterator[list[Item]]:
    """Every item once, in random order; a last batch of one joins the one before it (batch norm needs two)."""
    order = random.permutation(len(items)).tolist()
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for number, start in enumerate(starts):
        end = len(order) if number == len(starts) - 1 else start + size
        yield [items[at] for at in order[start:end]]


def _through_registry(model: Segmenter) -> Ask:
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


def score(recipe: VlsmRecipe, ask: Ask, out: Path) -> None:
    """Mean Dice at the size of the masks, per test set; and per wrong attribute with its change in per cent."""
    rows: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for source in recipe.test:
        items = items_of(source, "test")
        values = [dice(ask(item, prompt_text(item, recipe.prompt)), item.mask) for item in items]
        mean = float(np.mean(values)) if values else None
        rows.append({"set": source.name, "prompt": recipe.prompt, "dice": mean, "n": len(values)})
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
        return dice(ask(item, attribute_prompt(RICHEST, found, item.label)), item.mask)

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
