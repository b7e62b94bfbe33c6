"""What an evaluation writes down: a row for each image and target, and their means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from tissuetalk.models.metrics.statistics import bootstrap
from tissuetalk.tools.answers.results import Closed

METRICS: Final = ("dice", "iou", "precision", "recall", "pq", "aji", "f1")


@dataclass(frozen=True)
class ScoreRow:
    """One line of ``scores.csv``; empty cells do not apply or could not be computed.

    target_present: whether the annotation has any pixel. objects_from: ``model``, or ``components`` when the model
    gave no objects. everything_dice: what painting the whole image scores. boxes_dice: what painting the true box of
    every object scores. irregularity to instance_dispersion: of the annotation. source: data set. label: canonical
    label that was asked for, if there is one.
    """

    file: str
    mask_class: str
    group: str
    words: str
    error: str = ""
    target_present: bool | None = None
    dice: float | None = None
    iou: float | None = None
    precision: float | None = None
    recall: float | None = None
    pq: float | None = None
    aji: float | None = None
    f1: float | None = None
    n_true: int | None = None
    n_predicted: int | None = None
    objects_from: str = ""
    predicted_px: int | None = None
    true_px: int | None = None
    everything_dice: float | None = None
    boxes_dice: float | None = None
    irregularity: float | None = None
    instance_ratio: float | None = None
    instance_count: int | None = None
    instance_dispersion: float | None = None
    seconds: float | None = None
    source: str = ""
    label: str = ""

    def cells(self) -> dict[str, object]:
        """As it is written; what does not apply is left out."""
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in asdict(self).items()
            if value is not None
        }


class Mean(Closed):
    """Mean over images with 95 % bootstrap limits over images, and over whole groups (patients, slides).

    Limits are null when there is only one image or group to draw from.
    """

    mean: float
    low: float | None
    high: float | None
    group_low: float | None
    group_high: float | None
    n: int


class TargetSummary(Closed):
    """Scores of one class, over the images that show it; absent images only count towards ``false_masks``.

    false_masks: share of the images without the target in which something was painted, null when there are none.
    """

    n_images: int
    n_groups: int
    metrics: dict[str, Mean]
    n_absent: int
    false_masks: float | None


class Summary(Closed):
    """``summary.json``. errors: rows without a score by code. skipped: manifest rows without a mask by kind."""

    manifest: str
    model: str
    words: str | None
    n_images: int
    n_groups: int
    n_scored: int
    overall: TargetSummary | None
    by_class: dict[str, TargetSummary]
    errors: dict[str, int]
    skipped: dict[str, int]
    seconds: float


def summarise(
    rows: Sequence[ScoreRow],
    *,
    manifest: str,
    model: str,
    words: str | None,
    skipped: dict[str, int],
    seconds: float,
) -> Summary:
    """Means by class and overall (over images, so a class weighs as much as it has images)."""
    scored = [row for row in rows if row.dice is not None]
    classes = sorted({row.mask_class for row in scored})
    return Summary(
        manifest=manifest,
        model=model,
        words=words,
        n_images=len({row.file for row in rows}),
        n_groups=len({row.group or row.file for row in rows}),
        n_scored=len(scored),
        overall=_target(scored) if scored else None,
        by_class={name: _target([row for row in scored if row.mask_class == name]) for name in classes},
        errors=dict(Counter(row.error for row in rows if row.error)),
        skipped=dict(skipped),
        seconds=round(seconds, 3),
    )


def _target(rows: Sequence[ScoreRow]) -> TargetSummary:
    present = [row for row in rows if row.target_present]
    absent = [row for row in rows if not row.target_present]
    means = {}
    for metric in METRICS:
        having = [row for row in present if getattr(row, metric) is not None]
        if having:
            values = [float(getattr(row, metric)) for row in having]
            images = bootstrap(values)
            # images of one patient are alike, so whole patients are drawn
            groups = bootstrap(values, [row.group or row.file for row in having])
            means[metric] = Mean(**asdict(images), group_low=groups.low, group_high=groups.high)
    return TargetSummary(
        n_images=len(present),
        n_groups=len({row.group or row.file for row in present}),
        metrics=means,
        n_absent=len(absent),
        false_masks=sum(bool(row.predicted_px) for row in absent) / len(absent) if absent else None,
    )
