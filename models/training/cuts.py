"""Where a target's outline runs: the mask logit that agrees best with annotators, every set weighing the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.datasets.example import FOREGROUND, UNKNOWN, Example
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.segmentation.pathsegmentor.targets import OFFERED_TARGETS
from tissuetalk.models.training.validate import LEAST_KNOWN, Viewer, ask, dice

GRID = np.arange(-1.5, 1.51, 0.25)
NOT_HE = frozenset({"dsb2018-histology"})
"""Mostly purple-stained fields, by their own notes no measure of an H&E model: they have no say."""


def choose_cuts(model: MiniSegmenter, examples: Sequence[Example]) -> dict[str, float]:
    """The best logit of each target on held-out H&E (PAS for glomeruli) images; 0 unless another gains at least 0.002 of mean Dice.

    Annotators differ in how generously they outline, and a network trained on all of them sits between them.
    """
    by_set: dict[str, dict[str, list[NDArray[np.float64]]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        for target, labelled in example.targets.items() if example.dataset not in NOT_HE else ():
            known = labelled.label != UNKNOWN
            if target not in OFFERED_TARGETS or labelled.present is not None or known.mean() < LEAST_KNOWN:
                continue
            viewer = Viewer(model, example, target)
            logits = viewer.smoothly(model.decode(viewer.features, [ask(target)])[0].logits)
            truth = (labelled.label == FOREGROUND) & known
            by_set[target][example.dataset].append(
                np.array([dice((logits > cut) & known, truth) for cut in GRID])
            )
    cuts = {}
    for target, sets in by_set.items():
        mean = np.mean([np.mean(values, axis=0) for values in sets.values()], axis=0)
        best, middle = int(mean.argmax()), int(np.abs(GRID).argmin())
        cuts[target] = float(GRID[best]) if mean[best] >= mean[middle] + 0.002 else 0.0
    return cuts
