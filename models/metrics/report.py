"""The evaluation as a reader wants it: tables, what trivial answers would score, and trends beside the published ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from tissuetalk.models.metrics import levels
from tissuetalk.models.metrics.oracles import PUBLISHED_EFFICIENCY
from tissuetalk.models.metrics.statistics import Interval, bootstrap
from tissuetalk.models.metrics.tables import Series, csv_text, curves_svg, intervals_svg, table, with_limits

Trend = Literal["shape", "size", "density"]
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

AXES: Final[Mapping[Trend, str]] = {
    "shape": "circularity (1 - irregularity)",
    "size": "instance ratio",
    "density": "instance count",
}
BIN_WIDTH: Final[Mapping[Trend, float]] = {"shape": 0.05, "size": 0.05, "density": 2.0}

PUBLISHED: Final[Mapping[Trend, Mapping[str, Curve]]] = {
    "shape": {
        "MedSAM": lambda x: -0.8436 * np.exp(-4.4946 * x) + 0.9802,
        "PathSegmentor": lambda x: 0.2085 * x + 0.7998,
    },
    "size": {
        "MedSAM": lambda x: -0.7653 * np.exp(-14.1092 * x) + 0.8978,
        "PathSegmentor": lambda x: -0.4800 * np.exp(-17.2893 * x) + 0.9586,
    },
    "density": {
        # as printed; it falls from a pole at 0, see published_at
        "MedSAM": lambda x: 93.4330 / (173.6386 * x) + 0.1192,
        "PathSegmentor": lambda x: 0.0003 * x + 0.7240,
    },
}
"""Dice as a function of the axis, as fitted in arXiv 2506.20988."""

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
        parts += ["## Trends of Dice", *(_trend(present, trend) for trend in AXES), _extremes(present)]
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
        drawn |= {f"trend-{trend}.svg": trend_svg(present, trend) for trend in AXES}
    return drawn | levels.level_plots(levels.members(rows))


def trend_svg(rows: Rows, trend: Trend) -> str:
    """Plot of binned Dice over one characteristic, our own fit, and both published curves over the same range."""
    bins = _bins(rows, trend)
    x = np.linspace(max(bins[0].x, 1e-3), max(bins[-1].x, bins[0].x + 1e-3), 60)
    fitted = fit(bins, trend)
    drawn = [Series("this model", [b.x for b in bins], [b.dice for b in bins], line=False, dots=True)]
    if fitted is not None:
        drawn.append(Series("fit to this model", x.tolist(), fitted.at(x).tolist()))
    drawn += [
        Series(f"{name}, published", x.tolist(), curve(x).tolist())
        for name, curve in PUBLISHED[trend].items()
    ]
    return curves_svg(f"Dice and {trend}", AXES[trend], "Dice", drawn)


def trends_csv(rows: Rows) -> str:
    """Binned Dice over shape, size and density; empty below the fewest images that show a trend."""
    present = [row for row in rows if row["dice"] is not None and row["target_present"]]
    if len(present) < FEWEST_FOR_TRENDS:
        return ""
    return csv_text(
        {"trend": trend, **asdict(one)}
        | {f"{name}_published_fit": published_at(trend, name, one.x) for name in PUBLISHED_NAMES}
        for trend in AXES
        for one in _bins(present, trend)
    )


def scores_svg(rows: Rows) -> str:
    """Plot of mean Dice and interval per class."""
    means = {name: _mean(members, "dice") for name, members in _classes(rows)}
    return intervals_svg("Dice per target", means)


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


def _bins(rows: Rows, trend: Trend) -> list[Bin]:
    axis = {
        "shape": [1.0 - float(row["irregularity"]) for row in rows],
        "size": [float(row["instance_ratio"]) for row in rows],
        "density": [float(row["instance_count"]) for row in rows],
    }[trend]
    return binned(axis, [float(row["dice"]) for row in rows], BIN_WIDTH[trend])


def _trend(rows: Rows, trend: Trend) -> str:
    bins = _bins(rows, trend)
    lines = [
        [f"{one.low:g} to {one.high:g}", str(one.n), f"{one.dice:.3f}"]
        + [f"{published_at(trend, name, one.x):.3f}" for name in PUBLISHED_NAMES]
        for one in bins
    ]
    header = [AXES[trend], "n", "Dice", *(f"{name}, published fit" for name in PUBLISHED_NAMES)]
    fitted = fit(bins, trend)
    said = f"Fit to this model: `{fitted.formula}`." if fitted else "Too few bins for a fit."
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


@dataclass(frozen=True)
class Bin:
    """Samples whose axis value lies in [low, high): their centre of weight and weighted mean Dice."""

    low: float
    high: float
    x: float
    dice: float
    n: int


def binned(axis: ArrayLike, dice: ArrayLike, width: float) -> list[Bin]:
    """Mean Dice per bin of ``width``, skipping empty ones; axis and dice are [N].

    Samples that share an axis value are averaged first; inside a bin each value weighs as much as the kernel density
    of all samples there, so that a lonely outlier does not decide a bin.
    """
    x, y = np.asarray(axis, dtype=np.float64), np.asarray(dice, dtype=np.float64)
    values, rank, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(rank, weights=y) / counts
    spread = values.size > 1 and float(np.ptp(x)) > 0
    # a density needs at least two different values
    weights = stats.gaussian_kde(x)(values) if spread else np.ones(values.size)
    # 1e-9: a value on an edge belongs to the bin above, whatever its last bit
    index = np.floor(values / width + 1e-9).astype(np.int64)
    bins = []
    for k in np.unique(index).tolist():
        here = index == k
        centre = float(np.average(values[here], weights=weights[here]))
        mean = float(np.average(means[here], weights=weights[here]))
        bins.append(Bin(k * width, (k + 1) * width, centre, mean, int(counts[here].sum())))
    return bins


@dataclass(frozen=True)
class Fit:
    """A curve through bins, and its formula for a reader."""

    at: Curve
    formula: str


def fit(bins: list[Bin], trend: Trend) -> Fit | None:
    """The published form for this trend by least squares; None where there are too few bins for it.

    A line for shape and density; ``ceiling - drop * exp(-rate * x)`` for size.
    """
    x, y = np.array([b.x for b in bins]), np.array([b.dice for b in bins])
    if len(bins) < (4 if trend == "size" else 2):
        return None
    if trend != "size":
        slope, intercept = np.polyfit(x, y, 1).tolist()
        return Fit(lambda x: slope * x + intercept, f"{slope:.4g} x {intercept:+.4g}")

    def misfit(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(p[2] - p[0] * np.exp(-p[1] * x) - y)

    start = [0.48, 17.2893, 0.9586]  # published for PathSegmentor
    found = optimize.least_squares(misfit, start, bounds=([-1, 0, 0], [1, 200, 1]))
    drop, rate, ceiling = found.x.tolist()
    formula = f"{ceiling:.4g} {-drop:+.4g} exp(-{rate:.4g} x)"
    return Fit(lambda x: np.asarray(ceiling - drop * np.exp(-rate * x)), formula)


def published_at(trend: Trend, method: str, x: float) -> float:
    """A published fit at one value, kept within 0..1 (the density fit of MedSAM has a pole at 0)."""
    value = PUBLISHED[trend][method](np.array([max(x, 1e-3)]))
    return float(np.clip(value[0], 0.0, 1.0))
