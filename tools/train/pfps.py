"""Train and score PFPs: the nine tasks by mask algebra, our own sentences, complete and incomplete training (C1-C13).

A recipe is a YAML file with ``preset: pfps``; ``tissuetalk train`` runs it and writes a folder that the model ``pfps`` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field

from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.tables import csv_text
from tissuetalk.models.recipe import RecipePath
from tissuetalk.models.segmentation.pfps.card import UNIT_WORDS
from tissuetalk.models.segmentation.pfps.efficient_sam import SMALL, TINY, SamSizes
from tissuetalk.models.segmentation.pfps.network import Pfps, PfpsSizes, Strategy
from tissuetalk.models.segmentation.pfps.segmenter import build_pfps, fill_trained, is_stored, save_pfps
from tissuetalk.models.segmentation.pfps.training import (
    KidneyPatch,
    KidneyQuestion,
    PatchPlace,
    answer,
    drawn_patch,
    loss_of,
    optimiser_of,
    read_patches,
    valid_point,
)
from tissuetalk.models.training.loop import LOG, EpochRun, draw_curves, prepare_torch
from tissuetalk.models.training.recipes import RunRecipe
from tissuetalk.models.writing import write_whole
from tissuetalk.prompts.prompt_sets import Split, sentences_of_task
from tissuetalk.prompts.relations import POINT_TASKS, Task, instance_at, pfps_task

TASKS: Final[tuple[Task, ...]] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
INCOMPLETE_UNITS: Final = ("dt", "capsule")
"""Units whose tasks are taken out of training in the generalisation experiment."""
LITTLE: Final = SamSizes(
    image_px=64, patch_px=4, width=64, depth=2, heads=4, grid=16, decoder_width=64, decoder_heads=2, upscaling=(32, 16),
    decoder_mlp=128,
)  # fmt: skip
"""A nucleus is as wide as a token or a little more, as it is at full size: coarser tokens never learn single nuclei."""
SIZES: Final = {"small": SMALL, "tiny": TINY, "little": LITTLE}


class PfpsRecipe(RunRecipe):
    """Everything that decides a run; the defaults are the paper's."""

    preset: Literal["pfps"] = "pfps"
    data: RecipePath | None = None
    """Folder with patches.csv; drawn patches without it."""
    size: Literal["small", "tiny", "little"] = "small"
    """small and tiny are EfficientSAM's; little is for trying the path on a CPU."""
    strategy: Strategy = "text"
    head: Literal["hats", "replace_upscale"] = "hats"
    efficient_sam: RecipePath | None = None
    """Published backbone weights. Without them the image encoder, which is frozen, must be trained: set train_encoder."""
    language_model: str | None = None
    """Hub id or folder; TinyLlama by default."""
    lora: bool = True
    train_encoder: bool = False
    keep_tasks: tuple[int, ...] | None = None
    """Tasks of ``dt`` and ``capsule`` left in training; all without it. The paper's readings: 1,2,6 or 1 or 1,2."""
    epochs: int = Field(default=900, ge=1)
    samples_per_epoch: int = Field(default=1000, ge=1)
    validate_every: int = Field(default=100, ge=1)
    """Epochs; the best of the checked ones is tested, on rows of the split val."""
    batch: int = Field(default=1, ge=1)
    learning_rate: float = 1e-3
    decay: float = 0.99
    """Factor on the learning rate, each epoch."""
    test_sentences: int = Field(default=5, ge=1)
    """Of each part, asked of every test patch and task by the strategy text."""
    box_share: float = Field(default=0.0, ge=0, le=1)
    """Part of the requests with a point that come with the box of the object instead; the paper has points only."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Longest gradient; the paper names none."""
    drawn_patches: int = 32
    overfit: bool = False
    """Validate and test on the patches that are trained on: whether the network can learn all nine tasks at all."""


