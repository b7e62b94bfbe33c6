"""Figures for programs and readers: CSV, Markdown tables, and SVG plots."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tissuetalk.models.metrics.statistics import Interval
from tissuetalk.models.writing import CsvWriter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: Final = ("#1f4e9c", "#c2410c", "#15803d", "#7e22ce", "#525252")


def csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """CSV with empty cells for None and what a row lacks, and floats to four decimals. columns: by default the first row's."""
    rows = list(rows)
    text = io.StringIO()
    writer = CsvWriter(text, columns or list(rows[0] if rows else ()))
    writer.header()
    for row in rows:
        writer.row({key: f"{cell:.4f}" if isinstance(cell, float) else cell for key, cell in row.items()})
    return text.getvalue()


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; ``|`` inside a cell is escaped."""
    written = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in written)


def with_limits(interval: Interval) -> str:
    """``0.812 [0.790, 0.833]``, or only the mean where there is no interval."""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def intervals_svg(title: str, entries: Mapping[str, Interval]) -> str:
    """One line per entry on a 0..1 axis: the mean as a dot, its 95 % interval as a bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.0 + 0.3 * len(entries)), layout="constrained")
    axes = figure.add_subplot()
    for row, one in enumerate(entries.values()):
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [row, row], color=COLOURS[0], linewidth=3)
        axes.plot([one.mean], [row], "o", color=COLOURS[0])
    # parse_math=False: a $ in a name is a dollar
    labels = [f"{name}   {one.mean:.3f} (n {one.n})" for name, one in entries.items()]
    axes.set_yticks(range(len(entries)), labels, parse_math=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_title(title, parse_math=False)
    return _svg(figure)


@dataclass(frozen=True)
class Series:
    """Named points in order of x; drawn as a line, as dots, or both."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    line: bool = True
    dots: bool = False


def curves_svg(
    title: str, x_label: str, y_label: str, series: Sequence[Series], *, top_y: float = 1.0
) -> str:
    """Several series on shared axes; y runs from 0 to ``top_y``."""
    from matplotlib.figure import Figure

    if not any(one.x for one in series):
        raise ValueError("nothing to plot")
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    for number, one in enumerate(series):
        style, colour = ("o" if one.dots else "") + ("-" if one.line else ""), COLOURS[number % len(COLOURS)]
        axes.plot(one.x, one.y, style, color=colour, label=one.name)
    axes.set_ylim(0, top_y)
    axes.grid(color="#e5e5e5")
    axes.set_title(title, parse_math=False)
    figure.legend(loc="outside right upper", frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """The same figure always gives the same text."""
    from matplotlib import rc_context

    text = io.StringIO()
    # text stays text; ids are not random
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tissuetalk"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
