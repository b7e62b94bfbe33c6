"""Score a weight file on the groups it never saw (``python -m benchmarks report`` writes it all down).

Goes through the same Segmenter as every user, one image at a time at the target's own scale, and compares at the scale
the annotation has.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.datasets.example import (
    BACKGROUND,
    FOREGROUND,
    UNKNOWN,
    Example,
    Labelled,
    from_instances,
)
from tissuetalk.models.datasets.manifest import Record, read_manifest, read_mask, read_rgb
from tissuetalk.models.datasets.sources import SOURCES, folder_of, load
from tissuetalk.models.datasets.wordings import LEVELS, wordings
from tissuetalk.models.metrics.scores import MaskScores, dice, mask_scores, object_scores
from tissuetalk.models.metrics.statistics import bootstrap
from tissuetalk.models.segmentation.pathsegmentor.card import OBJECT_TARGETS, OFFERED_TARGETS
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.training.ablation import Viewer, ask

T = TypeVar("T")


class EvaluationSet(NamedTuple):
    """A set nothing here may train on. mpp: where the manifest gives none. there, known: values of an index mask that are
    the target, and that say anything; None for a mask of the target alone."""

    target: str
    mpp: float
    there: tuple[int, ...] | None = None
    known: tuple[int, ...] = ()


EVALUATION_ONLY: Mapping[str, EvaluationSet] = {
    "glas": EvaluationSet("gland", 0.62),
    "kumar-multiorgan": EvaluationSet("nuclei", 0.25),
    "gbm-nuclei": EvaluationSet("nuclei", 0.25),
    "wsss4luad": EvaluationSet("tumour", 1.0, (1,), (1, 2, 3)),
    "gleason-glands": EvaluationSet("tumour", 0.5, (1, 2, 3), (1, 2, 3, 4, 5)),
}
SAME_CASE = frozenset(
    {
        "puma-melanoma-sample",
        "bcss-breast-tumour",
        "camelyon-node-tumour",
        "ocdc-oral-tumour",
        "patch-mosaics",
    }
)
"""Their held-out parts share the case, or the patch's source, with what was trained on: no test of a new patient."""
LEAST_KNOWN = 0.9
"""Images of which less than this share is annotated for a target are not scored for it."""
LEAST_JUDGED = 0.5
"""The same for single masks that are judged where something is known, as of tissue of which only some kinds are labelled."""
LOOKED_AT = 6
"""Images of a set on which one look is compared with several."""
COARSE = frozenset({"patch-mosaics", "midog-mitosis", "adipose-gtex"})
"""Put together or labelled by the tile: good to learn from, no test of an outline."""


@dataclass(frozen=True)
class TargetScore:
    """One image and target. group: patient, slide or field. pq: panoptic quality at IoU 0.5, None for regions and merged masks."""

    dataset: str
    target: str
    name: str
    mask: MaskScores
    pq: float | None
    group: str = ""


def evaluation_only(
    root: Path, most: int | None = None, sets: Mapping[str, EvaluationSet] = EVALUATION_ONLY
) -> Iterator[Example]:
    """The sets nothing here may train on; at most ``most`` images of each, spread over the set."""
    for dataset, told in sets.items():
        folder = root / "eval-only-nc" / dataset
        records = read_manifest(folder) if folder.is_dir() else []
        for record in spread_over(records, most):
            labelled = _labelled(record, told)
            yield Example(
                dataset,
                record.image.name,
                record.group,
                True,
                read_rgb(record.image),
                record.mpp or told.mpp,
                True,
                {told.target: labelled},
            )


