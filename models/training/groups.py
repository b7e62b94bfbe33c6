"""Prompt-group-aware training around any of the hosts (prompt_groups.md): ``tissuetalk train`` with ``preset: prompt-groups``.

Ends in ``sentences.csv`` (Dice of every test sentence), ``scores.csv`` (means, T1 and T2 apart) and ``weights/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tissuetalk.models.control import Control
from tissuetalk.models.datasets.group_sentences import sentences
from tissuetalk.models.datasets.wordings import LEVELS
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.tables import csv_text
from tissuetalk.models.training.group_data import (
    GroupPicture,
    GroupSampler,
    GroupSet,
    PromptGroup,
    pictures,
    subset,
)
from tissuetalk.models.training.group_losses import (
    Reduction,
    consistency,
    group_loss,
    group_weights,
    segment_losses,
)
from tissuetalk.models.training.hosts import Aggregation, GroupHost, HostName, Size, host_named
from tissuetalk.models.training.loop import LOG, EpochRun, draw_curves, prepare_torch
from tissuetalk.models.training.recipes import GroupGradient, RunRecipe
from tissuetalk.models.writing import whole_file, write_whole

BEST: Final = "best.pt"
LOSS_PRESETS: Final[Mapping[str, tuple[float, float, float]]] = {
    "paper": (1.0, 1.0, 1.0),
    "released": (200.0, 10.0, 20.0),
}
"""Weights of focal, Dice and presence loss: the paper's, and those of SAM 3's released fine-tuning."""


class GroupsRecipe(RunRecipe):
    """Everything that decides a run. The defaults are the paper's, or where it is silent those of our list."""

    preset: Literal["prompt-groups"] = "prompt-groups"
    host: HostName
    size: Size = "published"
    """little has random weights and is for trying the path on a CPU."""
    weights: str | None = None
    """As the host's model wants them; by default those that are on this machine."""
    train: tuple[GroupSet, ...] = ()
    validation: tuple[GroupSet, ...] = ()
    """Without it, images that ``fraction`` left out, else every fifth group of ``train``."""
    test: tuple[GroupSet, ...] = ()
    fraction: float = Field(default=0.1, gt=0, le=1)
    """Share of the images of each training set, drawn once with a fixed seed."""
    subset_by: str = "organ"
    """Column of the manifest of whose every value the same share is drawn."""
    validation_images: int = Field(default=50, ge=1)
    """At most."""
    epochs: int = Field(default=5, ge=0)
    """0 scores the host as it is."""
    batch: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = 0.01
    train_text: bool = False
    train_image: bool = True
    mixed_precision: bool = False
    """On a GPU, most of the arithmetic in bfloat16."""
    group_size: int = Field(default=3, ge=1, le=27)
    """Sentences per image and target (K); 1 is plain fine-tuning."""
    group_gradient: GroupGradient = "weights"
    group_strength: float = Field(default=1.0, ge=0)
    """lambda."""
    tau: float = Field(default=1.0, gt=0)
    consistency: float = Field(default=0.1, ge=0)
    """beta."""
    consistency_pairs: bool = False
    """All pairs with gradients on both sides, instead of the first sentence as a reference without one."""
    consistency_over: Reduction = "mean"
    """Over the pixels of the mask logits."""
    loss: Literal["paper", "released"] = "paper"
    focal_weight: float | None = Field(default=None, ge=0)
    dice_weight: float | None = Field(default=None, ge=0)
    presence_weight: float | None = Field(default=None, ge=0)
    """Instead of those of ``loss``."""
    aggregation: Aggregation = "queries"
    """SAM 3's mask: from its queries, or its map of everything named."""
    class_share: float = Field(default=0.5, ge=0, le=1)
    """Of groups that ask for one class (T2)."""
    absent_share: float = Field(default=0.0, ge=0, le=1)
    """Of those, for a class that is not on the image: only presence and consistency learn."""
    test_sentences: int = Field(default=1, ge=1, le=3)
    """Unseen sentences of each level that every test target is asked with."""

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        if self.epochs and not self.train:
            raise ValueError("nothing to train on; give train, or epochs: 0")
        return self

    @property
    def loss_weights(self) -> tuple[float, float, float]:
        told = (self.focal_weight, self.dice_weight, self.presence_weight)
        focal, dice_, presence = (
            known if value is None else value
            for value, known in zip(told, LOSS_PRESETS[self.loss], strict=True)
        )
        return focal, dice_, presence


