"""The best and worst answers as pictures: annotation and prediction outlined, Dice in the legend (A28)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from tissuetalk.models.datasets.manifest import Record, read_rgb
from tissuetalk.models.images import Box
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.annotations import Annotation
from tissuetalk.models.metrics.tables import table
from tissuetalk.tools.drawing.drawing import Layer, as_png, draw, picture_size
from tissuetalk.tools.evaluate.evaluate import Row

ANNOTATED_COLOUR: Final = "#00e5ff"
PREDICTED_COLOUR: Final = "#ffd400"


@dataclass(frozen=True)
class Kept:
    """One scored image and target with both masks."""

    record: Record
    row: Row
    truth: Mask
    predicted: Mask

    @property
    def dice(self) -> float:
        return self.row.dice or 0.0


class PictureProbe:
    """Keeps the ``most`` worst and best answers among images that show their target, and draws them at the end."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: list[Kept] = []

    def look(self, record: Record, row: Row, target: Annotation, predicted: Mask) -> None:
        """Remember the answer as long as it is among the extremes."""
        if row.target_present:
            self.kept.append(Kept(record, row, target.mask, predicted))
            self.kept.sort(key=lambda one: one.dice)
            if len(self.kept) > 2 * self.most:
                del self.kept[self.most]

    def write(self, out: Path) -> str:
        """``pictures/*.png``, worst first."""
        (out / "pictures").mkdir(exist_ok=True)
        lines = []
        for number, one in enumerate(self.kept, start=1):
            name = f"{number:02d}-{re.sub(r'[^A-Za-z0-9]+', '-', f'{one.record.image.stem} {one.row.mask_class}')}.png"
            (out / "pictures" / name).write_bytes(as_png(drawn(one)))
            lines.append(
                [f"![{number}](pictures/{name})", one.row.file, one.row.mask_class, f"{one.dice:.3f}"]
            )
        return "## Worst and best\n\n" + table(["picture", "file", "target", "Dice"], lines) + "\n"


def drawn(one: Kept) -> Image.Image:
    """The image with both outlines and a legend."""
    pixels = read_rgb(one.record.image)
    box = Box(0, 0, pixels.shape[1], pixels.shape[0])
    picture = Image.fromarray(pixels).resize(picture_size(box))
    layers = [
        Layer(one.truth.astype(np.int32), ANNOTATED_COLOUR, f"annotated: {one.row.mask_class}"),
        Layer(one.predicted.astype(np.int32), PREDICTED_COLOUR, f"found, Dice {one.dice:.3f}"),
    ]
    return draw(np.asarray(picture, np.uint8), box, layers=layers, mpp=one.record.mpp)
