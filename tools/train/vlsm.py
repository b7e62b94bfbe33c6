"""Fine-tune and score CLIPSeg, CRIS and BiomedCLIPSeg with attribute prompts (spec vlsm.md, section 6).

A recipe is a YAML file with ``preset: vlsm``; ``tissuetalk train`` runs it. One set to train on, or none, or several: the
individual, zero-shot (``epochs: 0``) and pooled experiments; further sets to test on: out of distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import numpy as np
import torch
from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from safetensors.torch import load_file

from tissuetalk.models import registry
from tissuetalk.models.control import Control
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmentation.little import little_vlsm
from tissuetalk.models.segmentation.vlsm.card import CNNS, TRAINED
from tissuetalk.models.segmentation.vlsm.networks import (
    CNN_SETTINGS,
    NAMES,
    SETTINGS,
    Preset,
    TrainingSettings,
    Vlsm,
    build,
    loss_of,
    optimiser_of,
)
from tissuetalk.models.segmentation.vlsm.segmenter import save_vlsm
from tissuetalk.models.segmenter import RGB
from tissuetalk.models.training.loop import LOG, EpochRun, draw_curves, prepare_torch
from tissuetalk.models.training.recipes import RunRecipe
from tissuetalk.prompts.attributes import PromptId
from tissuetalk.tools.train.vlsm_data import RICHEST, DataSet, Item, divided, places_of, prompt_text
from tissuetalk.tools.train.vlsm_scores import score, through_registry


def _here_or_on_the_hub(place: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    return str((folder / place).resolve()) if folder and (folder / place).exists() else place


HubPlace = Annotated[str, AfterValidator(_here_or_on_the_hub)]
"""Hub id, folder or file; relative files start at the recipe's own folder."""


class VlsmRecipe(RunRecipe):
    """Everything that decides a run."""

    preset: Literal["vlsm"] = "vlsm"
    network: str
    """clipseg, cris, biomedclipseg, biomedclipseg-d; unet, unet++, deeplabv3+, which read no words; or, with epochs: 0, any
    text-prompted model of `tissuetalk models`."""
    test: tuple[DataSet, ...]
    """Sets to score on, each on its rows of the split test (all rows when it has none)."""
    train: tuple[DataSet, ...] = ()
    """Rows of the split val say when to stop; where a set marks none, every fifth group does."""
    prompt: Literal[PromptId, "random"] = RICHEST
    size: Literal["published", "little"] = "published"
    """little has random weights and is for trying the path on a CPU."""
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
    learning_rate: float | None = Field(default=None, gt=0)
    """Of the decoder, instead of that of the settings; trained encoders keep their share of it."""
    batch: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=0)
    """Epochs without a better validation Dice, instead of that of the settings."""
    mixed_precision: bool = False
    """On a GPU, most of the arithmetic in bfloat16."""
    wrong_attributes: bool = False
    """Also ask with one attribute made wrong at a time."""

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        trained = (*NAMES, *CNNS)
        if self.network not in trained and (self.epochs or self.network not in registry.MODELS):
            raise ValueError(
                f"network {self.network!r} cannot be trained here; choose {', '.join(trained)}, or with "
                f"epochs: 0 one of {', '.join(registry.MODELS)}"
            )
        if self.network in CNNS and self.wrong_attributes:
            raise ValueError(f"{self.network} reads no words; leave wrong_attributes out")
        if self.epochs and not self.train:
            raise ValueError("nothing to train on; give train, or epochs: 0")
        return self

    @property
    def training(self) -> TrainingSettings:
        """The settings with what the recipe says otherwise."""
        told = SETTINGS[self.settings, self.network == "cris"]
        if self.network in CNNS:
            told = CNN_SETTINGS[self.settings]
        rate = self.learning_rate or told.rate
        return replace(
            told,
            rate=rate,
            encoder_rate=rate * told.encoder_rate / told.rate,
            batch=self.batch or told.batch,
            patience=told.patience if self.patience is None else self.patience,
        )


