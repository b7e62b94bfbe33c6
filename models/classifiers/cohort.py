"""What both ways of training on a folder of labelled slides share: gathering, splitting, scoring, and what is written down."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from tissuetalk.models.classifiers.bags import SegmentedBag
from tissuetalk.models.classifiers.card import ClassifierCard
from tissuetalk.models.classifiers.classifier import Network, store_classifier
from tissuetalk.models.classifiers.encoder import load_encoder
from tissuetalk.models.classifiers.evaluation import (
    Floats,
    Scores,
    Split,
    classification_scores,
    over_seeds,
    stratified_folds,
    stratified_split,
)
from tissuetalk.models.classifiers.objects import ObjectBag
from tissuetalk.models.classifiers.patches import TCGA, TissueRules, patch_boxes, patch_side_px
from tissuetalk.models.classifiers.recipe import CohortRecipe, Slide, read_slides
from tissuetalk.models.classifiers.training import Trained, TrainSettings, probabilities
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource, open_image
from tissuetalk.models.segmenter import Prompt, Segmenter
from tissuetalk.models.writing import write_tensors, write_whole

TISSUE_RULES = {"clam": TissueRules(), "tcga": TCGA}
Report = Callable[[str], None]
PromptOf = Callable[[str], Prompt]
"""A canonical label as a model is asked for it, in the sentence it was trained with."""
Bag = TypeVar("Bag", Tensor, ObjectBag)


@dataclass(frozen=True)
class GatheredSlides(Generic[Bag]):
    """The slides that have enough patches, with the bag of each, and the names of those that have not."""

    slides: tuple[Slide, ...]
    bags: tuple[Bag, ...]
    left_out: tuple[str, ...]

    def labels(self, rows: Sequence[int]) -> list[int]:
        return [self.slides[i].label for i in rows]

    def groups(self, rows: Sequence[int]) -> list[str]:
        return [self.slides[i].group for i in rows]


@dataclass(frozen=True)
class SeedRun(Generic[Network]):
    """One seed. final: the network to keep. parts: the network of each test part, with the slides it was tested on."""

    final: Network
    parts: tuple[tuple[Network, tuple[int, ...]], ...]
    split: Split

    @property
    def tested(self) -> list[int]:
        return [i for _, rows in self.parts for i in rows]


class CohortTraining(ABC, Generic[Bag, Network]):
    """A whole run; what the two kinds of classifier do differently is left to them.

    prompt_of: how the segmenter is asked for a label. It is handed in because models know no words.
    """

    every = 50
    """Slides between two words on how far it is."""
    done: str
    """What has been done to a slide that was read."""
    trainer: Callable[..., tuple[Network, Trained]]

    def __init__(self, recipe: CohortRecipe, out: Path, prompt_of: PromptOf, report: Report) -> None:
        self.recipe, self.out, self.report, self.prompt_of = recipe, out, report, prompt_of
        self.encoder = load_encoder(recipe.encoder)

    def run(self) -> ClassifierCard:
        """Raises InvalidArgumentError when the slides do not allow a split, naming what is short."""
        recipe, cohort = self.recipe, self.gather(read_slides(self.recipe))
        runs = [self.one_seed(cohort, seed) for seed in recipe.seeds]
        scores = self.scores(cohort, runs[0])
        areas = over_seeds([self.scores(cohort, run, resamples=1).macro_auc.value for run in runs])
        card = self.card(cohort, runs[0].final, _card_metrics(recipe, scores, areas))
        card = store_classifier(self.out / card.name, card, runs[0].final)
        split = asdict(runs[0].split).items()
        sides = {side: [cohort.slides[i].name for i in rows] for side, rows in split}
        write_json(self.out / "split.json", sides)
        metrics = {
            "test": scores.as_dict(),
            "macro_auc_over_seeds": {"mean": areas[0], "std": areas[1], "seeds": list(recipe.seeds)},
            "slides": len(cohort.slides),
            "tested": len(runs[0].tested),
            "left_out": list(cohort.left_out),
        }
        write_json(self.out / "metrics.json", metrics)
        told = f"macro AUC {scores.macro_auc}, accuracy {scores.macro_accuracy}, F1 {scores.macro_f1}"
        self.report(f"{card.name}: {told}")
        self.write_evidence(cohort, runs[0], card)
        return card

    def gather(self, slides: Sequence[Slide]) -> GatheredSlides[Bag]:
        """Read every slide; what is stored already is not computed again."""
        taken: list[tuple[Slide, Bag]] = []
        left_out = []
        for number, slide in enumerate(slides, start=1):
            with open_image(slide.path, name=slide.path.name) as source:
                bag = self.read(source)
            if bag is None:
                left_out.append(slide.name)
            else:
                taken.append((slide, bag))
            if number % self.every == 0 or number == len(slides):
                self.report(f"{number} of {len(slides)} slides {self.done}")
        if not taken:
            least = self.recipe.least_patches
            raise InvalidArgumentError(f"no slide has {least} patches of tissue; lower `least_patches`.")
        return GatheredSlides(
            tuple(slide for slide, _ in taken), tuple(bag for _, bag in taken), tuple(left_out)
        )

    def one_seed(self, cohort: GatheredSlides[Bag], seed: int) -> SeedRun[Network]:
        everything = range(len(cohort.slides))
        labels, groups = cohort.labels(everything), cohort.groups(everything)
        if not self.recipe.folds:
            split = stratified_split(labels, groups, seed=seed)
            model = self.fitted(cohort, split.train, split.validation, seed)
            return SeedRun(model, ((model, split.test),), split)
        folds = stratified_folds(labels, groups, folds=self.recipe.folds, seed=seed)
        parts = [(self.fitted(cohort, sorted(set(everything) - set(test)), (), seed), test) for test in folds]
        # scores come from the networks of the folds; the one that is kept learns from every slide
        final = self.fitted(cohort, everything, (), seed)
        return SeedRun(final, tuple(parts), Split(tuple(everything), (), tuple(i for t in folds for i in t)))

    def fitted(
        self, cohort: GatheredSlides[Bag], train: Sequence[int], validation: Sequence[int], seed: int
    ) -> Network:
        recipe = self.recipe
        settings = TrainSettings(
            classes=len(recipe.classes),
            seed=seed,
            epochs=recipe.epochs,
            hidden=recipe.hidden,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            balanced=recipe.balanced,
            patience=recipe.patience,
            earliest=recipe.earliest,
            gated=recipe.gated,
            dropout=recipe.dropout,
            pre_fc=recipe.pre_fc,
        )
        held = [(cohort.bags[i], cohort.slides[i].label) for i in validation]
        model, _ = self.trainer([cohort.bags[i] for i in train], cohort.labels(train), settings, held)
        return model

    def shares(self, cohort: GatheredSlides[Bag], run: SeedRun[Network]) -> Floats:
        """[T, C] probabilities of the tested slides."""
        parts = [probabilities(model, [cohort.bags[i] for i in rows]) for model, rows in run.parts]
        return np.concatenate(parts)

    def scores(self, cohort: GatheredSlides[Bag], run: SeedRun[Network], *, resamples: int = 1000) -> Scores:
        labels, groups = cohort.labels(run.tested), cohort.groups(run.tested)
        return classification_scores(self.shares(cohort, run), labels, groups, resamples=resamples)

    def boxes(self, source: ImageSource) -> list[Box] | None:
        """Patches of one slide by the recipe's rules; None where there are too few."""
        recipe = self.recipe
        side = patch_side_px(source.mpp or recipe.mpp, patch_um=recipe.patch_um, patch_px=recipe.patch_px)
        boxes = patch_boxes(source, side_px=side, rules=TISSUE_RULES[recipe.tissue])
        return boxes if len(boxes) >= recipe.least_patches else None

    def segmented(self, source: ImageSource, segmenter: Segmenter, labels: Sequence[str]) -> SegmentedBag:
        """The slide's patches with the objects of the recipe in them."""
        return SegmentedBag(
            source,
            self.boxes(source) or [],
            segmenter=segmenter,
            prompts={label: self.prompt_of(label) for label in labels},
            mpp=source.mpp or self.recipe.mpp,
            patch_um=self.recipe.patch_um,
        )

    def known_objects(self, segmenter: Segmenter, consequence: str) -> tuple[list[str], list[str]]:
        """(objects of the recipe that the segmenter was made for, the others). Says so where there are others."""
        able = {
            label: segmenter.capability(self.prompt_of(label)) is not None for label in self.recipe.objects
        }
        known, unknown = ([label for label in able if able[label] is wanted] for wanted in (True, False))
        if unknown:
            self.report(f"{segmenter.card.name} was never made for, so {consequence}: {', '.join(unknown)}")
        return known, unknown

    def card(self, cohort: GatheredSlides[Bag], model: Network, metrics: Mapping[str, str]) -> ClassifierCard:
        recipe, own = self.recipe, {"name", "feature", "objects", "summary"}
        told: dict[str, Any] = {"kind": "attention", **recipe.model_dump(include=own), **self.card_entries()}
        size = f"{len(cohort.slides)} images of {len({slide.group for slide in cohort.slides})} patients"
        return ClassifierCard(
            **told,
            classes=tuple(recipe.classes),
            encoder=self.encoder.name,
            encoder_sha256=self.encoder.weights_sha256,
            sizes={},
            patch_um=recipe.patch_um,
            patch_px=recipe.patch_px,
            training=f"{recipe.training} {self.trained_on(size)}".strip(),
            licence=recipe.licence,
            limits=recipe.limits,
            metrics=metrics,
        )

    def card_entries(self) -> dict[str, Any]:
        """What the card of this kind says otherwise."""
        return {}

    @abstractmethod
    def trained_on(self, size: str) -> str:
        """One sentence of the card."""

    @abstractmethod
    def read(self, source: ImageSource) -> Bag | None:
        """What the classifier reads of one slide; None where there are too few patches."""

    @abstractmethod
    def write_evidence(
        self, cohort: GatheredSlides[Bag], run: SeedRun[Network], card: ClassifierCard
    ) -> None:
        """The files that only this kind of classifier has."""


def stored_tensors(path: Path, make: Callable[[], dict[str, Tensor] | None]) -> dict[str, Tensor] | None:
    """What the file holds, or what is made and then written to it."""
    if path.is_file():
        return load_file(path)
    tensors = make()
    if tensors is not None:
        write_tensors(path, tensors)
    return tensors


def _card_metrics(recipe: CohortRecipe, scores: Scores, areas: tuple[float, float]) -> dict[str, str]:
    """Scores as a classifier's card tells them. areas: mean and standard deviation of the macro AUC over seeds."""
    how = f"cross-validation in {recipe.folds} parts" if recipe.folds else "test slides of a 7:1:2 split"
    return {
        "measured on": f"{how}, whole patients; 95 % interval over {scores.units} patients",
        "macro AUC": str(scores.macro_auc),
        "macro accuracy": str(scores.macro_accuracy),
        "macro F1": str(scores.macro_f1),
        f"macro AUC over {len(recipe.seeds)} seeds": f"{areas[0]:.3f} ± {areas[1]:.3f}",
    }


def write_json(path: Path, content: object) -> None:
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
