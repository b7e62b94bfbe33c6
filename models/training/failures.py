"""The worst held-out image of every set as one picture, for the model card: what was annotated against what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.datasets.example import FOREGROUND, Example
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.training.validate import EVALUATION_ONLY, Score, Viewer, ask

SIDE_PX = 320
ANNOTATED, FOUND, INK = (40, 200, 40), (230, 40, 160), (30, 30, 30)
"""RGB of the annotated outline, of the model's, and of the captions."""


def worst(scores: Sequence[Score]) -> list[Score]:
    """The lowest Dice of every set and target that may be shown; research-only images are not."""
    lowest: dict[tuple[str, str], Score] = {}
    for entry in scores:
        if entry.dataset not in EVALUATION_ONLY:
            key = (entry.dataset, entry.target)
            lowest[key] = min(lowest.get(key, entry), entry, key=lambda one: one.dice)
    return sorted(lowest.values(), key=lambda one: one.dice)


def draw_failures(
    model: MiniSegmenter, examples: Sequence[Example], scores: Sequence[Score], out: Path, *, across: int = 4
) -> None:
    """Write the picture as JPEG: one panel a set, green what was annotated, magenta what was found."""
    by_name = {(example.dataset, example.name): example for example in examples}
    panels = [_panel(model, by_name[entry.dataset, entry.name], entry) for entry in worst(scores)]
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % across)
    rows = [np.hstack(panels[at : at + across]) for at in range(0, len(panels), across)]
    cv2.imwrite(str(out), np.vstack(rows)[:, :, ::-1], [int(cv2.IMWRITE_JPEG_QUALITY), 82])


def _panel(model: MiniSegmenter, example: Example, entry: Score) -> NDArray[np.uint8]:
    viewer = Viewer(model, example, entry.target)
    found = viewer.at_image_size(viewer.answer(ask(entry.target)).mask) > 0
    picture = example.image.copy()
    width = max(1, round(max(picture.shape) / SIDE_PX))
    truth = example.targets[entry.target].label == FOREGROUND
    for mask, colour in ((truth, ANNOTATED), (found, FOUND)):
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, colour, width)
    zoom = SIDE_PX / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    panel = np.full((SIDE_PX + 28, SIDE_PX + 8, 3), 255, np.uint8)
    panel[24 : 24 + small.shape[0], 4 : 4 + small.shape[1]] = small
    caption = f"{entry.dataset}: {entry.target}, Dice {entry.dice:.2f}"
    cv2.putText(panel, caption, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.38, INK, 1, cv2.LINE_AA)
    return panel
