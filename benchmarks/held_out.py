"""Score a weight file on the groups it never saw (``python -m benchmarks report`` writes it all down).

Goes through the same Segmenter as every user, one image at a time at the target's own scale, and compares at the scale
the annotation has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from tissuetalk.models.datasets.example import FOREGROUND, UNKNOWN, Example, Labelled, from_instances
from tissuetalk.models.datasets.manifest import read_manifest, read_mask, read_rgb
from tissuetalk.models.datasets.sources import SOURCES, load
from tissuetalk.models.datasets.wordings import LEVELS, wordings
from tissuetalk.models.metrics.scores import MaskScores, dice, mask_scores, object_scores
from tissuetalk.models.metrics.statistics import bootstrap
from tissuetalk.models.segmentation.pathsegmentor.card import OBJECT_TARGETS, OFFERED_TARGETS
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.training.ablation import Viewer, ask

EVALUATION_ONLY = {"glas": ("gland", 0.62), "kumar-multiorgan": ("nuclei", 0.25)}
LEAST_KNOWN = 0.9
"""Images of which less than this share is annotated for a target are not scored for it."""


@dataclass(frozen=True)
class TargetScore:
    """One image and target. pq: panoptic quality at IoU 0.5, None for regions and merged masks."""

    dataset: str
    target: str
    name: str
    mask: MaskScores
    pq: float | None


def evaluation_only(root: Path) -> Iterator[Example]:
    """GlaS and Kumar, which nothing here may train on."""
    for dataset, (target, mpp) in EVALUATION_ONLY.items():
        folder = root / "eval-only-nc" / dataset
        for record in read_manifest(folder) if folder.is_dir() else ():
            mask = read_mask(record)
            instances = (
                mask if record.kind == "instance" else np.asarray(ndimage.label(mask > 0)[0], np.int32)
            )
            labelled = {target: from_instances(instances, parted=record.kind == "instance")}
            yield Example(
                dataset, record.image.name, record.group, True, read_rgb(record.image), mpp, True, labelled
            )


def score(model: MiniSegmenter, example: Example, target: str, labelled: Labelled) -> TargetScore:
    """One prompt on one image, where the annotation is known."""
    viewer = Viewer(model, example, target)
    answer = viewer.answer(ask(target))
    known = labelled.label != UNKNOWN
    truth = (labelled.label == FOREGROUND) & known
    mask = (viewer.at_image_size(answer.mask) > 0) & known
    quality = None
    if target in OBJECT_TARGETS and answer.instances is not None and labelled.distance is not None:
        truths = ndimage.label(truth)[0] if labelled.objects is None else labelled.objects
        found = viewer.at_image_size(answer.instances).astype(np.int32)
        quality = object_scores(found, np.asarray(truths, np.int32)).pq
    return TargetScore(example.dataset, target, example.name, mask_scores(mask, truth), quality)


def held_out(root: Path) -> list[Example]:
    """Every held-out example of every set, and the sets for evaluation only."""
    own = [example for dataset in SOURCES if (root / dataset).is_dir() for example in load(root, dataset)]
    return [example for example in own if example.held_out] + list(evaluation_only(root))


def validate(model: MiniSegmenter, examples: list[Example]) -> list[TargetScore]:
    """Scores of every held-out image for every target that is annotated on it."""
    scores: list[TargetScore] = []
    for example in examples:
        for target, labelled in example.targets.items():
            if target not in OFFERED_TARGETS:
                continue
            known = float((labelled.label != UNKNOWN).mean())
            partial = example.dataset == "brecahad-typed-nuclei"
            if labelled.present is None and (partial or known >= LEAST_KNOWN):
                scores.append(score(model, example, target, labelled))
    return scores


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
        whole = bootstrap([entry.mask.dice for entry in entries])
        low, high = whole.low, whole.high
        qualities = [entry.pq for entry in entries if entry.pq is not None]
        table[name] = {
            "images": len(entries),
            "dice": round(whole.mean, 4),
            # One image shows no spread: both limits are its own score.
            "dice_95": [round(whole.mean if limit is None else limit, 4) for limit in (low, high)],
            "precision": round(float(np.mean([entry.mask.precision for entry in entries])), 4),
            "recall": round(float(np.mean([entry.mask.recall for entry in entries])), 4),
            "pq": round(float(np.mean(qualities)), 4) if qualities else None,
        }
    return table
