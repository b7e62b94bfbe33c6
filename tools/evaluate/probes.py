"""Further questions about every scored image: other words, boxes instead of words, and pictures of the extremes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from scipy import stats

from tissuetalk.models import registry
from tissuetalk.models.control import Control
from tissuetalk.models.datasets.manifest import Record, read_rgb
from tissuetalk.models.datasets.wordings import unseen_sentences
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, open_image
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.annotations import Annotation
from tissuetalk.models.metrics.oracles import PUBLISHED_EFFICIENCY, BoxModel, Oracle, ask_oracle
from tissuetalk.models.metrics.robustness import Robustness, SentenceScore, agreement, robustness
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.statistics import bootstrap
from tissuetalk.models.metrics.tables import csv_text, intervals_svg, table, with_limits
from tissuetalk.models.segmenter import is_pointed
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.drawing.drawing import DrawnMask, as_png, draw, picture_size
from tissuetalk.tools.evaluate.evaluate import ModelUnderTest, Probe, evaluate
from tissuetalk.tools.evaluate.presence import PresenceProbe
from tissuetalk.tools.evaluate.scores import ScoreRow, Summary
from tissuetalk.tools.segment.engine import find_masks
from tissuetalk.tools.segment.field import FieldOfView, scale_of

BOX_ORACLES: Final[tuple[Oracle, ...]] = ("union box", "instance box")
TEXT: Final = "this model, text"
EFFICIENCY: Final = ("group", "method", "n", "prompts_per_mask", "dice", "low", "high")
"""Columns of ``efficiency.csv``; the first five are shown."""
ANNOTATED_COLOUR: Final = "#00e5ff"
PREDICTED_COLOUR: Final = "#ffd400"


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

    def __init__(self, model: ModelUnderTest, *, each_level: int) -> None:
        self.model, self.each_level = model, each_level
        self.said: list[SentenceScore] = []
        self.agreed: list[Agreed] = []

    def look(self, record: Record, row: ScoreRow, target: Annotation, predicted: Mask) -> None:
        """Ask every sentence about one image; images that do not show the target are left out."""
        looked = self.model.look(record.image, row.words, record.mpp)
        # several targets have no one sentence to re-phrase
        if not row.target_present or len(looked.asked) != 1:
            return
        wanted = looked.asked[0]
        sentences = unseen_sentences(wanted.capability.target, self.each_level)
        # verbatim: the model would otherwise put its own trained sentence in their place
        prompts = [replace(wanted.prompt, text=sentence.text, verbatim=True) for sentence in sentences]
        with open_image(record.image, name=record.image.name) as source:
            scale = scale_of(source, record.mpp, self.model.segmenter)
            field = FieldOfView(source, self.model.segmenter, source.box, scale, self.model.features)
            found = find_masks(field, [(prompt, wanted.capability) for prompt in prompts])
        masks = [each.mask for each in found]
        item = f"{row.file} {row.mask_class}"
        self.said += [
            SentenceScore(item, sentence.text, sentence.level, dice(mask, target.mask))
            for sentence, mask in zip(sentences, masks, strict=True)
        ]
        compared = agreement([looked.found[0].mask, *masks])
        disputed = float((compared.uncertainty > 0).mean())
        self.agreed.append(
            Agreed(row.file, row.mask_class, compared.mean, compared.lowest, disputed, row.dice or 0.0)
        )

    def write(self, out: Path) -> str:
        """``wordings.csv``, ``agreement.csv``, ``robustness.json`` and ``robustness.svg``."""
        if not self.said:
            return "## Wording\n\nNo image was asked in several ways.\n"
        result = robustness(self.said)
        write_whole(out / "wordings.csv", csv_text(map(asdict, self.said)))
        write_whole(out / "agreement.csv", csv_text(map(asdict, self.agreed)))
        alike, scores = [one.mean for one in self.agreed], [one.dice for one in self.agreed]
        predicts = None
        # a rank correlation (Spearman's) needs both to vary
        if len(set(alike)) > 1 and len(set(scores)) > 1:
            predicts = float(stats.spearmanr(alike, scores).statistic)
        mean = float(np.mean(alike))
        summary = asdict(result) | {"mean_agreement": mean, "agreement_predicts_dice": predicts}
        write_whole(out / "robustness.json", json.dumps(summary, indent=2) + "\n")
        levels = {f"{name} quality": value for name, value in result.by_quality.items()}
        write_whole(out / "robustness.svg", intervals_svg("Dice per quality of wording", levels))
        return self._section(result, mean, predicts)

    def _section(self, result: Robustness, alike: float, predicts: float | None) -> str:
        header = [f"{name} quality" for name in result.by_quality]
        rows = [[with_limits(value) for value in result.by_quality.values()]]
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

    def look(self, record: Record, row: ScoreRow, target: Annotation, predicted: Mask) -> None:
        """Ask every oracle about one image that shows its target."""
        if not row.target_present or row.dice is None:
            return
        structure = row.label.split("-", 2)[1] if row.label else ""
        image = read_rgb(record.image)
        answers = {"box as mask": ask_oracle("box as mask", target.mask, instances=target.instances)}
        for (name, model), oracle in product(self.models.items(), BOX_ORACLES):
            answers[f"{name}, {oracle}"] = ask_oracle(
                oracle, target.mask, instances=target.instances, image=image, model=model
            )
        reached = [(TEXT, 1, row.dice)]
        reached += [(method, each.prompts, dice(each.mask, target.mask)) for method, each in answers.items()]
        self.rows += [Prompted(row.file, row.mask_class, structure, *one) for one in reached]

    def write(self, out: Path) -> str:
        """``boxes.csv``, ``efficiency.csv`` and ``efficiency.svg``."""
        columns = [field.name for field in fields(Prompted)]
        write_whole(out / "boxes.csv", csv_text(map(asdict, self.rows), columns))
        if not self.rows:
            return "## Boxes instead of words\n\nNo image shows its target.\n"
        lines: list[dict[str, object]] = []
        overall = {}
        structures = sorted({row.structure for row in self.rows} - {""})
        methods = dict.fromkeys(row.method for row in self.rows)
        for group, method in product(("all", *structures), methods):
            here = [row for row in self.rows if row.method == method and group in ("all", row.structure)]
            if not here:
                continue
            score = bootstrap([row.dice for row in here])
            prompts = float(np.mean([row.prompts for row in here]))
            figures = (group, method, score.n, prompts, score.mean, score.low, score.high)
            lines.append(dict(zip(EFFICIENCY, figures, strict=True)))
            if group == "all":
                overall[method] = score
        for known in PUBLISHED_EFFICIENCY:
            lines.append({"group": "PathSeg, published", "n": ""} | asdict(known))
        write_whole(out / "efficiency.csv", csv_text(lines))
        write_whole(out / "efficiency.svg", intervals_svg("Dice by kind of prompt", overall))
        shown = [
            [f"{line[key]:.3g}" if isinstance(line[key], float) else str(line[key]) for key in EFFICIENCY[:5]]
            for line in lines
        ]
        text = table(["group", "prompt", "n", "prompts per mask", "Dice"], shown)
        return f"## Boxes instead of words\n\n{text}\n\n![efficiency.svg](efficiency.svg)\n"


@dataclass(frozen=True)
class ScoredPicture:
    """One scored image and target with both masks."""

    record: Record
    row: ScoreRow
    truth: Mask
    predicted: Mask

    @property
    def dice(self) -> float:
        return self.row.dice or 0.0


class PictureProbe:
    """Keeps the ``most`` worst and best answers among images that show their target, and draws them at the end."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.extremes: list[ScoredPicture] = []

    def look(self, record: Record, row: ScoreRow, target: Annotation, predicted: Mask) -> None:
        """Remember the answer as long as it is among the extremes."""
        if row.target_present:
            self.extremes.append(ScoredPicture(record, row, target.mask, predicted))
            self.extremes.sort(key=lambda one: one.dice)
            # sorted by Dice: the one in the middle is neither among the worst nor the best
            if len(self.extremes) > 2 * self.most:
                del self.extremes[self.most]

    def write(self, out: Path) -> str:
        """``pictures/*.png``, worst first: each image with both outlines and a legend."""
        lines = []
        for number, one in enumerate(self.extremes, start=1):
            name = f"{number:02d}-{re.sub(r'[^A-Za-z0-9]+', '-', f'{one.record.image.stem} {one.row.mask_class}')}.png"
            pixels = read_rgb(one.record.image)
            box = Box.whole(pixels.shape[1], pixels.shape[0])
            small = np.asarray(Image.fromarray(pixels).resize(picture_size(box)), np.uint8)
            told, found = f"annotated: {one.row.mask_class}", f"found, Dice {one.dice:.3f}"
            layers = [
                DrawnMask(one.truth.astype(np.int32), ANNOTATED_COLOUR, told),
                DrawnMask(one.predicted.astype(np.int32), PREDICTED_COLOUR, found),
            ]
            picture = draw(small, box, layers=layers, mpp=one.record.mpp)
            write_whole(out / "pictures" / name, as_png(picture))
            lines.append(
                [f"![{number}](pictures/{name})", one.row.file, one.row.mask_class, f"{one.dice:.3f}"]
            )
        return "## Worst and best\n\n" + table(["picture", "file", "target", "Dice"], lines) + "\n"


def evaluate_manifest(
    manifest: Path,
    out: Path,
    *,
    model: str | None,
    words: str | None,
    wordings: int = 0,
    box_models: Sequence[str] = (),
    pictures: int = 0,
    presence: Path | None = None,
    control: Control = Control(),
) -> Summary:
    """Score a model on a manifest; the words go through the rules engine as they would in segment.

    wordings: further sentences of each quality level to ask (prompt_groups.md, section 7); 0 asks none.
    box_models: models to prompt with boxes from the annotation for comparison.
    pictures: how many of the worst and of the best answers to draw.
    presence: distributions for the check whether masks look like their targets; fitted there where the file does not exist.
    """
    tested = ModelUnderTest(registry.load(model))
    probes: list[Probe] = []
    if wordings:
        probes.append(WordingProbe(tested, each_level=wordings))
    if box_models:
        probes.append(BoxProbe({name: load_box_model(name) for name in box_models}))
    if pictures:
        probes.append(PictureProbe(pictures))
    if presence is not None:
        probes.append(PresenceProbe(tested, presence))
    return evaluate(manifest, out, tested, words=words, probes=probes, control=control)