def train(recipe: VlsmRecipe, out: Path, control: Control = Control()) -> Path:
    """Run a recipe and return ``out``: ``scores.csv``, and where asked ``wrong_attributes.csv``, the log and the weights.

    A run folder with a checkpoint is continued; what is in it afterwards can be asked for as the model ``vlsm``.
    """
    prepare_torch(recipe)
    out.mkdir(parents=True, exist_ok=True)
    if recipe.network not in (*NAMES, *CNNS):
        score(recipe, through_registry(registry.load(recipe.network)), out)
        return out
    model = _network(recipe)
    learning, checking = divided(recipe.train) if recipe.epochs else ([], [])
    if recipe.epochs:
        VlsmRun(recipe, model, learning, checking, out).go(recipe.name, control)
        draw_curves(out / LOG, out / "curves.png")
        model.network.load_state_dict(load_file(out / TRAINED))
    score(recipe, lambda item, text: model.segment(item.image(), text), out, learning, checking)
    return out


def _network(recipe: VlsmRecipe) -> Vlsm:
    name = cast(Any, recipe.network)
    if recipe.size == "little":
        return little_vlsm(name)
    return build(
        name,
        weights=recipe.weights,
        tokenizer=recipe.tokenizer,
        decoder=recipe.decoder,
        legacy_layers=recipe.legacy_layers,
    )


VlsmBatch = tuple[list[RGB], list[str], list[Mask]]
"""Pictures, what is asked about each, and the answers."""


class VlsmRun(EpochRun[VlsmBatch]):
    """Fine-tuning until validation Dice has not risen for the paper's patience; the best weights are kept."""

    def __init__(
        self, recipe: VlsmRecipe, model: Vlsm, learning: Sequence[Item], checking: Sequence[Item], out: Path
    ) -> None:
        self.recipe, self.model, self.learning, self.checking = recipe, model, learning, checking
        self.settings = recipe.training
        # a baseline's encoder knows photographs of things and has always been trained along
        model.freeze(train_encoders=recipe.train_encoders or recipe.network in CNNS)
        optimiser = optimiser_of(model, self.settings)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, "max", factor=0.1, patience=5)
        super().__init__(
            recipe,
            model.network,
            out,
            optimiser,
            epochs=recipe.epochs,
            epoch_steps=len(places_of(len(learning), self.settings.batch)),
            patience=self.settings.patience,
            clip_norm=self.settings.clip_norm,
            plateau=self.plateau,
        )

    def batch(self, step: int) -> VlsmBatch:
        epoch, number = divmod(step, self.log_every)
        order = np.random.default_rng((self.recipe.seed, 1, epoch)).permutation(len(self.learning))
        chosen = [self.learning[at] for at in order[places_of(len(order), self.settings.batch)[number]]]
        random = np.random.default_rng((self.recipe.seed, step))
        texts = [prompt_text(item, self.recipe.prompt, random) for item in chosen]
        return [item.image() for item in chosen], texts, [item.mask for item in chosen]

    def update(self, batch: VlsmBatch) -> dict[str, float]:
        half = self.recipe.mixed_precision and self.place.type == "cuda"
        with torch.autocast(self.place.type, torch.bfloat16, enabled=half):
            loss = loss_of(self.model, self.settings, *batch)
        self.descend(loss)
        return {"loss": float(loss.detach())}

    def validate(self) -> float:
        answers = (
            (self.model.segment(one.image(), prompt_text(one, self.recipe.prompt)), one.mask)
            for one in self.checking
        )
        return float(np.mean([dice(found, truth) for found, truth in answers]))

    def noted(self) -> dict[str, float]:
        noted = super().noted()
        # only the released code lowers the rate on a plateau
        if self.recipe.settings == "released":
            self.plateau.step(noted["validation_dice"])
        return noted

    def keep(self) -> None:
        known = [one.mpp * max(one.mask.shape) for one in self.learning if one.mpp is not None]
        mpp = float(np.median(known)) / self.model.side_px if known else None
        classes = sorted({one.label.object_type for one in self.learning})
        save_vlsm(self.model, self.out, mpp=mpp, classes=classes)
