"""Train a slide classifier on a folder of labelled slides: ``tissuetalk train RECIPE.yaml --out DIR``.

Writes ``NAME.safetensors`` and ``NAME.json`` (the classifier), ``split.json``, ``metrics.json``, ``predictions.csv`` and, with
objects in the recipe, ``importance.json``. Features are kept in ``DIR/features``, so that a run that stopped goes on from there.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from tissuetalk.models import registry
from tissuetalk.models.classifiers.classifier import Classifier, sizes_of, store_classifier
from tissuetalk.models.classifiers.classifier_file import ClassifierCard
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
from tissuetalk.models.classifiers.cohort_recipe import (
    TISSUE_RULES,
    CohortRecipe,
    Slide,
    read_cohort_recipe,
    read_slides,
)
from tissuetalk.models.classifiers.importance import BagImportance, bag_importance, by_class
from tissuetalk.models.classifiers.metrics import Floats, Scores, classification_scores, over_seeds
from tissuetalk.models.classifiers.mil import AttentionMIL
from tissuetalk.models.classifiers.patch_bag import SourceBag
from tissuetalk.models.classifiers.patch_encoder import PatchEncoder, encode_bag, load_encoder
from tissuetalk.models.classifiers.patches import patch_boxes, patch_side_px
from tissuetalk.models.classifiers.segmented_bag import SegmentedBag, prompt_for
from tissuetalk.models.classifiers.splits import Split, stratified_folds, stratified_split
from tissuetalk.models.classifiers.train_mil import probabilities, train_attention
from tissuetalk.models.images import Box, ImageSource, open_image


@dataclass(frozen=True)
class Outcome:
    """scores: of the first seed. seed_auc: mean and standard deviation of the macro AUC over seeds. tested: index, probabilities."""

    card: ClassifierCard
    scores: Scores
    seed_auc: tuple[float, float]
    tested: int


def train_cohort(recipe: CohortRecipe, out: Path, *, report: Report = print) -> Outcome:
    """The whole run. Raises InvalidArgumentError when the slides do not allow a split, naming what is short."""
    out.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(recipe.encoder)
    encoded = encode_cohort(recipe, read_slides(recipe), encoder, out / "features", report=report)
    runs = [_run(recipe, encoded, seed) for seed in recipe.seeds]
    model, split, tested, shares = runs[0]
    scores = _scores(encoded, tested, shares)
    areas = over_seeds(
        [_scores(encoded, rows, found, resamples=1).macro_auc.value for _, _, rows, found in runs]
    )
    card = store_classifier(out / recipe.name, _card(recipe, encoder, model, encoded, scores, areas), model)
    write_json(out / "split.json", _named(split, encoded))
    _write_predictions(out / "predictions.csv", recipe, encoded, tested, shares)
    write_metrics(out, recipe, encoded, scores, areas, tested=len(tested))
    report(score_line(recipe.name, scores))
    if recipe.objects:
        rows = [*split.validation, *split.test] if not recipe.folds else tested
        found, unknown = _importances(
            recipe, Classifier(card, model, encoder), [encoded.slides[i] for i in rows], report
        )
        write_json(
            out / "importance.json", importance_table(found, card.classes) | {"not_looked_for": unknown}
        )
    return Outcome(card, scores, areas, len(tested))


def boxes_of(recipe: CohortRecipe, source: ImageSource) -> list[Box]:
    """Patches of one slide by the recipe's rules."""
    side = patch_side_px(source.mpp or recipe.mpp, patch_um=recipe.patch_um, patch_px=recipe.patch_px)
    return patch_boxes(source, side_px=side, rules=TISSUE_RULES[recipe.tissue])


def encode_cohort(
    recipe: CohortRecipe, slides: Sequence[Slide], encoder: PatchEncoder, store: Path, *, report: Report
) -> Gathered[Tensor]:
    """Patch vectors of every slide; what is stored already is not computed again."""
    store.mkdir(parents=True, exist_ok=True)
    return gather(
        slides,
        lambda slide: _encoded(recipe, slide, encoder, store),
        least_patches=recipe.least_patches,
        done="encoded",
        every=50,
        report=report,
    )


def _encoded(recipe: CohortRecipe, slide: Slide, encoder: PatchEncoder, store: Path) -> Tensor | None:
    """None for a slide with too few patches."""
    with open_image(slide.path, name=slide.path.name) as source:
        rule = f"{recipe.tissue}-{recipe.patch_um}-{recipe.patch_px}-{recipe.mpp}-{recipe.feature}"
        key = f"{source.sha256[:24]}-{encoder.weights_sha256[:12]}-{rule}"
        path = store / f"{key}.safetensors"
        if path.is_file():
            vectors = load_file(path)["vectors"]
            return vectors if len(vectors) >= recipe.least_patches else None
        boxes = boxes_of(recipe, source)
        if len(boxes) < recipe.least_patches:
            return None
        vectors = encode_bag(encoder, SourceBag(source, boxes), recipe.feature)
        partial = path.with_suffix(".partial")
        save_file({"vectors": vectors.contiguous()}, partial)
        partial.replace(path)
        return vectors


