"""Train an object-aware classifier on labelled slides: ``tissuetalk train RECIPE.yaml --out DIR``.

The recipes are those of ``cohort`` with the preset ``diagnosis-objects``; their ``objects`` are segmented in every patch. Writes ``NAME-objects.safetensors`` and ``.json``
(the classifier), ``metrics.json``, ``split.json`` and ``objects.json`` (what each object adds to each class on tested slides).
Pooled features are kept in ``DIR/objects``, so that a run that stopped goes on from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tissuetalk.models import registry
from tissuetalk.models.classifiers.activation_maps import object_map
from tissuetalk.models.classifiers.classifier_file import ClassifierCard
from tissuetalk.models.classifiers.cohort import boxes_of
from tissuetalk.models.classifiers.cohort_parts import (
    Gathered,
    Report,
    card_metrics,
    gather,
    score_line,
    settings_of,
    write_json,
    write_metrics,
)
from tissuetalk.models.classifiers.cohort_recipe import CohortRecipe, Slide, read_cohort_recipe, read_slides
from tissuetalk.models.classifiers.metrics import Floats, Scores, classification_scores, over_seeds
from tissuetalk.models.classifiers.object_aware import ObjectAwareModel
from tissuetalk.models.classifiers.object_classifier import store_object_classifier, train_objects
from tissuetalk.models.classifiers.object_lists import with_other
from tissuetalk.models.classifiers.object_pooling import ObjectBag, read_objects
from tissuetalk.models.classifiers.patch_encoder import PatchEncoder, load_encoder
from tissuetalk.models.classifiers.segmented_bag import SegmentedBag, prompt_for
from tissuetalk.models.classifiers.splits import stratified_folds, stratified_split
from tissuetalk.models.classifiers.train_mil import probabilities
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import open_image
from tissuetalk.models.segmenter import Segmenter


@dataclass(frozen=True)
class Run:
    """One seed. models: one per test part, with the slides it was tested on. final: the classifier to keep."""

    final: ObjectAwareModel
    models: tuple[tuple[ObjectAwareModel, tuple[int, ...]], ...]

    @property
    def tested(self) -> list[int]:
        return [i for _, rows in self.models for i in rows]

    def shares(self, bags: Sequence[ObjectBag]) -> Floats:
        """[T, C] probabilities of the tested slides."""
        return np.concatenate([probabilities(model, [bags[i] for i in rows]) for model, rows in self.models])


def train_object_cohort(recipe: CohortRecipe, out: Path, *, report: Report = print) -> ClassifierCard:
    """The whole run. Raises InvalidArgumentError for a recipe without objects that the segmenter knows, or too few slides."""
    segmenter, encoder = registry.load(recipe.segmenter), load_encoder(recipe.encoder)
    known = [label for label in recipe.objects if segmenter.capability(prompt_for(label)) is not None]
    unknown = [label for label in recipe.objects if label not in known]
    if not known:
        raise InvalidArgumentError(
            f"{segmenter.card.name} knows none of the recipe's objects ({', '.join(unknown) or 'it names none'}); "
            "list canonical labels under `objects`, or name another `segmenter`."
        )
    if unknown:
        report(f"{segmenter.card.name} was never made for, so these count as other: {', '.join(unknown)}")
    pooled = pool_cohort(
        recipe, read_slides(recipe), encoder, segmenter, known, out / "objects", report=report
    )
    runs = [_run(recipe, pooled, seed) for seed in recipe.seeds]
    scores = _scores(pooled, runs[0])
    areas = over_seeds([_scores(pooled, run, resamples=1).macro_auc.value for run in runs])
    card = _card(recipe, encoder, segmenter, known, pooled, scores, areas)
    card = store_object_classifier(out / card.name, card, runs[0].final)
    write_json(out / "split.json", {"test": [pooled.slides[i].name for i in runs[0].tested]})
    write_metrics(out, recipe, pooled, scores, areas, tested=len(runs[0].tested))
    write_json(
        out / "objects.json",
        {"objects": shares_by_class(runs[0], pooled, card.classes), "not_looked_for": unknown},
    )
    report(score_line(card.name, scores))
    return card


def pool_cohort(
    recipe: CohortRecipe,
    slides: Sequence[Slide],
    encoder: PatchEncoder,
    segmenter: Segmenter,
    labels: Sequence[str],
    store: Path,
    *,
    report: Report,
) -> Gathered[ObjectBag]:
    """Segment and pool every slide; what is stored already is not computed again."""
    store.mkdir(parents=True, exist_ok=True)
    return gather(
        slides,
        lambda slide: _pooled(recipe, slide, encoder, segmenter, labels, store),
        least_patches=recipe.least_patches,
        done="segmented and pooled",
        every=20,
        report=report,
    )


def _pooled(
    recipe: CohortRecipe,
    slide: Slide,
    encoder: PatchEncoder,
    segmenter: Segmenter,
    labels: Sequence[str],
    store: Path,
) -> ObjectBag | None:
    """None for a slide with too few patches."""
    objects = with_other(labels)
    with open_image(slide.path, name=slide.path.name) as source:
        rule = f"{recipe.tissue}-{recipe.patch_um}-{recipe.patch_px}-{recipe.mpp}-{'/'.join(objects)}"
        key = f"{source.sha256}-{encoder.weights_sha256}-{segmenter.weights_sha256}-{rule}"
        path = store / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
        if path.is_file():
            found = load_file(path)
            return ObjectBag(objects, found["features"].numpy(), found["coverage"].numpy())
        boxes = boxes_of(recipe, source)
        if len(boxes) < recipe.least_patches:
            return None
        mpp = source.mpp or recipe.mpp
        patches = SegmentedBag(source, boxes, segmenter=segmenter, labels=labels, mpp=mpp)
        bag = read_objects(encoder, patches, objects)
    partial = path.with_suffix(".partial")
    tensors = {"features": torch.from_numpy(bag.features), "coverage": torch.from_numpy(bag.coverage)}
    save_file(tensors, partial)
    partial.replace(path)
    return bag


def _run(recipe: CohortRecipe, pooled: Gathered[ObjectBag], seed: int) -> Run:
    if not recipe.folds:
        split = stratified_split(pooled.labels, pooled.groups, seed=seed)
        model = _train(recipe, pooled, split.train, split.validation, seed)
        return Run(model, ((model, split.test),))
    everything = set(range(len(pooled.slides)))
    parts = []
    for test in stratified_folds(pooled.labels, pooled.groups, folds=recipe.folds, seed=seed):
        parts.append((_train(recipe, pooled, sorted(everything - set(test)), (), seed), test))
    return Run(_train(recipe, pooled, sorted(everything), (), seed), tuple(parts))


def _train(
    recipe: CohortRecipe,
    pooled: Gathered[ObjectBag],
    train: Sequence[int],
    validation: Sequence[int],
    seed: int,
) -> ObjectAwareModel:
    model, _ = train_objects(
        [pooled.bags[i] for i in train],
        [pooled.slides[i].label for i in train],
        classes=len(recipe.classes),
        validation=[(pooled.bags[i], pooled.slides[i].label) for i in validation],
        settings=settings_of(recipe, seed),
    )
    return model


def _scores(pooled: Gathered[ObjectBag], run: Run, *, resamples: int = 1000) -> Scores:
    rows = run.tested
    return classification_scores(
        run.shares(pooled.bags),
        [pooled.labels[i] for i in rows],
        [pooled.groups[i] for i in rows],
        resamples=resamples,
    )


def shares_by_class(run: Run, pooled: Gathered[ObjectBag], classes: Sequence[str]) -> list[dict[str, object]]:
    """For every class: objects by their mean activation for it, on the tested slides that are of it."""
    values: dict[tuple[int, str], list[tuple[float, float, int]]] = {}
    for model, rows in run.models:
        for i in rows:
            label = pooled.slides[i].label
            for share in object_map(model, pooled.bags[i], label).ranking:
                if share.patches:
                    row = (share.activation, share.area_fraction, share.rank)
                    values.setdefault((label, share.name), []).append(row)
    table: list[dict[str, object]] = []
    for (label, name), found in sorted(
        values.items(), key=lambda entry: (entry[0][0], -float(np.mean([row[0] for row in entry[1]])))
    ):
        activation, area, rank = np.mean(found, axis=0).tolist()
        table.append(
            {
                "class": classes[label],
                "name": name,
                "mean_activation": activation,
                "mean_rank": rank,
                "mean_area_fraction": area,
                "slides": len(found),
            }
        )
    return table


def _card(
    recipe: CohortRecipe,
    encoder: PatchEncoder,
    segmenter: Segmenter,
    labels: Sequence[str],
    pooled: Gathered[ObjectBag],
    scores: Scores,
    areas: tuple[float, float],
) -> ClassifierCard:
    who = f"Objects segmented by {segmenter.card.name} ({segmenter.weights_sha256[:12]})."
    size = f"{len(pooled.slides)} images of {len(set(pooled.groups))} patients."
    return ClassifierCard(
        name=f"{recipe.name}-objects",
        kind="object-aware",
        classes=tuple(recipe.classes),
        encoder=encoder.name,
        encoder_sha256=encoder.weights_sha256,
        feature="tokens",
        sizes={},
        objects=tuple(labels),
        patch_um=recipe.patch_um,
        patch_px=recipe.patch_px,
        summary=f"{recipe.summary} Object-aware: tells what each object adds.".strip(),
        training=f"{recipe.training} {size} {who}".strip(),
        licence=recipe.licence,
        limits=recipe.limits,
        metrics=card_metrics(recipe, scores, areas),
    )


def train(path: Path, values: Mapping[str, object], out: Path) -> Path:
    """What ``tissuetalk train`` calls for a recipe of the preset ``diagnosis-objects``."""
    train_object_cohort(read_cohort_recipe(path), out)
    return out
