"""The evaluation as a reader wants it: tables, what trivial answers would score, and trends beside the published ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from tissuetalk.models.metrics import levels, trends
from tissuetalk.models.metrics.oracles import PUBLISHED_EFFICIENCY
from tissuetalk.models.metrics.statistics import Interval, bootstrap
from tissuetalk.models.metrics.tables import Series, csv_text, curves_svg, intervals_svg, table, with_limits
from tissuetalk.models.metrics.trends import Trend

Rows = Sequence[Mapping[str, Any]]
METRICS: Final = ("dice", "precision", "recall", "pq", "aji", "f1")
FEWEST_FOR_TRENDS: Final = 8
PUBLISHED_NAMES: Final = ("MedSAM", "PathSegmentor")


def report(rows: Rows, *, model: str, pictures: Iterable[str]) -> str:
    """Markdown report of the rows of ``scores.csv`` (as mappings, None for an empty cell). pictures: names of its plots."""
    scored = [row for row in rows if row["dice"] is not None]
    present = [row for row in scored if row["target_present"]]
    parts = [
        f"# Evaluation of {model}",
        (
            f"{len({row['file'] for row in rows})} images, {len(scored)} of {len(rows)} image-target pairs scored. "
            "Means over images that show the target, with 95 % bootstrap intervals over images."
        ),
    ]
    if present:
        parts += ["## Scores", _scores(present), "## What other answers would score", _orientation(present)]
    absent = [row for row in scored if not row["target_present"]]
    if absent:
        painted = sum(bool(row["predicted_px"]) for row in absent)
        parts += ["## Images without the target", f"Something was painted in {painted} of {len(absent)}."]
    if len(present) >= FEWEST_FOR_TRENDS:
        parts += ["## Trends of Dice", *(_trend(present, trend) for trend in trends.AXES), _extremes(present)]
    found = levels.members(rows)
    if found:
        parts += ["## Levels of the label system", levels.levels_markdown(found)]
    if present:
        parts += ["## Plots", *(f"![{name}]({name})" for name in pictures)]
    failed = [row for row in rows if row["error"]]
    if failed:
        lines = [[str(row["file"]), str(row["mask_class"]), str(row["error"])] for row in failed]
        parts += ["## Not scored", table(["file", "target", "code"], lines)]
    return "\n\n".join(parts) + "\n"


def plots(rows: Rows) -> dict[str, str]:
    """SVG texts by file name: Dice per target, and trends when there are enough images for them."""
    present = [row for row in rows if row["dice"] is not None and row["target_present"]]
    drawn = {"dice.svg": scores_svg(present)} if present else {}
    if len(present) >= FEWEST_FOR_TRENDS:
        drawn |= {f"trend-{trend}.svg": trend_svg(present, trend) for trend in trends.AXES}
    return drawn | levels.level_plots(levels.members(rows))


def trend_svg(rows: Rows, trend: Trend) -> str:
    """Plot of binned Dice over one characteristic, our own fit, and both published curves over the same range."""
    bins = _bins(rows, trend)
    x = np.linspace(max(bins[0].x, 1e-3), max(bins[-1].x, bins[0].x + 1e-3), 60)
    fit = trends.fit(bins, trend)
    drawn = [Series("this model", [b.x for b in bins], [b.dice for b in bins], line=False, dots=True)]
    if fit is not None:
        drawn.append(Series("fit to this model", x.tolist(), fit.at(x).tolist()))
    drawn += [
        Series(f"{name}, published", x.tolist(), curve(x).tolist())
        for name, curve in trends.PUBLISHED[trend].items()
    ]
    return curves_svg(f"Dice and {trend}", trends.AXES[trend], "Dice", drawn)


def trends_csv(rows: Rows) -> str:
    """Binned Dice over shape, size and density; empty below the fewest images that show a trend."""
    present = [row for row in rows if row["dice"] is not None and row["target_present"]]
    if len(present) < FEWEST_FOR_TRENDS:
        return ""
    return csv_text(
        {"trend": trend, **asdict(one)}
        | {f"{name}_published_fit": trends.published_at(trend, name, one.x) for name in PUBLISHED_NAMES}
        for trend in trends.AXES
        for one in _bins(present, trend)
    )


def scores_svg(rows: Rows) -> str:
    """Plot of mean Dice and interval per class."""
    return intervals_svg(
        "Dice per target", {name: _mean(members, "dice") for name, members in _classes(rows)}
    )


def _classes(rows: Rows) -> list[tuple[str, Rows]]:
    names = sorted({str(row["mask_class"]) for row in rows})
    return [(name, [row for row in rows if row["mask_class"] == name]) for name in names]


def _mean(rows: Rows, metric: str) -> Interval:
    return bootstrap([float(row[metric]) for row in rows])


def _scores(rows: Rows) -> str:
    metrics = [metric for metric in METRICS if any(row[metric] is not None for row in rows)]
    lines = []
    for name, members in [*_classes(rows), ("all", rows)]:
        cells = []
        for metric in metrics:
            having = [row for row in members if row[metric] is not None]
            cells.append(with_limits(_mean(having, metric)) if having else "")
        lines.append([name, str(len(members)), *cells])
    return table(["target", "n", *metrics], lines)


def _orientation(rows: Rows) -> str:
    """Trivial and oracle answers on the same images, then the published prompt efficiency."""
    # what an expert would have to click: the annotated objects, or components where they are not told apart
    counts = [row["instance_count"] if row["n_true"] is None else row["n_true"] for row in rows]
    mean_count = float(np.mean(counts))
    lines = [
        ["this model, text", "1.0", with_limits(_mean(rows, "dice"))],
        ["painting everything", "0.0", with_limits(_mean(rows, "everything_dice"))],
        ["true box of every object, painted", f"{mean_count:.1f}", with_limits(_mean(rows, "boxes_dice"))],
        *(
            [f"{entry.method}, published on PathSeg", f"{entry.prompts_per_mask:.1f}", f"{entry.dice:.3f}"]
            for entry in PUBLISHED_EFFICIENCY
        ),
    ]
    return table(["answer", "prompts per mask", "Dice"], lines)


def _bins(rows: Rows, trend: Trend) -> list[trends.Bin]:
    axis = {
        "shape": [1.0 - float(row["irregularity"]) for row in rows],
        "size": [float(row["instance_ratio"]) for row in rows],
        "density": [float(row["instance_count"]) for row in rows],
    }[trend]
    return trends.binned(axis, [float(row["dice"]) for row in rows], trends.BIN_WIDTH[trend])


def _trend(rows: Rows, trend: Trend) -> str:
    bins = _bins(rows, trend)
    lines = [
        [f"{one.low:g} to {one.high:g}", str(one.n), f"{one.dice:.3f}"]
        + [f"{trends.published_at(trend, name, one.x):.3f}" for name in PUBLISHED_NAMES]
        for one in bins
    ]
    header = [trends.AXES[trend], "n", "Dice", *(f"{name}, published fit" for name in PUBLISHED_NAMES)]
    fit = trends.fit(bins, trend)
    said = f"Fit to this model: `{fit.formula}`." if fit else "Too few bins for a fit."
    return f"### {trend}\n\n{said}\n\n{table(header, lines)}"


def _extremes(rows: Rows) -> str:
    """The two hardest corners the paper reports: very irregular masks, and very small objects."""
    lines = []
    for name, (key, low, high), figures in (
        ("irregularity 0.95 and more", ("irregularity", 0.95, 1.01), (0.282, 0.790)),
        ("instance ratio below 0.05", ("instance_ratio", 0.0, 0.05), (0.159, 0.531)),
    ):
        here = [row for row in rows if low <= float(row[key]) < high]
        ours = with_limits(_mean(here, "dice")) if here else ""
        lines.append([name, str(len(here)), ours, *(f"{figure:.3f}" for figure in figures)])
    return table(
        ["images with", "n", "Dice", "MedSAM union box, published", "PathSegmentor, published"], lines
    )
