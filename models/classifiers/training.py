"""Training of slide classifiers: only poolers and the linear layer learn, one slide a step (explain.md, section 7)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.classifiers.evaluation import Floats
from tissuetalk.models.classifiers.networks import (
    AttentionMIL,
    MilConfig,
    ObjectAwareConfig,
    ObjectAwareModel,
)
from tissuetalk.models.classifiers.objects import ObjectBag

Bag = TypeVar("Bag")
Network = TypeVar("Network", bound=nn.Module)
Labelled = Sequence[tuple[Bag, int]]


@dataclass(frozen=True)
class TrainSettings:
    """classes: how many logits. learning_rate, weight_decay: Adam, the paper's.

    patience: epochs without a better validation loss before training ends, not before ``earliest``; the best epoch is kept.
    balanced: draw slides so that every class comes up equally often.
    """

    classes: int
    epochs: int = 100
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    patience: int = 20
    earliest: int = 30
    balanced: bool = True
    seed: int = 0
    hidden: int = 256
    gated: bool = True
    dropout: float = 0.25
    pre_fc: int = 0

    @property
    def pooling(self) -> dict[str, Any]:
        """What both networks' attention is built from."""
        return {"hidden": self.hidden, "gated": self.gated, "dropout": self.dropout}


@dataclass(frozen=True)
class Trained:
    """epochs: how many ran. losses: mean training loss of each. validation_loss: of the epoch that was kept, or None."""

    epochs: int
    losses: tuple[float, ...]
    validation_loss: float | None


def fit(
    model: nn.Module,
    bags: Sequence[Bag],
    labels: Sequence[int],
    settings: TrainSettings,
    validation: Labelled[Bag] = (),
) -> Trained:
    """Train in place any model that gives [C] logits for one bag; without validation slides all epochs run."""
    random = np.random.default_rng(settings.seed)
    counts = np.bincount(labels)
    # drawn with replacement: balanced classes come up equally often, some slides twice and others not at all
    chance = 1 / counts[np.asarray(labels)] if settings.balanced else np.ones(len(labels))
    optimiser = torch.optim.Adam(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    # without validation slides the last epoch stands and this copy is never read
    best, best_epoch, kept = float("inf"), 0, copy.deepcopy(model.state_dict())
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for epoch in range(1, settings.epochs + 1):
            order = random.choice(len(bags), size=len(bags), p=chance / chance.sum())
            model.train()
            losses.append(float(np.mean([_step(model, optimiser, bags[i], labels[i]) for i in order])))
            if not validation:
                continue
            held = probabilities(model, [bag for bag, _ in validation])
            right = held[np.arange(len(validation)), [label for _, label in validation]]
            # mean cross-entropy; a probability may have underflowed to 0
            loss = float(-np.log(np.maximum(right, 1e-12)).mean())
            if loss < best:
                best, best_epoch, kept = loss, epoch, copy.deepcopy(model.state_dict())
            elif epoch >= settings.earliest and epoch - best_epoch >= settings.patience:
                break
    # back to the best epoch, not the last
    if validation:
        model.load_state_dict(kept)
    model.eval()
    return Trained(len(losses), tuple(losses), best if validation else None)


def _step(model: nn.Module, optimiser: torch.optim.Optimizer, bag: object, label: int) -> float:
    optimiser.zero_grad()
    loss = functional.cross_entropy(model(bag)[None], torch.tensor([label]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    optimiser.step()
    return float(loss.detach())


def probabilities(model: nn.Module, bags: Sequence[Bag]) -> Floats:
    """[N, C] for N bags, without dropout."""
    model.eval()
    with torch.inference_mode():
        return np.stack([torch.softmax(model(bag).double(), 0).numpy() for bag in bags])


def train_attention(
    bags: Sequence[Tensor], labels: Sequence[int], settings: TrainSettings, validation: Labelled[Tensor] = ()
) -> tuple[AttentionMIL, Trained]:
    """The standard model on bags of patch vectors [N, d]; the same seed gives the same weights."""
    config = MilConfig(bags[0].shape[1], settings.classes, **settings.pooling, pre_fc=settings.pre_fc)
    model = _seeded(lambda: AttentionMIL(config), settings.seed)
    model.remember(torch.cat(list(bags)))
    return model, fit(model, bags, labels, settings, validation)


def train_objects(
    bags: Sequence[ObjectBag],
    labels: Sequence[int],
    settings: TrainSettings,
    validation: Labelled[ObjectBag] = (),
) -> tuple[ObjectAwareModel, Trained]:
    """The object-aware model on pooled slides; the same seed gives the same weights."""
    width = bags[0].features.shape[2]
    config = ObjectAwareConfig(bags[0].objects, width, settings.classes, **settings.pooling)
    model = _seeded(lambda: ObjectAwareModel(config), settings.seed)
    model.remember_objects(bags)
    trained = fit(model, bags, labels, settings, validation)
    model.centre_classes()
    return model, trained


def _seeded(build: Callable[[], Network], seed: int) -> Network:
    """Start weights that depend on the seed alone; the caller's random numbers go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