def of_weights(name: str, about: str | None) -> argparse.ArgumentParser:
    """For an experiment on a weight file and the data sets."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=about)
    parser.add_argument("weights", type=Path, help="a weight file of the mini preset")
    parser.add_argument("data", type=Path, help="folder with the data sets")
    return parser


def spread_over(found: Sequence[T], most: int | None) -> Sequence[T]:
    """At most so many, evenly from all over; None for all."""
    return found[:: 1 if most is None else max(1, -(-len(found) // most))]


def _labelled(record: Record, told: EvaluationSet) -> Labelled:
    mask = read_mask(record)
    if told.there is not None:
        label = np.where(np.isin(mask, told.there), FOREGROUND, BACKGROUND).astype(np.uint8)
        label[~np.isin(mask, told.known)] = UNKNOWN
        return Labelled(label)
    parted = record.kind == "instance"
    instances = mask if parted else np.asarray(ndimage.label(mask > 0)[0], np.int32)
    return from_instances(instances, parted=parted)


def score(
    model: MiniSegmenter, example: Example, target: str, labelled: Labelled, looks: int | None = None
) -> TargetScore:
    """One prompt on one image, where the annotation is known."""
    viewer = Viewer(model, example, target, looks)
    answer = viewer.answer(ask(target))
    instances = None if answer.instances is None else viewer.at_image_size(answer.instances)
    return judged(example, target, labelled, viewer.at_image_size(answer.mask) > 0, instances)


def judged(
    example: Example, target: str, labelled: Labelled, mask: NDArray[np.bool_], instances: NDArray[Any] | None
) -> TargetScore:
    """What was found on one image, at its own size, against the annotation. instances: None for a region."""
    known = labelled.label != UNKNOWN
    truth = (labelled.label == FOREGROUND) & known
    quality = None
    if target in OBJECT_TARGETS and instances is not None and labelled.distance is not None:
        truths = ndimage.label(truth)[0] if labelled.objects is None else labelled.objects
        quality = object_scores(instances.astype(np.int32), np.asarray(truths, np.int32)).pq
    return TargetScore(
        example.dataset, target, example.name, mask_scores(mask & known, truth), quality, example.group
    )


def held_out(root: Path, most: int | None = None) -> Iterator[Example]:
    """Held-out examples that say anything about an offered target, set by set, and the sets for evaluation only.

    most: of a set, spread over it; None for all.
    """
    for dataset in SOURCES:
        if folder_of(root, dataset).is_dir() and dataset not in COARSE:
            own = [example for example in load(root, dataset) if example.held_out]
            own = [each for each in own if set(OFFERED_TARGETS) & ({*each.targets} | {*each.absent})]
            yield from spread_over(own, most)
    yield from evaluation_only(root, most)


def is_judged(example: Example, target: str) -> bool:
    """Whether a mask of the target can be scored on the image: outlined there, and mostly known."""
    labelled = example.targets[target]
    if target not in OFFERED_TARGETS or labelled.present is not None or example.dataset in COARSE:
        return False
    if example.dataset == "brecahad-typed-nuclei" and target == "tumour":  # drawn around boxes
        return False
    return float((labelled.label != UNKNOWN).mean()) >= LEAST_JUDGED and FOREGROUND in labelled.label


def validate(model: MiniSegmenter, examples: list[Example]) -> list[TargetScore]:
    """Scores of every held-out image for every target that is annotated on it."""
    scores: list[TargetScore] = []
    for example in examples:
        for target, labelled in example.targets.items():
            partial = (example.dataset, target) == ("brecahad-typed-nuclei", "nuclei")
            if partial or is_judged(example, target):
                scores.append(score(model, example, target, labelled))
    return scores


def by_name_and_target(examples: Sequence[Example]) -> dict[tuple[str, str, str], Example]:
    """One file may be there at two scales, each with targets of its own."""
    return {
        (example.dataset, example.name, target): example for example in examples for target in example.targets
    }


def looked_at_once(
    model: MiniSegmenter, scores: list[TargetScore], examples: list[Example]
) -> dict[str, Any]:
    """Mean Dice of one look beside the mean of all, for targets that are looked at from several sides."""
    by_name = by_name_and_target(examples)
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for entry in scores:
        key, example = f"{entry.dataset}/{entry.target}", by_name[entry.dataset, entry.name, entry.target]
        capability = model.capability(ask(entry.target))
        if capability is not None and capability.looks > 1 and len(groups[key]) < LOOKED_AT:
            once = score(model, example, entry.target, example.targets[entry.target], looks=1)
            groups[key].append((once.mask.dice, entry.mask.dice))
    return {
        key: {
            "images": len(pairs),
            **dict(zip(("one", "all"), np.mean(pairs, axis=0).round(4).tolist(), strict=True)),
        }
        for key, pairs in groups.items()
        if pairs
    }


def spread(
    model: MiniSegmenter, examples: list[Example], target: str, *, each_level: int = 3
) -> dict[str, float]:
    """How far unseen wordings move Dice: per-level means and the standard deviation over all of them."""
    bank = wordings(target, part="test")
    rng = np.random.default_rng(3)
    asked = {
        level: [
            str(text)
            for text in rng.choice([w.text for w in bank if w.level == level], each_level, replace=False)
        ]
        for level in LEVELS
    }
    values: dict[str, list[float]] = defaultdict(list)
    for example in examples:
        viewer = Viewer(model, example, target)
        truth = example.targets[target].label == FOREGROUND
        for texts in asked.values():
            for text in texts:
                answer = viewer.answer(ask(target, text))
                values[text].append(dice(viewer.at_image_size(answer.mask) > 0, truth))
    means = {text: float(np.mean(each)) for text, each in values.items()}
    levels: dict[str, float] = {
        str(level): float(np.mean([means[text] for text in texts])) for level, texts in asked.items()
    }
    return {**levels, "std": float(np.std(list(means.values())))}


def summary(scores: list[TargetScore]) -> dict[str, dict[str, Any]]:
    """Mean Dice with its interval, precision, recall and PQ for every data set and target."""
    groups: dict[str, list[TargetScore]] = defaultdict(list)
    for entry in scores:
        groups[f"{entry.dataset}/{entry.target}"].append(entry)
    table = {}
    for name, entries in groups.items():
        patients = [entry.group for entry in entries]
        whole = bootstrap([entry.mask.dice for entry in entries], patients)
        low, high = whole.low, whole.high
        qualities = [entry.pq for entry in entries if entry.pq is not None]
        table[name] = {
            "images": len(entries),
            "groups": len(set(patients)),
            "new_patients": entries[0].dataset not in SAME_CASE,
            "dice": round(whole.mean, 4),
            # One group shows no spread: both limits are the mean.
            "dice_95": [round(whole.mean if limit is None else limit, 4) for limit in (low, high)],
            "precision": round(float(np.mean([entry.mask.precision for entry in entries])), 4),
            "recall": round(float(np.mean([entry.mask.recall for entry in entries])), 4),
            "pq": round(float(np.mean(qualities)), 4) if qualities else None,
        }
    return table
