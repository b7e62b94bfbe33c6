"""Small SVG plots without a plotting library: points with intervals, and curves over binned points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tissuetalk.models.metrics.bootstrap import Interval

COLOURS: Final = ("#1f4e9c", "#c2410c", "#15803d", "#7e22ce", "#525252")
_TEXT: Final = 'font-family="sans-serif" font-size="12" fill="#222"'


def intervals_svg(title: str, entries: Mapping[str, Interval]) -> str:
    """One line per entry on a 0..1 axis: the mean as a dot, its 95 % interval as a bar."""
    left, width, row = max(230, 16 + 7 * max(map(len, entries), default=0)), 360, 22
    height = 60 + row * len(entries)
    parts = [f'<text x="8" y="20" {_TEXT} font-weight="bold">{escape(title)}</text>']
    parts += _x_axis(left, width, 34, height - 22, 0.0, 1.0)
    for number, (name, entry) in enumerate(entries.items()):
        y = 48 + row * number
        low = entry.mean if entry.low is None else entry.low
        high = entry.mean if entry.high is None else entry.high
        parts += [
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end" {_TEXT}>{escape(name)}</text>',
            (
                f'<line x1="{left + width * low:.1f}" x2="{left + width * high:.1f}" y1="{y}" y2="{y}" '
                f'stroke="{COLOURS[0]}" stroke-width="3"/>'
            ),
            f'<circle cx="{left + width * entry.mean:.1f}" cy="{y}" r="4.5" fill="{COLOURS[0]}"/>',
            f'<text x="{left + width + 12}" y="{y + 4}" {_TEXT}>{entry.mean:.3f} (n {entry.n})</text>',
        ]
    return _svg(left + width + 110, height, parts)


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
    every_x = [value for one in series for value in one.x]
    if not every_x:
        raise ValueError("nothing to plot")
    low, high = min(every_x), max(every_x)
    span = (high - low) or 1.0
    left, top, width, height = 52, 34, 420, 240

    def at(x: float, y: float) -> str:
        return (
            f"{left + width * (x - low) / span:.1f},{top + height * (1 - min(max(y / top_y, 0.0), 1.0)):.1f}"
        )

    parts = [f'<text x="8" y="20" {_TEXT} font-weight="bold">{escape(title)}</text>']
    parts += _x_axis(left, width, top, top + height, low, low + span)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, tick = top + height * (1 - share), share * top_y
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" {_TEXT}>{tick:g}</text>')
    parts.append(
        f'<text x="{left}" y="{top + height + 36}" {_TEXT}>{escape(x_label)}; y: {escape(y_label)}</text>'
    )
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        points = [at(x, y) for x, y in zip(one.x, one.y, strict=True)]
        if one.line:
            parts.append(
                f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>'
            )
        if one.dots:
            for point in points:
                across, down = point.split(",")
                parts.append(f'<circle cx="{across}" cy="{down}" r="3.5" fill="{colour}"/>')
        parts.append(
            f'<text x="{left + width + 12}" y="{top + 14 + 18 * number}" font-family="sans-serif" font-size="12" '
            f'fill="{colour}">{escape(one.name)}</text>'
        )
    return _svg(left + width + 170, top + height + 46, parts)


def _x_axis(left: float, width: float, top: float, bottom: float, low: float, high: float) -> list[str]:
    parts = [f'<line x1="{left}" x2="{left + width}" y1="{bottom}" y2="{bottom}" stroke="#888"/>']
    for step in range(5):
        x = left + width * step / 4
        value = low + (high - low) * step / 4
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" {_TEXT}>{value:.3g}</text>')
    return parts


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
