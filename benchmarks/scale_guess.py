"""Masks at the scale that is guessed from the picture, beside those at the set's: ``python -m benchmarks scale_guess WEIGHTS DATA``.

Also what the same head says of whether a picture is stained tissue, for held-out images and for pictures of other things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from skimage import data as photographs

from benchmarks.held_out import is_judged, of_weights, score, spread_over
from tissuetalk.models.datasets.sources import load
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.segmenter import RGB

ASKED = {
    "ebhi-seg-glands": "gland",
    "dsb2018-histology": "nuclei",
    "tnbc-nuclei": "nuclei",
    "ocdc-oral-tumour": "tumour",
    "glomeruli-pas": "glomerulus",
}
NEVER_SHOWN = ("chelsea", "hubble_deep_field", "retina")
"""A cat, galaxies and an eye, which scikit-image ships or fetches: no counter-examples of the training."""
MOST = 24
"""Images of a set."""


def main(arguments: Sequence[str] | None = None) -> None:
    told = of_weights("scale_guess", __doc__).parse_args(arguments)
    model = MiniSegmenter(told.weights)

    def tissue(image: RGB) -> float:
        return float(model.prepare(image).values["tissue"])

    print("| set / target | images | Dice, guessed | Dice, told | off by, times | least tissue |")
    print("| --- | --- | --- | --- | --- | --- |")
    for dataset, target in ASKED.items():
        own = [each for each in load(told.data, dataset) if each.held_out and target in each.targets]
        chosen = spread_over([each for each in own if is_judged(each, target)], MOST)
        rows = []
        for each in chosen:
            guess = model.assume_mpp(each.image)
            dices = [
                score(model, seen, target, each.targets[target]).mask.dice
                for seen in (replace(each, mpp=guess), each)
            ]
            rows.append((*dices, abs(np.log2(guess / each.mpp)), tissue(each.image)))
        guessed, by_set, off, _ = np.mean(rows, axis=0)
        least = min(row[3] for row in rows)
        print(
            f"| {dataset}/{target} | {len(rows)} | {guessed:.3f} | {by_set:.3f} | {2**off:.2f} | {least:.3f} |"
        )
    print("\n| not stained tissue | tissue |\n| --- | --- |")
    others = {name: getattr(photographs, name)() for name in NEVER_SHOWN}
    for name, image in (others | {"white glass": np.full((512, 512, 3), 245, np.uint8)}).items():
        print(f"| {name} | {tissue(image):.4f} |")
