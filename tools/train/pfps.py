"""Train and score PFPs: the nine tasks by mask algebra, our own sentences, complete and incomplete training (C1-C13).

A recipe is a YAML file with ``preset: pfps``; ``tissuetalk train`` runs it and writes a folder that the model ``pfps`` reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.tables import csv_text
from tissuetalk.models.recipe import Recipe, RecipePath
from tissuetalk.models.segmentation.pfps.card import UNIT_WORDS
from tissuetalk.models.segmentation.pfps.efficient_sam import SMALL, TINY, SamSizes
from tissuetalk.models.segmentation.pfps.network import PfpsSizes, Strategy
from tissuetalk.models.segmentation.pfps.segmenter import build_pfps, save_pfps
from tissuetalk.models.segmentation.pfps.training import (
    KidneyPatch,
    KidneyQuestion,
    answer,
    drawn_patch,
    optimiser_of,
    read_patches,
    train_step,
    valid_point,
)
from tissuetalk.models.writing import write_whole
from tissuetalk.prompts.prompt_sets import Split, sentences_of_task
from tissuetalk.prompts.relations import POINT_TASKS, Task, pfps_task

TASKS: Final[tuple[Task, ...]] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
INCOMPLETE_UNITS: Final = ("dt", "capsule")
"""Units whose tasks are taken out of training in the generalisation experiment."""
LITTLE: Final = SamSizes(
    image_px=128, width=64, depth=2, heads=4, grid=8, decoder_width=64, decoder_heads=4, upscaling=(32, 32), decoder_mlp=128
)  # fmt: skip
SIZES: Final = {"small": SMALL, "tiny": TINY, "little": LITTLE}


class PfpsRecipe(Recipe):
    """Everything that decides a run; the defaults are the paper's."""

    preset: Literal["pfps"] = "pfps"
    name: str
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
    epochs: int = 900
    samples_per_epoch: int = 1000
    batch: int = 1
    learning_rate: float = 1e-3
    decay: float = 0.99
    """Factor on the learning rate, each epoch."""
    drawn_patches: int = 32
    seed: int = 7


def patches_of(recipe: PfpsRecipe, split: str) -> list[KidneyPatch]:
    """Patches of one split; drawn ones take the units in turn."""
    if recipe.data is not None:
        return read_patches(recipe.data, split)
    side = SIZES[recipe.size].image_px
    # far apart: no drawn patch is in two splits
    first = {"train": 0, "val": 10_000, "test": 20_000}[split]
    units = list(UNIT_WORDS)
    count = recipe.drawn_patches if split == "train" else max(4, recipe.drawn_patches // 4)
    return [drawn_patch(first + number, units[number % 4], side) for number in range(count)]


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


def training_questions(recipe: PfpsRecipe, patches: Sequence[KidneyPatch]) -> Iterator[KidneyQuestion]:
    """Endless: uniform over units, then patches, then allowed tasks, then training sentences; empty targets are skipped."""
    random = np.random.default_rng(recipe.seed)
    by_unit = {unit: [patch for patch in patches if patch.unit == unit] for unit in UNIT_WORDS}
    units = [unit for unit, some in by_unit.items() if some]
    if not units:
        raise InvalidArgumentError("there is no patch to train on; give patches.csv rows with split train.")
    while True:
        # uniform over units first: rare ones are asked as often as common ones
        unit = units[int(random.integers(len(units)))]
        patch = by_unit[unit][int(random.integers(len(by_unit[unit])))]
        allowed = allowed_tasks(unit, recipe.keep_tasks)
        task = allowed[int(random.integers(len(allowed)))]
        texts = sentences_of_task(task, "train", UNIT_WORDS[unit])
        question = question_of(patch, task, random, texts[int(random.integers(len(texts)))])
        if question is not None and question.truth.any():
            yield question


def allowed_tasks(unit: str, keep_tasks: Sequence[int] | None) -> tuple[Task, ...]:
    """All nine, or for the units of the incomplete experiment those that are kept."""
    if keep_tasks is None or unit not in INCOMPLETE_UNITS:
        return TASKS
    return tuple(task for task in TASKS if task in keep_tasks)


def train(recipe: PfpsRecipe, out: Path) -> Path:
    """Run a recipe and return ``out``: weights, ``log.csv`` and ``scores.csv`` on the test split."""
    torch.manual_seed(recipe.seed)
    sizes = PfpsSizes(SIZES[recipe.size], recipe.strategy, recipe.head)
    model = build_pfps(
        sizes, language_model=recipe.language_model, lora=recipe.lora, efficient_sam=recipe.efficient_sam
    )
    if recipe.train_encoder:
        model.image_encoder.requires_grad_(True)
    optimiser = optimiser_of(model, learning_rate=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, recipe.decay)
    questions = training_questions(recipe, patches_of(recipe, "train"))
    steps, log = max(1, recipe.samples_per_epoch // recipe.batch), list[dict[str, object]]()
    out.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, recipe.epochs + 1):
        batches = ([next(questions) for _ in range(recipe.batch)] for _ in range(steps))
        loss = float(np.mean([train_step(model, optimiser, batch) for batch in batches]))
        log.append({"epoch": epoch, "loss": loss, "learning_rate": f"{schedule.get_last_lr()[0]:.3g}"})
        write_whole(out / "log.csv", csv_text(log))
        schedule.step()
        save_pfps(model, out, language_model=recipe.language_model, lora=recipe.lora)
    write_whole(out / "scores.csv", csv_text(test_scores(recipe, model.eval())))
    return out


def test_scores(recipe: PfpsRecipe, model: Any) -> list[dict[str, Any]]:
    """Mean Dice per unit, task and sentence split over the test patches, every sentence asked, one fixed point an image.

    Unseen combinations of the incomplete experiment are tasks 3, 4, 5, 7, 8 and 9 of INCOMPLETE_UNITS.
    """
    splits: tuple[Split, ...] = ("test", "train") if recipe.strategy == "text" else ("test",)
    most_texts = 5 if recipe.strategy == "text" else 1
    rows = []
    patches = patches_of(recipe, "test")
    for unit, task, split in product(UNIT_WORDS, TASKS, splits):
        texts = sentences_of_task(task, split, UNIT_WORDS[unit])[:most_texts]
        values = []
        for number, patch in enumerate(each for each in patches if each.unit == unit):
            for text in texts:
                # the seed depends on the patch alone: all sentences and strategies point at the same place
                asked = question_of(patch, task, np.random.default_rng((recipe.seed, number)), text)
                if asked is not None:
                    values.append(dice(answer(model, asked), asked.truth))
        if values:
            mean = float(np.mean(values))
            rows.append({"unit": unit, "task": task, "sentences": split, "dice": mean, "n": len(values)})
    return rows
