"""Mitotic figures on cases never seen, beside a darkest-blob rule: ``python -m benchmarks mitosis WEIGHTS DATA``.

Detection as MIDOG does it: centres within 7.5 µm match, nearest first. MIDOG's held-out cases are mosaics of shifted crops with
most figures taken out; BreCaHAD's held-out case has whole fields. What the figures say decides whether the target is offered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from benchmarks.held_out import of_weights
from tissuetalk.models.datasets.example import FOREGROUND, Example
from tissuetalk.models.datasets.sources import load
from tissuetalk.models.segmentation.pathsegmentor.mini import load_mini
from tissuetalk.models.segmentation.pathsegmentor.segmenter import Inference, TileFeatures, padded
from tissuetalk.models.segmentation.pathsegmentor.text_tower import MiniLMSentences

WORDS = "mitotic figures"
REACH_UM = 7.5
CLOSED_PX = 3
"""Parts of one annotated figure lie within this."""
SETS = ("midog-mitosis", "brecahad-typed-nuclei")
KEPT = ((8.0, 0.0), (15.0, 3.0), (20.0, 2.0))
"""Least area in µm² and least peak logit of what counts as a figure."""
DARK, STEP = 70, 10
"""Brightness below which the rule sees a figure, and what counts as one logit of it."""

Logits = NDArray[np.float32]
Centres = NDArray[np.float64]


def of_network(weights: Path) -> Callable[[Example], Logits]:
    """What a weight file answers, at the image's own scale (0.24 and 0.25 µm/px)."""
    inference, text = Inference(load_mini(weights)), MiniLMSentences().embed_many([WORDS])

    def logits(example: Example) -> Logits:
        features = inference.encode(padded(example.image))
        answer = inference.decode(inference.laid_out(features), text)
        height, width = example.image.shape[:2]
        return TileFeatures(features, height, width).enlarged(answer.mask[0, 0])

    return logits


def of_rule(example: Example) -> Logits:
    """Dark blobs."""
    brightness = cv2.GaussianBlur(example.image, (0, 0), 1.5).mean(2)
    return np.asarray((DARK - brightness) / STEP, np.float32)


def found_in(logits: Logits, mpp: float, least_um2: float, least_peak: float) -> Centres:
    """[N, 2] y, x of what counts as a figure."""
    parts, count = ndimage.label(logits > 0)
    numbers = range(1, count + 1)
    areas = ndimage.sum(parts > 0, parts, numbers)
    peaks = ndimage.maximum(logits, parts, numbers)
    centres = np.reshape(ndimage.center_of_mass(parts > 0, parts, numbers), (-1, 2))
    kept = (np.asarray(areas) * mpp * mpp >= least_um2) & (np.asarray(peaks) >= least_peak)
    return np.asarray(centres[kept.reshape(-1)], np.float64)


def true_in(example: Example) -> Centres:
    labelled = example.targets["mitosis"]
    parts = labelled.objects
    if parts is None:
        closed = ndimage.binary_closing(labelled.label == FOREGROUND, iterations=CLOSED_PX)
        parts = ndimage.label(closed)[0]
    numbers = [number for number in np.unique(parts) if number]
    return np.reshape(ndimage.center_of_mass(parts > 0, parts, numbers), (-1, 2))


def matches(found: Centres, true: Centres, mpp: float) -> int:
    """The largest number of pairs within reach."""
    if not len(found) or not len(true):
        return 0
    near = np.hypot(*(found[:, None] - true[None]).transpose(2, 0, 1)) * mpp <= REACH_UM
    rows, columns = linear_sum_assignment(~near)
    return int(near[rows, columns].sum())


def rows_of(
    name: str, look: Callable[[Example], Logits], examples: Sequence[Example]
) -> Iterator[dict[str, Any]]:
    """One row for every choice of what counts."""
    seen = [(look(example), true_in(example), example.mpp) for example in examples]
    area = sum(logits.size * mpp * mpp for logits, _, mpp in seen) / 1e6
    for least_um2, least_peak in KEPT:
        answers = [found_in(logits, mpp, least_um2, least_peak) for logits, _, mpp in seen]
        hits = sum(matches(got, true, mpp) for got, (_, true, mpp) in zip(answers, seen, strict=True))
        found, wanted = sum(map(len, answers)), sum(len(true) for _, true, _ in seen)
        yield {
            "by": name,
            "set": examples[0].dataset,
            "cases": len({example.group for example in examples}),
            "least_um2": least_um2,
            "least_peak": least_peak,
            "hits": hits,
            "found": found,
            "true": wanted,
            "f1": round(2 * hits / max(1, found + wanted), 3),
            "false_per_mm2": round((found - hits) / area, 1),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the rows."""
    told = of_weights("mitosis", __doc__).parse_args(arguments)
    looks = {told.weights.stem: of_network(told.weights), "darkest blobs": of_rule}
    for dataset in SETS:
        held = [each for each in load(told.data, dataset) if each.held_out and "mitosis" in each.targets]
        for name, look in looks.items():
            for row in rows_of(name, look, held):
                print(json.dumps(row), flush=True)