def patches_of(recipe: PfpsRecipe, split: Literal["train", "val", "test"]) -> list[PatchPlace]:
    """Patches of one split; drawn ones take the units in turn. Raises InvalidArgumentError where there is none."""
    if recipe.overfit:
        split = "train"
    if recipe.data is not None:
        found = read_patches(recipe.data, split)
        if not found:
            raise InvalidArgumentError(
                f"{recipe.data / 'patches.csv'} has no row of the split {split}; training needs train, val and test."
            )
        return found
    side = SIZES[recipe.size].image_px
    # far apart: no drawn patch is in two splits
    first = {"train": 0, "val": 10_000, "test": 20_000}[split]
    units = list(UNIT_WORDS)
    count = recipe.drawn_patches if split == "train" else max(4, recipe.drawn_patches // 4)
    return [
        PatchPlace(units[number % 4], partial(drawn_patch, first + number, units[number % 4], side))
        for number in range(count)
    ]


def question_of(
    patch: KidneyPatch, task: Task, random: np.random.Generator, sentence: str
) -> KidneyQuestion | None:
    """The request with its truth and, for tasks 6 to 9, a valid point; None where nothing can be pointed at."""
    point = None
    if task in POINT_TASKS:
        point = valid_point(patch.nuclei if task == 6 else patch.units, random)
        if point is None:
            return None
    truth = pfps_task(task, patch.units, patch.nuclei, point)
    return KidneyQuestion(patch.image, truth, patch.unit, task, sentence, point)


def training_question(
    recipe: PfpsRecipe, patches: Sequence[PatchPlace], random: np.random.Generator
) -> KidneyQuestion:
    """Uniform over units, then patches, then allowed tasks, then training sentences; empty targets are drawn again."""
    units = sorted({patch.unit for patch in patches})
    while True:
        # uniform over units first: rare ones are asked as often as common ones
        unit = units[int(random.integers(len(units)))]
        here = [patch for patch in patches if patch.unit == unit]
        patch = here[int(random.integers(len(here)))].read()
        allowed = allowed_tasks(unit, recipe.keep_tasks)
        task = allowed[int(random.integers(len(allowed)))]
        texts = sentences_of_task(task, "train", UNIT_WORDS[unit])
        question = question_of(patch, task, random, texts[int(random.integers(len(texts)))])
        if question is None or not question.truth.any():
            continue
        boxed = recipe.box_share > 0 and random.random() < recipe.box_share
        return with_box(question, patch) if boxed else question


def with_box(question: KidneyQuestion, patch: KidneyPatch) -> KidneyQuestion:
    """The same question, asked with the box of the object that its point lies in; one without a point stays as it is."""
    if question.point_xy is None:
        return question
    instances = patch.nuclei if question.task == 6 else patch.units
    box = Box.around(instance_at(instances, question.point_xy))
    assert box is not None, "a valid point lies in an object"
    return replace(question, point_xy=None, box_xyxy=(box.x0, box.y0, box.x1, box.y1))


def allowed_tasks(unit: str, keep_tasks: Sequence[int] | None) -> tuple[Task, ...]:
    """All nine, or for the units of the incomplete experiment those that are kept."""
    if keep_tasks is None or unit not in INCOMPLETE_UNITS:
        return TASKS
    return tuple(task for task in TASKS if task in keep_tasks)


def train(recipe: PfpsRecipe, out: Path, control: Control = Control()) -> Path:
    """Run a recipe and return ``out``: the best weights, ``log.csv``, and ``scores.csv`` on the test split.

    A run folder with a checkpoint is continued.
    """
    prepare_torch(recipe)
    tested = patches_of(recipe, "test")
    sizes = PfpsSizes(SIZES[recipe.size], recipe.strategy, recipe.head, boxes=recipe.box_share > 0)
    model = build_pfps(
        sizes, language_model=recipe.language_model, lora=recipe.lora, efficient_sam=recipe.efficient_sam
    )
    if recipe.train_encoder:
        model.image_encoder.requires_grad_(True)
    PfpsRun(recipe, model, out).go(recipe.name, control)
    draw_curves(out / LOG, out / "curves.png")
    fill_trained(model, out)
    write_whole(out / "scores.csv", csv_text(test_scores(recipe, model.eval(), tested)))
    return out


class PfpsRun(EpochRun[list[KidneyQuestion]]):
    """Training on random requests; the weights that answer validation requests best are kept."""

    def __init__(self, recipe: PfpsRecipe, model: Pfps, out: Path) -> None:
        self.recipe, self.model = recipe, model
        self.patches, self.checked = patches_of(recipe, "train"), patches_of(recipe, "val")
        super().__init__(
            recipe,
            model,
            out,
            optimiser_of(model, learning_rate=recipe.learning_rate),
            clip_norm=recipe.clip_norm,
            epochs=recipe.epochs,
            epoch_steps=max(1, recipe.samples_per_epoch // recipe.batch),
            check_every=recipe.validate_every,
        )

    def stored(self, key: str) -> bool:
        return is_stored(key)

    def batch(self, step: int) -> list[KidneyQuestion]:
        random = np.random.default_rng((self.recipe.seed, step))
        return [training_question(self.recipe, self.patches, random) for _ in range(self.recipe.batch)]

    def update(self, batch: list[KidneyQuestion]) -> dict[str, float]:
        rate = self.recipe.learning_rate * self.recipe.decay**self.epoch
        loss = loss_of(self.model, batch)
        self.descend(loss, rate)
        return {"loss": float(loss.detach()), "rate": rate}

    def validate(self) -> float:
        """Mean Dice of every allowed task on every patch, each with one training sentence and one fixed point."""
        values = []
        for number, place in enumerate(self.checked):
            patch, random = place.read(), np.random.default_rng((self.recipe.seed, number))
            for task in allowed_tasks(place.unit, self.recipe.keep_tasks):
                texts = sentences_of_task(task, "train", UNIT_WORDS[place.unit])
                asked = question_of(patch, task, random, texts[int(random.integers(len(texts)))])
                if asked is not None:
                    values.append(dice(answer(self.model, asked), asked.truth))
        return float(np.mean(values)) if values else 0.0

    def keep(self) -> None:
        save_pfps(self.model, self.out, language_model=self.recipe.language_model, lora=self.recipe.lora)


def test_scores(recipe: PfpsRecipe, model: Pfps, places: Sequence[PatchPlace]) -> list[dict[str, Any]]:
    """Mean Dice per unit, task and sentence split over the test patches, every sentence asked, one fixed point an image.

    Unseen combinations of the incomplete experiment are tasks 3, 4, 5, 7, 8 and 9 of INCOMPLETE_UNITS.
    """
    splits: tuple[Split, ...] = ("test", "train") if recipe.strategy == "text" else ("test",)
    most_texts = recipe.test_sentences if recipe.strategy == "text" else 1
    values: dict[tuple[str, Task, Split], list[float]] = {}
    counts = dict.fromkeys(UNIT_WORDS, 0)
    for place in places:
        unit, patch, number = place.unit, place.read(), counts[place.unit]
        counts[unit] += 1
        for task, split in product(TASKS, splits):
            for text in sentences_of_task(task, split, UNIT_WORDS[unit])[:most_texts]:
                # the seed depends on the patch alone: all sentences and strategies point at the same place
                asked = question_of(patch, task, np.random.default_rng((recipe.seed, number)), text)
                if asked is not None:
                    reached = dice(answer(model, asked), asked.truth)
                    values.setdefault((unit, task, split), []).append(reached)
    return [
        {"unit": key[0], "task": key[1], "sentences": key[2], "dice": float(np.mean(found)), "n": len(found)}
        for key in product(UNIT_WORDS, TASKS, splits)
        if (found := values.get(key))
    ]
