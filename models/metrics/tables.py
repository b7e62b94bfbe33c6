"""Tables as text: CSV for programs, Markdown for readers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from tissuetalk.models.metrics.bootstrap import Interval


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with empty cells for None and four decimals for floats."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row])
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
