"""Models told where to look: boxes from the annotation, and what they reach for how many prompts (A25, A26)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tissuetalk.models import registry
from tissuetalk.models.datasets.manifest import Record, read_rgb
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.annotations import Annotation
from tissuetalk.models.metrics.bootstrap import bootstrap
from tissuetalk.models.metrics.oracles import PUBLISHED_EFFICIENCY, BoxModel, Oracle, ask_oracle
from tissuetalk.models.metrics.plots import intervals_svg
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.tables import csv_text, table
from tissuetalk.models.segmenter import is_pointed
from tissuetalk.tools.evaluate.evaluate import Row

BOX_ORACLES: Final[tuple[Oracle, ...]] = ("union box", "instance box")
TEXT: Final = "this model, text"


def load_box_model(name: str) -> BoxModel:
    """A box-prompted model by name. Raises InvalidArgumentError, or ModelUnavailableError without its weights."""
    able = [known for known, entry in registry.MODELS.items() if entry.card.prompts == "boxes and points"]
    if name not in able:
        raise InvalidArgumentError(f"{name!r} is not prompted with boxes; choose from: {', '.join(able)}.")
    model = registry.load(name)
    assert is_pointed(model)
    return model


@dataclass(frozen=True)
class Prompted:
    """What one method reached on one image and target, for how many prompts."""

    file: str
    mask_class: str
    structure: str
    method: str
    prompts: int
    dice: float


class BoxProbe:
    """Prompts box models with the union box and with every instance's box, and paints the boxes themselves."""

    def __init__(self, models: Mapping[str, BoxModel]) -> None:
        self.models = models
        self.rows: list[Prompted] = []

    def look(self, record: Record, row: Row, target: Annotation, predicted: Mask) -> None:
        """Ask every oracle about one image that shows its target."""
        if not row.target_present or row.dice is None:
            return
        structure = row.label.split("-", 2)[1] if row.label else ""

        def keep(method: str, prompts: int, score: float) -> None:
            self.rows.append(Prompted(row.file, row.mask_class, structure, method, prompts, score))

        keep(TEXT, 1, row.dice)
        painted = ask_oracle("box as mask", target.mask, instances=target.instances)
        keep("box as mask", painted.prompts, dice(painted.mask, target.mask))
        image = read_rgb(record.image)
        for name, model in self.models.items():
            for oracle in BOX_ORACLES:
                answer = ask_oracle(oracle, target.mask, instances=target.instances, image=image, model=model)
                keep(f"{name}, {oracle}", answer.prompts, dice(answer.mask, target.mask))

    def write(self, out: Path) -> str:
        """``boxes.csv``, ``efficiency.csv`` and ``efficiency.svg``."""
        header = ["file", "mask_class", "structure", "method", "prompts", "dice"]
        cells = ([getattr(row, name) for name in header] for row in self.rows)
        (out / "boxes.csv").write_text(csv_text(header, cells), encoding="utf-8")
        if not self.rows:
            return "## Boxes instead of words\n\nNo image shows its target.\n"
        lines: list[list[object]] = []
        drawn = {}
        for group, method in self._cells():
            here = [row for row in self.rows if row.method == method and group in ("all", row.structure)]
            prompts = float(np.mean([row.prompts for row in here]))
            score = bootstrap([row.dice for row in here])
            lines.append([group, method, len(here), prompts, score.mean, score.low, score.high])
            if group == "all":
                drawn[method] = score
        published: list[list[object]] = [
            ["PathSeg, published", e.method, "", e.prompts_per_mask, e.dice] for e in PUBLISHED_EFFICIENCY
        ]
        header = ["group", "method", "n", "prompts_per_mask", "dice", "low", "high"]
        (out / "efficiency.csv").write_text(csv_text(header, [*lines, *published]), encoding="utf-8")
        (out / "efficiency.svg").write_text(intervals_svg("Dice by kind of prompt", drawn), encoding="utf-8")
        shown = [
            [str(g), str(m), str(n), f"{p:.1f}", f"{d:.3f}"] for g, m, n, p, d, *_ in [*lines, *published]
        ]
        text = table(["group", "prompt", "n", "prompts per mask", "Dice"], shown)
        return f"## Boxes instead of words\n\n{text}\n\n![efficiency.svg](efficiency.svg)\n"

    def _cells(self) -> list[tuple[str, str]]:
        methods = list(dict.fromkeys(row.method for row in self.rows))
        structures = sorted({row.structure for row in self.rows} - {""})
        return [(group, method) for group in ("all", *structures) for method in methods]