def group_objective(
    host: GroupHost, group: PromptGroup, recipe: GroupsRecipe
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one group and its parts. The image is looked at once, however many sentences there are."""
    said = host.answer(host.see(group.tile), group.sentences)
    masks = said.masks.float()
    truth = group.truth_at(masks.shape[-2:]).to(masks.device)
    losses = segment_losses(masks, said.presence, truth, recipe.loss_weights) + host.named(said, truth)
    weights = group_weights(
        losses, gradient=recipe.group_gradient, strength=recipe.group_strength, temperature=recipe.tau
    )
    close = consistency(masks, pairs=recipe.consistency_pairs, reduction=recipe.consistency_over)
    total = (weights * losses).sum() + recipe.consistency * close
    told = {"segment": losses.mean(), "group": group_loss(losses, recipe.tau), "consistency": close}
    return total, {name: float(value.detach()) for name, value in told.items()}


class GroupRun(EpochRun[list[PromptGroup]]):
    """The weights that do best on validation images are kept."""

    def __init__(
        self,
        recipe: GroupsRecipe,
        host: GroupHost,
        sampler: GroupSampler,
        checking: Sequence[GroupPicture],
        out: Path,
    ) -> None:
        self.recipe, self.host, self.sampler, self.checking = recipe, host, sampler, checking
        host.freeze(train_text=recipe.train_text, train_image=recipe.train_image)
        learned = [weight for weight in host.network.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW(learned, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        super().__init__(
            recipe, host.network, out, optimiser, epochs=recipe.epochs, epoch_steps=sampler.steps
        )

    def batch(self, step: int) -> list[PromptGroup]:
        return self.sampler.batch(step)

    def update(self, batch: list[PromptGroup]) -> dict[str, float]:
        self.host.train()
        half = self.recipe.mixed_precision and self.place.type == "cuda"
        with torch.autocast(self.place.type, torch.bfloat16, enabled=half):
            found = [group_objective(self.host, group, self.recipe) for group in batch]
        loss = torch.stack([total for total, _ in found]).mean()
        self.descend(loss)
        parts = {name: float(np.mean([each[name] for _, each in found])) for name in found[0][1]}
        return {"loss": float(loss.detach()), **parts}

    def validate(self) -> float:
        rows = [row for picture in self.checking for row in asked(self.host, picture, 1, ("medium",))]
        return float(np.mean([row["dice"] for row in rows])) if rows else 0.0

    def keep(self) -> None:
        with whole_file(self.out / BEST) as partial:
            torch.save(self.host.network.state_dict(), partial)


def train_groups(recipe: GroupsRecipe, out: Path, control: Control = Control()) -> Path:
    """Run a recipe and return ``out``. A run folder with a checkpoint is continued."""
    prepare_torch(recipe)
    out.mkdir(parents=True, exist_ok=True)
    host = host_named(recipe.host, recipe.size, recipe.weights, recipe.aggregation)
    learning = list[GroupPicture]()
    if recipe.epochs:
        learning, checking = divided_pictures(recipe, out)
        sampler = GroupSampler(
            learning,
            size=recipe.group_size,
            batch=recipe.batch,
            class_share=recipe.class_share,
            absent_share=recipe.absent_share,
            seed=recipe.seed,
        )
        GroupRun(recipe, host, sampler, checking, out).go(recipe.name, control)
        draw_curves(out / LOG, out / "curves.png")
        host.network.load_state_dict(torch.load(out / BEST, map_location="cpu", weights_only=True))
        host.save(out / "weights")
    score_groups(recipe, host, out, {picture.file.resolve() for picture in learning}, control)
    return out


def divided_pictures(recipe: GroupsRecipe, out: Path) -> tuple[list[GroupPicture], list[GroupPicture]]:
    """What is learned from and what is validated on. Raises InvalidArgumentError where one would be empty."""
    learning, left = list[GroupPicture](), list[GroupPicture]()
    for number, source in enumerate(recipe.train):
        chosen, others = subset(source, out / f"subset-{number}.csv", recipe.fraction, recipe.subset_by)
        learning, left = learning + chosen, left + others
    checking = [picture for source in recipe.validation for picture in pictures(source)] or left
    if not checking:
        groups = sorted({picture.group for picture in learning})
        held = set(groups[::5]) if len(groups) > 1 else set[str]()
        checking = [picture for picture in learning if picture.group in held]
        learning = [picture for picture in learning if picture.group not in held]
    if not learning or not checking:
        raise InvalidArgumentError(
            f"{len(learning)} images to learn from and {len(checking)} to validate on are too few: give `validation`, or "
            "images of at least two groups."
        )
    places = np.random.default_rng(0).permutation(len(checking))[: recipe.validation_images]
    return learning, [checking[place] for place in sorted(places.tolist())]


def asked(
    host: GroupHost, picture: GroupPicture, each: int, levels: Sequence[str] = LEVELS
) -> list[dict[str, Any]]:
    """Dice of unseen sentences about a picture: all objects, and every class that is there."""
    every, by_class = picture.masks()
    targets: list[tuple[str | None, Mask]] = [(None, every)] if every.any() else []
    targets += list(by_class.items())
    questions = [
        (name, level, sentence, truth)
        for name, truth in targets
        for level, some in sentences("test", picture.source.things, name).items()
        if level in levels
        for sentence in some[:each]
    ]
    if not questions:
        return []
    image = picture.image()
    sums = np.zeros((len(questions), *image.shape[:2]), np.float32)
    counts = np.zeros(image.shape[:2], np.float32)
    for x, y, width, height in picture.tiles():
        part = np.s_[y : y + height, x : x + width]
        tile = np.ascontiguousarray(image[part])
        sums[:, *part] += host.probabilities(tile, [sentence for _, _, sentence, _ in questions]).numpy()
        counts[part] += 1
    return [
        {
            "set": picture.source.name,
            "image": picture.file.name,
            "kind": "T1" if name is None else "T2",
            "class": name or "",
            "level": level,
            "sentence": sentence,
            "dice": dice(total / counts > 0.5, truth),
        }
        for (name, level, sentence, truth), total in zip(questions, sums, strict=True)
    ]


def score_groups(
    recipe: GroupsRecipe, host: GroupHost, out: Path, learned: set[Path], control: Control = Control()
) -> None:
    """Write ``sentences.csv`` and ``scores.csv``. learned: files that were trained on; how many are scored is told."""
    told, means = list[dict[str, Any]](), list[dict[str, Any]]()
    for source in recipe.test:
        chosen = pictures(source)
        rows = list[dict[str, Any]]()
        for picture in chosen:
            control.check()
            rows += asked(host, picture, recipe.test_sentences)
        seen = sum(picture.file.resolve() in learned for picture in chosen)
        told += rows
        means += [row | {"trained_on": seen} for row in _means(rows)]
    write_whole(out / "sentences.csv", csv_text(told))
    write_whole(out / "scores.csv", csv_text(means))


def _means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """T1 and T2, over all levels and each; T2 also class by class. spread: over the sentences of one target."""

    def line(kind: str, name: str, level: str, some: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        targets: dict[tuple[str, str], list[float]] = {}
        for row in some:
            targets.setdefault((row["image"], row["class"]), []).append(row["dice"])
        return {
            "set": some[0]["set"], "kind": kind, "class": name, "level": level,
            "dice": float(np.mean([row["dice"] for row in some])),
            "spread": float(np.mean([np.std(reached) for reached in targets.values()])), "n": len(targets),
        }  # fmt: skip

    found = []
    for kind in ("T1", "T2"):
        of_kind = [row for row in rows if row["kind"] == kind]
        names = ["", *sorted({row["class"] for row in of_kind} - {""})]
        for name in names:
            some = [row for row in of_kind if not name or row["class"] == name]
            for level in ("all", *LEVELS) if not name else ("all",):
                here = [row for row in some if level in ("all", row["level"])]
                if here:
                    found.append(line(kind, name, level, here))
    return found
