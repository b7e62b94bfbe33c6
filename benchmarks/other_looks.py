"""Whether other views of a picture would help: ``python -m benchmarks other_looks WEIGHTS DATA``.

Mean Dice of the answer as it ships (for coarse targets the mean over four mirror images), beside: the picture moved to the mean
staining of the training sets, half and all of the way, instead of it or along with it; other magnifications along with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import held_out, is_judged, of_weights
from tissuetalk.models.datasets.example import FOREGROUND, UNKNOWN, Example
from tissuetalk.models.datasets.sources import SOURCES, folder_of, load
from tissuetalk.models.datasets.spread import StainPlace, moved_to, stain_place
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.training.ablation import Viewer, ask

MOST = 12
"""Images of a set, for scores and for its staining."""
WITHOUT_STAIN = frozenset({"glomeruli-pas", "midog-mitosis", "adipose-gtex"})
"""Other stains, or hardly any tissue: they say nothing of where haematoxylin and eosin lie."""


class View(NamedTuple):
    """How far the staining is moved, 0..1, and how many times larger the picture is shown."""

    moved: float = 0.0
    zoom: float = 1.0


AS_IT_IS = View()
WAYS: Mapping[str, Sequence[View]] = {
    "as it ships": [AS_IT_IS],
    "stain half moved": [View(0.5)],
    "stain moved": [View(1.0)],
    "and half moved": [AS_IT_IS, View(0.5)],
    "and 0.8 times": [AS_IT_IS, View(zoom=0.8)],
    "and 1.25 times": [AS_IT_IS, View(zoom=1.25)],
    "and both": [AS_IT_IS, View(zoom=0.8), View(zoom=1.25)],
}


def mean_staining(data: Path) -> StainPlace:
    """Of what was trained on; every set weighs the same."""
    means = []
    for name in SOURCES:
        if name not in WITHOUT_STAIN and folder_of(data, name).is_dir():
            shown = [each.image for each in load(data, name) if each.tissue and not each.held_out][:MOST]
            places = [place for each in shown if (place := stain_place(each)) is not None]
            if places:
                means.append(np.mean(places, axis=0))
    mean, deviation = np.mean(means, axis=0)
    return StainPlace(mean, deviation)


def logits(
    model: MiniSegmenter, example: Example, target: str, view: View, staining: StainPlace
) -> NDArray[np.float32]:
    """[H, W] of the image."""
    own = stain_place(example.image) if view.moved else None
    image = example.image if own is None else moved_to(example.image, own, staining, view.moved)
    seen = Viewer(model, replace(example, image=image, mpp=example.mpp * view.zoom), target)
    return seen.smoothly(seen.decoded(ask(target)).logits)


def scores(model: MiniSegmenter, example: Example, target: str, staining: StainPlace) -> list[float]:
    """Dice of every way."""
    label = example.targets[target].label
    known, truth = label != UNKNOWN, label == FOREGROUND
    views = {view for way in WAYS.values() for view in way}
    answers = {view: logits(model, example, target, view, staining) for view in views}
    means = (np.mean([answers[view] for view in way], axis=0) for way in WAYS.values())
    return [float(dice((mean > 0) & known, truth)) for mean in means]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = of_weights("other_looks", __doc__)
    parser.add_argument("--targets", nargs="*", default=["gland", "tumour", "glomerulus"])
    told = parser.parse_args(arguments)
    model, staining = MiniSegmenter(told.weights), mean_staining(told.data)
    rows = defaultdict[tuple[str, str], list[list[float]]](list)
    for example in held_out(told.data):
        for target in set(told.targets) & {*example.targets}:
            row = rows[example.dataset, target]
            if len(row) < MOST and is_judged(example, target):
                row.append(scores(model, example, target, staining))
    print(f"| set / target | images | {' | '.join(WAYS)} |\n|{' --- |' * (2 + len(WAYS))}")
    for (dataset, target), row in rows.items():
        if row:
            values = " | ".join(f"{value:.3f}" for value in np.mean(row, axis=0))
            print(f"| {dataset}/{target} | {len(row)} | {values} |")


if __name__ == "__main__":
    main()