def _run(
    recipe: CohortRecipe, encoded: Gathered[Tensor], seed: int
) -> tuple[AttentionMIL, Split, list[int], Floats]:
    """(classifier, split, tested slides, their probabilities [N, C]) of one seed."""
    if not recipe.folds:
        split = stratified_split(encoded.labels, encoded.groups, seed=seed)
        model = _train(recipe, encoded, split.train, split.validation, seed)
        tested = list(split.test)
        return model, split, tested, probabilities(model, [encoded.bags[i] for i in tested])
    everything = set(range(len(encoded.slides)))
    tested, shares = [], []
    for test in stratified_folds(encoded.labels, encoded.groups, folds=recipe.folds, seed=seed):
        model = _train(recipe, encoded, sorted(everything - set(test)), (), seed)
        tested += test
        shares.append(probabilities(model, [encoded.bags[i] for i in test]))
    final = _train(recipe, encoded, sorted(everything), (), seed)
    return final, Split(tuple(sorted(everything)), (), tuple(tested)), tested, np.concatenate(shares)


def _train(
    recipe: CohortRecipe,
    encoded: Gathered[Tensor],
    train: Sequence[int],
    validation: Sequence[int],
    seed: int,
) -> AttentionMIL:
    model, _ = train_attention(
        [encoded.bags[i] for i in train],
        [encoded.slides[i].label for i in train],
        classes=len(recipe.classes),
        validation=[(encoded.bags[i], encoded.slides[i].label) for i in validation],
        settings=settings_of(recipe, seed),
    )
    return model


def _scores(
    encoded: Gathered[Tensor], tested: Sequence[int], shares: Floats, *, resamples: int = 1000
) -> Scores:
    labels, groups = [encoded.labels[i] for i in tested], [encoded.groups[i] for i in tested]
    return classification_scores(shares, labels, groups, resamples=resamples)


def _card(
    recipe: CohortRecipe,
    encoder: PatchEncoder,
    model: AttentionMIL,
    encoded: Gathered[Tensor],
    scores: Scores,
    areas: tuple[float, float],
) -> ClassifierCard:
    return ClassifierCard(
        name=recipe.name,
        kind="attention",
        classes=tuple(recipe.classes),
        encoder=encoder.name,
        encoder_sha256=encoder.weights_sha256,
        feature=recipe.feature,
        sizes=sizes_of(model),
        objects=recipe.objects,
        patch_um=recipe.patch_um,
        patch_px=recipe.patch_px,
        summary=recipe.summary,
        training=f"{recipe.training} {_cohort(recipe, encoded)}".strip(),
        licence=recipe.licence,
        limits=recipe.limits,
        metrics=card_metrics(recipe, scores, areas),
    )


def _cohort(recipe: CohortRecipe, encoded: Gathered[Tensor]) -> str:
    share = "all" if recipe.folds else "seven in ten"
    return f"A cohort of {len(encoded.slides)} images of {len(set(encoded.groups))} patients, {share} of them to train on."


def _importances(
    recipe: CohortRecipe, classifier: Classifier, slides: Sequence[Slide], report: Report
) -> tuple[list[BagImportance], list[str]]:
    """(importance on every slide, the objects of the recipe that the segmenter was never made for)."""
    segmenter = registry.load(recipe.segmenter)
    unknown = [label for label in recipe.objects if segmenter.capability(prompt_for(label)) is None]
    labels = [label for label in recipe.objects if label not in unknown]
    if unknown:
        report(f"{segmenter.card.name} was never made for, so importance leaves out: {', '.join(unknown)}")
    found = []
    for number, slide in enumerate(slides if labels else (), start=1):
        with open_image(slide.path, name=slide.path.name) as source:
            mpp = source.mpp or recipe.mpp
            bag = SegmentedBag(
                source,
                boxes_of(recipe, source),
                segmenter=segmenter,
                labels=labels,
                mpp=mpp,
                patch_um=recipe.patch_um,
            )
            found.append(
                bag_importance(
                    classifier, bag, label=slide.label, sigma_px=recipe.sigma_px, draws=recipe.draws
                )
            )
        report(f"importance on {number} of {len(slides)} slides")
    return found, unknown


def importance_table(found: Sequence[BagImportance], classes: Sequence[str]) -> dict[str, object]:
    """Object by class with all three aggregates, the control and the sigma, ready for JSON."""
    rows = [
        asdict(row) | {"class": "all" if row.label is None else classes[row.label]} for row in by_class(found)
    ]
    return {
        "sigma_px_of_0.25_um": found[0].sigma_px if found else None,
        "slides": len(found),
        "objects": rows,
    }


def _named(split: Split, encoded: Gathered[Tensor]) -> dict[str, list[str]]:
    return {side: [encoded.slides[i].name for i in rows] for side, rows in asdict(split).items()}


def _write_predictions(
    path: Path, recipe: CohortRecipe, encoded: Gathered[Tensor], tested: Sequence[int], shares: Floats
) -> None:
    names = list(recipe.classes)
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["slide", "patient", "class", *names])
        for row, i in enumerate(tested):
            slide = encoded.slides[i]
            writer.writerow(
                [slide.name, slide.group, names[slide.label], *(f"{share:.4f}" for share in shares[row])]
            )


def train(path: Path, values: Mapping[str, object], out: Path) -> Path:
    """What ``tissuetalk train`` calls for a recipe of the preset ``diagnosis``."""
    train_cohort(read_cohort_recipe(path), out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tissuetalk.models.classifiers.cohort", description=__doc__
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args(arguments)
    train_cohort(read_cohort_recipe(told.recipe), told.out)


if __name__ == "__main__":
    main()
