"""Score a weight file on the groups it never saw (``python -m tissuetalk.models.training.report`` writes it all down).

Goes through the same Segmenter as every user, one image at a time at the target's own scale, and compares at the scale
the annotation has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.datasets.example import FOREGROUND, UNKNOWN, Example, Labelled, from_instances
from tissuetalk.models.datasets.manifest import read_manifest, read_mask, read_rgb
from tissuetalk.models.datasets.sources import SOURCES, load
from tissuetalk.models.datasets.wordings import LEVELS, wordings
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter, TileFeatures
from tissuetalk.models.segmentation.pathsegmentor.targets import OBJECT_TARGETS, OFFERED_TARGETS, TARGET_MPP
from tissuetalk.models.segmentation.pathsegmentor.vocabulary import CONCEPTS
from tissuetalk.models.segmenter import Context, Decoded, Finished, Prompt

PLAIN_WORDS = {"gland": "glands", "tumour": "tumour", "glomerulus": "glomeruli"}
EVALUATION_ONLY = {"glas": ("gland", 0.62), "kumar-multiorgan": ("nuclei", 0.25)}
LEAST_KNOWN = 0.9
"""Images of which less than this share is annotated for a target are not scored for it."""


@dataclass(frozen=True)
class Score:
    """One image and target. pq: panoptic quality at IoU 0.5, None for regions and merged masks."""

    dataset: str
    target: str
    name: str
    dice: float
    precision: float
    recall: float
    pq: float | None
    presence: float


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


def ask(target: str, words: str | None = None) -> Prompt:
    """The plainest prompt for a target, or the given words."""
    text = words or PLAIN_WORDS.get(target, target)
    concept = next(concept for concept, trained in CONCEPTS.items() if trained == target)
    return Prompt(None, PLAIN_WORDS.get(target, target), text, verbatim=words is not None, concept=concept)


class Viewer:
    """One image at one target's scale, encoded once."""

    def __init__(
        self, model: MiniSegmenter, example: Example, target: str, *, mpp: float | None = None
    ) -> None:
        self.model, self.shape = model, example.image.shape[:2]
        zoom = (mpp or example.mpp) / TARGET_MPP[target]
        way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        tile = np.asarray(cv2.resize(example.image, None, fx=zoom, fy=zoom, interpolation=way), np.uint8)
        self.context = Context({})
        self.features: TileFeatures = model.encode(tile, self.context)

    def answer(self, prompt: Prompt) -> Finished:
        decoded: Decoded = self.model.decode(self.features, [prompt])[0]
        return self.model.finish(decoded, prompt, self.context)

    def smoothly(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits at the image's size, as users get them."""
        size = (self.shape[1], self.shape[0])
        return np.asarray(cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR), np.float32)

    def at_image_size(self, plane: NDArray[Any]) -> NDArray[Any]:
        size = (self.shape[1], self.shape[0])
        return np.asarray(cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_NEAREST))


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |P n Y| / (|P| + |Y|), 1 when both are empty."""
    total = int(mask.sum()) + int(truth.sum())
    return 2 * int((mask & truth).sum()) / total if total else 1.0


def panoptic_quality(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """PQ at IoU 0.5; 1 when there is nothing to find and nothing was found."""
    pairs = np.stack([found.ravel(), truth.ravel()])[:, (found.ravel() > 0) & (truth.ravel() > 0)]
    (ours, theirs), overlap = np.unique(pairs, axis=1, return_counts=True)
    areas, truths = np.bincount(found.ravel()), np.bincount(truth.ravel())
    iou = overlap / (areas[ours] + truths[theirs] - overlap)
    count = int((areas[1:] > 0).sum()) + int((truths[1:] > 0).sum())
    return float(2 * iou[iou > 0.5].sum() / count) if count else 1.0


def score(
    model: MiniSegmenter, example: Example, target: str, labelled: Labelled, viewer: Viewer | None = None
) -> Score:
    """One prompt on one image."""
    viewer = viewer or Viewer(model, example, target)
    answer = viewer.answer(ask(target))
    known = labelled.label != UNKNOWN
    truth = (labelled.label == FOREGROUND) & known
    mask = (viewer.at_image_size(answer.mask) > 0) & known
    overlap = int((mask & truth).sum())
    quality = None
    if target in OBJECT_TARGETS and answer.instances is not None and labelled.distance is not None:
        truths = np.asarray(
            ndimage.label(truth)[0] if labelled.objects is None else labelled.objects, np.int64
        )
        quality = panoptic_quality(viewer.at_image_size(answer.instances).astype(np.int64), truths)
    return Score(
        example.dataset,
        target,
        example.name,
        dice(mask, truth),
        overlap / max(1, int(mask.sum())) if truth.any() else float(not mask.any()),
        overlap / max(1, int(truth.sum())) if truth.any() else 1.0,
        quality,
        answer.presence,
    )


def held_out(root: Path) -> list[Example]:
    """Every held-out example of every set, and the sets for evaluation only."""
    own = [example for dataset in SOURCES if (root / dataset).is_dir() for example in load(root, dataset)]
    return [example for example in own if example.held_out] + list(evaluation_only(root))


def validate(model: MiniSegmenter, examples: list[Example]) -> list[Score]:
    """Scores of every held-out image for every target that is annotated on it."""
    scores: list[Score] = []
    for example in examples:
        for target, labelled in example.targets.items():
            if target not in OFFERED_TARGETS:
                continue
            known = float((labelled.label != UNKNOWN).mean())
            partial = example.dataset == "brecahad-typed-nuclei"
            if labelled.present is None and (partial or known >= LEAST_KNOWN):
                scores.append(score(model, example, target, labelled))
    return scores


def bootstrap(values: NDArray[np.float64], *, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Percentile 95 % interval of the mean."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


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


def summary(scores: list[Score]) -> dict[str, dict[str, Any]]:
    """Mean Dice with its interval, precision, recall and PQ for every data set and target."""
    groups: dict[str, list[Score]] = defaultdict(list)
    for entry in scores:
        groups[f"{entry.dataset}/{entry.target}"].append(entry)
    table = {}
    for name, entries in groups.items():
        values = np.array([entry.dice for entry in entries])
        low, high = bootstrap(values)
        qualities = [entry.pq for entry in entries if entry.pq is not None]
        table[name] = {
            "images": len(entries),
            "dice": round(float(values.mean()), 4),
            "dice_95": [round(low, 4), round(high, 4)],
            "precision": round(float(np.mean([entry.precision for entry in entries])), 4),
            "recall": round(float(np.mean([entry.recall for entry in entries])), 4),
            "pq": round(float(np.mean(qualities)), 4) if qualities else None,
        }
    return table
