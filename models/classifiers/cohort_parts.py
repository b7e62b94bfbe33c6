"""What both ways of training on a folder of labelled slides share: gathering the slides, settings, and what is written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tissuetalk.models.classifiers.cohort_recipe import CohortRecipe, Slide
from tissuetalk.models.classifiers.metrics import Scores
from tissuetalk.models.classifiers.train_mil import TrainSettings
from tissuetalk.models.errors import InvalidArgumentError

Report = Callable[[str], None]
Bag = TypeVar("Bag")


@dataclass(frozen=True)
class Gathered(Generic[Bag]):
    """The slides that have enough patches, with the bag of each, and the names of those that have not."""

    slides: tuple[Slide, ...]
    bags: tuple[Bag, ...]
    left_out: tuple[str, ...]

    @property
    def labels(self) -> list[int]:
        return [slide.label for slide in self.slides]

    @property
    def groups(self) -> list[str]:
        return [slide.group for slide in self.slides]


def gather(
    slides: Sequence[Slide],
    read: Callable[[Slide], Bag | None],
    *,
    least_patches: int,
    done: str,
    every: int,
    report: Report,
) -> Gathered[Bag]:
    """Read every slide; ``None`` leaves it out. done: what happened to the slides, said after ``every`` of them.

    Raises InvalidArgumentError when none is left.
    """
    kept: list[tuple[Slide, Bag]] = []
    left_out = []
    for number, slide in enumerate(slides, start=1):
        bag = read(slide)
        if bag is None:
            left_out.append(slide.name)
        else:
            kept.append((slide, bag))
        if number % every == 0 or number == len(slides):
            report(f"{number} of {len(slides)} slides {done}")
    if not kept:
        raise InvalidArgumentError(f"no slide has {least_patches} patches of tissue; lower `least_patches`.")
    return Gathered(tuple(slide for slide, _ in kept), tuple(bag for _, bag in kept), tuple(left_out))


def settings_of(recipe: CohortRecipe, seed: int) -> TrainSettings:
    """The recipe's settings for one seed."""
    return TrainSettings(
        seed=seed,
        epochs=recipe.epochs,
        hidden=recipe.hidden,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        balanced=recipe.balanced,
    )


def card_metrics(recipe: CohortRecipe, scores: Scores, areas: tuple[float, float]) -> dict[str, str]:
    """Scores as a classifier's card tells them. areas: mean and standard deviation of the macro AUC over seeds."""
    how = f"cross-validation in {recipe.folds} parts" if recipe.folds else "test slides of a 7:1:2 split"
    return {
        "measured on": f"{how}, whole patients; 95 % interval over {scores.units} patients",
        "macro AUC": str(scores.macro_auc),
        "macro accuracy": str(scores.macro_accuracy),
        "macro F1": str(scores.macro_f1),
        f"macro AUC over {len(recipe.seeds)} seeds": f"{areas[0]:.3f} ± {areas[1]:.3f}",
    }


def write_metrics(
    out: Path,
    recipe: CohortRecipe,
    gathered: Gathered[Bag],
    scores: Scores,
    areas: tuple[float, float],
    *,
    tested: int,
) -> None:
    """``metrics.json`` of a run."""
    write_json(
        out / "metrics.json",
        {
            "test": scores.as_dict(),
            "macro_auc_over_seeds": {"mean": areas[0], "std": areas[1], "seeds": list(recipe.seeds)},
            "slides": len(gathered.slides),
            "tested": tested,
            "left_out": list(gathered.left_out),
        },
    )


def score_line(name: str, scores: Scores) -> str:
    """The scores in one line."""
    return f"{name}: macro AUC {scores.macro_auc}, accuracy {scores.macro_accuracy}, F1 {scores.macro_f1}"


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
