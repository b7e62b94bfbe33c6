"""The same images asked in other words: robustness over quality levels (E9) and agreement of the masks (E11)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from tissuetalk.models.datasets.manifest import Record
from tissuetalk.models.datasets.wordings import Wording as Sentence
from tissuetalk.models.datasets.wordings import unseen_sentences
from tissuetalk.models.images import open_image
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.annotations import Annotation
from tissuetalk.models.metrics.plots import intervals_svg
from tissuetalk.models.metrics.robustness import Robustness, Wording, agreement, robustness
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.tables import csv_text, table, with_limits
from tissuetalk.models.segmenter import Capability, Prompt
from tissuetalk.tools.evaluate.asking import Asking
from tissuetalk.tools.evaluate.evaluate import Row
from tissuetalk.tools.segment.engine import find_masks
from tissuetalk.tools.segment.field import FieldOfView, region_of, scale_of


@dataclass(frozen=True)
class Agreed:
    """How alike the masks of all wordings are on one image. disputed: share of pixels only some of them mark."""

    file: str
    mask_class: str
    mean: float
    lowest: float
    disputed: float
    dice: float


class WordingProbe:
    """Asks sentences that were never trained on, a few per level, over the features that are there already."""

    def __init__(self, asking: Asking, *, each_level: int) -> None:
        self.asking, self.each_level = asking, each_level
        self.said: list[Wording] = []
        self.agreed: list[Agreed] = []

    def look(self, record: Record, row: Row, target: Annotation, predicted: Mask) -> None:
        """Ask every sentence about one image; images that do not show the target are left out."""
        looked = self.asking.look(record.image, row.words, record.mpp)
        if not row.target_present or len(looked.asked) != 1:
            return
        wanted = looked.asked[0]
        sentences = unseen_sentences(wanted.capability.target, self.each_level)
        masks = self._masks(record, wanted.prompt, wanted.capability, sentences)
        item = f"{row.file} {row.mask_class}"
        self.said += [
            Wording(item, sentence.text, sentence.level, dice(mask, target.mask))
            for sentence, mask in zip(sentences, masks, strict=True)
        ]
        compared = agreement([looked.found[0].mask, *masks])
        disputed = float((compared.uncertainty > 0).mean())
        self.agreed.append(
            Agreed(row.file, row.mask_class, compared.mean, compared.lowest, disputed, row.dice or 0.0)
        )

    def _masks(
        self, record: Record, said: Prompt, capability: Capability, sentences: Sequence[Sentence]
    ) -> list[Mask]:
        prompts = [replace(said, text=sentence.text, verbatim=True) for sentence in sentences]
        with open_image(record.image, name=record.image.name) as source:
            scale = scale_of(source, record.mpp, self.asking.model)
            field = FieldOfView(
                source, self.asking.model, region_of(source, None), scale, self.asking.features
            )
            found = find_masks(field, [(prompt, capability) for prompt in prompts])
        return [each.mask for each in found]

    def write(self, out: Path) -> str:
        """``wordings.csv``, ``agreement.csv``, ``robustness.json`` and ``robustness.svg``."""
        if not self.said:
            return "## Wording\n\nNo image was asked in several ways.\n"
        result = robustness(self.said)
        (out / "wordings.csv").write_text(
            csv_text(
                ["item", "quality", "sentence", "dice"],
                ((one.item, one.quality, one.sentence, one.dice) for one in self.said),
            ),
            encoding="utf-8",
        )
        header = ["file", "mask_class", "mean", "lowest", "disputed", "dice"]
        (out / "agreement.csv").write_text(
            csv_text(header, (list(asdict(one).values()) for one in self.agreed)), encoding="utf-8"
        )
        predicts = self._agreement_predicts_dice()
        summary = asdict(result) | {
            "mean_agreement": float(np.mean([one.mean for one in self.agreed])),
            "agreement_predicts_dice": predicts,
        }
        (out / "robustness.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        levels = {f"{name} quality": value for name, value in result.by_quality.items()}
        (out / "robustness.svg").write_text(intervals_svg("Dice per quality of wording", levels), "utf-8")
        return self._section(result, predicts)

    def _agreement_predicts_dice(self) -> float | None:
        """Spearman's rank correlation over images, None where either does not vary."""
        alike, scores = [one.mean for one in self.agreed], [one.dice for one in self.agreed]
        if len(set(alike)) < 2 or len(set(scores)) < 2:
            return None
        return float(stats.spearmanr(alike, scores).statistic)

    def _section(self, result: Robustness, predicts: float | None) -> str:
        header = [f"{name} quality" for name in result.by_quality]
        rows = [[with_limits(value) for value in result.by_quality.values()]]
        alike = np.mean([one.mean for one in self.agreed])
        gap = "" if result.low_minus_high is None else f"Low minus high: {result.low_minus_high:+.4f}. "
        ranks = "" if predicts is None else f" Its rank correlation with Dice is {predicts:.2f}."
        return "\n\n".join(
            [
                "## Wording",
                (
                    f"{len(self.agreed)} image-target pairs, {len(self.said) // len(self.agreed)} sentences each that "
                    "were never trained on (`wordings.csv`)."
                ),
                table(header, rows),
                (
                    f"{gap}Standard deviation over the sentences of one image: mean {result.spread:.4f}, "
                    f"largest {result.worst_spread:.4f}. The masks of different wordings agree with a mean Dice of "
                    f"{alike:.3f} (`agreement.csv`).{ranks}"
                ),
                "![robustness.svg](robustness.svg)\n",
            ]
        )
