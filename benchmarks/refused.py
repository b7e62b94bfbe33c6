"""Kinds that were trained along and are refused, on cases never seen: ``python -m benchmarks refused WEIGHTS DATA [--write]``.

What the figures say decides whether a kind is offered: Dice of 0.70 and more over at least two cases, and masks on at most 4 % of the
pictures without it. ``--write`` puts them into the weights' scores, which the card is made from.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import (
    EVALUATION_ONLY,
    EvaluationSet,
    TargetScore,
    evaluation_only,
    judged,
    of_weights,
    spread_over,
)
from tissuetalk.models.datasets.example import FOREGROUND, Example
from tissuetalk.models.datasets.sources import folder_of, load
from tissuetalk.models.segmentation.pathsegmentor.card import looks_at
from tissuetalk.models.segmentation.pathsegmentor.segmenter import (
    MiniSegmenter,
    evidence_of,
    probability,
    tidy,
)
from tissuetalk.models.training.ablation import Viewer, ask
from tissuetalk.models.writing import write_whole

KINDS = ("adipose tissue", "stroma", "lymphocytes")
HELD_OUT = ("adipose-gtex", "patch-mosaics", "bcss-tissues", "nucls-typed", "puma-melanoma-sample")
MORE = {
    "adipocytes": EvaluationSet("adipose tissue", 0.5),
    "wsss4luad": EvaluationSet("stroma", 1.0, (2,), (1, 2, 3)),
    "gleason-glands": EvaluationSet("stroma", 0.5, (5,), (1, 2, 3, 4, 5)),
    "monusac-typed": EvaluationSet("lymphocytes", 0.25, (2,), (0, 1, 2, 3, 4)),
}
WITHOUT = {
    "adipose tissue": (
        "ebhi-seg-glands",
        "tnbc-nuclei",
        "glomeruli-pas",
        "glas",
        "gleason-glands",
        "gbm-nuclei",
    )
}
"""Sets in which a kind is nowhere, as far as can be seen."""
MOST = 12
"""Images of a set."""


def _held_out(data: Path, sets: Sequence[str], most: int) -> Iterator[Example]:
    for dataset in (each for each in sets if folder_of(data, each).is_dir()):
        yield from spread_over([each for each in load(data, dataset) if each.held_out], most)


def answered(model: MiniSegmenter, example: Example, kind: str) -> NDArray[np.bool_]:
    """[H, W] at the image's size: what would be painted, were the kind offered."""
    viewer = Viewer(model, example, kind, looks_at(kind))
    decoded = viewer.decoded(ask(kind))
    present = probability(model.presence_calibration, kind, evidence_of(decoded)) >= 0.5
    return viewer.at_image_size(tidy(decoded.logits > 0, kind) & present) > 0


def measured(model: MiniSegmenter, data: Path, most: int) -> dict[str, dict[str, Any]]:
    """A row for each set and kind: images, cases, Dice, precision and recall; ``painted`` of those without it."""
    scores: dict[str, list[TargetScore]] = defaultdict(list)
    for example in chain(_held_out(data, HELD_OUT, most), evaluation_only(data, most, MORE)):
        for kind in KINDS:
            labelled = example.targets.get(kind)
            if labelled is not None and FOREGROUND in labelled.label:
                found = answered(model, example, kind)
                scores[f"{example.dataset}/{kind}"].append(judged(example, kind, labelled, found, None))
    rows: dict[str, dict[str, Any]] = {
        key: {
            "images": len(found),
            "cases": len({each.group for each in found}),
            "dice": round(float(np.mean([each.mask.dice for each in found])), 4),
            "precision": round(float(np.mean([each.mask.precision for each in found])), 4),
            "recall": round(float(np.mean([each.mask.recall for each in found])), 4),
        }
        for key, found in scores.items()
    }
    for kind, sets in WITHOUT.items():
        own, others = (
            [each for each in sets if (each in EVALUATION_ONLY) == foreign] for foreign in (False, True)
        )
        foreign = {name: EVALUATION_ONLY[name] for name in others}
        painted: dict[str, list[bool]] = defaultdict(list)
        for example in chain(_held_out(data, own, most), evaluation_only(data, most, foreign)):
            painted[example.dataset].append(bool(answered(model, example, kind).any()))
        for name, each in painted.items():
            rows[f"{name}/{kind}"] = {"images": len(each), "painted": sum(each)}
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = of_weights("refused", __doc__)
    parser.add_argument("--most", type=int, default=MOST, help="images of a set")
    parser.add_argument("--write", action="store_true", help="into the scores beside the weights")
    told = parser.parse_args(arguments)
    rows = measured(MiniSegmenter(told.weights), told.data, told.most)
    print(json.dumps(rows, indent=1))
    if told.write:
        kept = told.weights.with_suffix(".json")
        whole = json.loads(kept.read_text(encoding="utf-8")) | {"refused": rows}
        write_whole(kept, json.dumps(whole, indent=1) + "\n")
