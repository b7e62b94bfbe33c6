"""Which evidence tells images that show a target from those that do not: presence, mean probability, the check of BiomedParse."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tissuetalk.models.classifiers.evaluation import macro_auc
from tissuetalk.models.datasets.manifest import Record, read_rgb
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.annotations import Annotation
from tissuetalk.models.metrics.presence import Figures, PresenceCheck, figures_of
from tissuetalk.models.metrics.tables import csv_text, table
from tissuetalk.models.segmentation.pretrained import resized
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.evaluate.evaluate import ModelUnderTest
from tissuetalk.tools.evaluate.scores import ScoreRow

MOST_PX: Final = 2048
"""Longest side, at the model's scale, of a picture that is looked at in one piece; larger ones are left out."""


@dataclass(frozen=True)
class PresenceRow:
    """presence: as `segment` states it. p_value: None where nothing is painted or the target has no distribution."""

    file: str
    mask_class: str
    shown: bool
    presence: float
    mean_probability: float
    p_value: float | None


class PresenceProbe:
    """file: distributions to check with; where it does not exist they are fitted to the images of this run and written there."""

    def __init__(self, model: ModelUnderTest, file: Path) -> None:
        self.model, self.file = model, file
        self.check = PresenceCheck.read(file) if file.is_file() else None
        self.seen: dict[str, list[Figures]] = {}
        self.rows: list[PresenceRow] = []
        self.left_out = 0

    def look(self, record: Record, row: ScoreRow, target: Annotation, predicted: Mask) -> None:
        """Ask once more for the probabilities, the picture in one piece."""
        looked = self.model.look(record.image, row.words, record.mpp)
        if len(looked.asked) != 1:
            return
        (wanted,), model = looked.asked, self.model.segmenter
        image = read_rgb(record.image)
        zoom = (record.mpp or wanted.capability.mpp) / wanted.capability.mpp
        width, height = (max(1, round(length * zoom)) for length in image.shape[1::-1])
        if max(width, height) > MOST_PX:
            self.left_out += 1
            return
        tile = resized(image, width, height)
        (decoded,) = model.decode(model.encode(tile, model.prepare(image)), [wanted.prompt])
        probability = 1 / (1 + np.exp(-decoded.logits.clip(-30, 30)))
        figures = figures_of(tile, probability, decoded.logits > 0)
        if figures is not None and row.target_present:
            self.seen.setdefault(target.name, []).append(figures)
        p_value = None if figures is None or self.check is None else self.check.p_value(target.name, figures)
        mean = 0.0 if figures is None else figures[0]
        told = (row.file, target.name, bool(row.target_present), looked.found[0].presence, mean, p_value)
        self.rows.append(PresenceRow(*told))

    def write(self, out: Path) -> str:
        """``presence.csv``, and the distributions where they were fitted."""
        write_whole(out / "presence.csv", csv_text(map(asdict, self.rows)))
        said = f"{len(self.rows)} image-target pairs (`presence.csv`), {self.left_out} left out as too large."
        if self.check is None:
            model = self.model.segmenter
            PresenceCheck.fitted(self.model.name, model.weights_sha256, self.seen).write(self.file)
            said += f" The distributions of the check were fitted to them and written to {self.file.name}."
        elif self.check.weights_sha256 != self.model.segmenter.weights_sha256:
            said += f" The distributions are of other weights, {self.check.model}."
        lines = []
        shown = np.array([one.shown for one in self.rows], int)
        for name in ("presence", "mean_probability", "p_value"):
            values = np.array([getattr(one, name) or 0.0 for one in self.rows])
            area = macro_auc(np.stack([-values, values], axis=1), shown)
            lines.append([name, "only one of both is there" if np.isnan(area) else f"{area:.3f}"])
        text = table(["evidence", "area under the ROC curve, shown against absent"], lines)
        return f"## Presence\n\n{said}\n\n{text}\n"
