"""How sizes and distances are distributed, as percentiles and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tissuetalk.models.masks.object_table import RULES
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.layer import Layer, Place
from tissuetalk.tools.measure.heatmaps import plain
from tissuetalk.tools.measure.neighbours import nearest_px
from tissuetalk.tools.measure.values import Value, name_of

PERCENTILES = (5, 25, 50, 75, 95)
BARS = 40
SHOWN_SHARE = 99.0
"""Bars end at this percentile; the last bar holds everything beyond."""
PANEL_PX = (460, 300)
_EDGE = 44


@dataclass(frozen=True)
class Histogram:
    """All figures of one kind of one mask."""

    of: str
    figures: NDArray[np.float64]
    unit: str
    rule: str


def histograms(layer: Layer, place: Place) -> list[Histogram]:
    """Area of the objects and distance to the nearest other one; nothing for a region."""
    if not layer.has_objects:
        return []
    mpp = place.mpp
    areas = np.concatenate([*layer.numbers("area_px"), np.zeros(0)])
    gaps = np.concatenate([*nearest_px(layer, place), np.zeros(0)])
    return [
        Histogram("size", areas * (mpp or 1) ** 2, "px" if mpp is None else "µm²", "area of each object"),
        Histogram(
            "distance", gaps * (mpp or 1), "px" if mpp is None else "µm", RULES["nearest_neighbour_px"]
        ),
    ]


def values(found: Histogram) -> Iterator[Value]:
    for share in PERCENTILES:
        figure = float(np.percentile(found.figures, share)) if found.figures.size else None
        rule = f"percentile {share} of: {found.rule}"
        yield Value(f"histogram.{found.of}.p{share}", figure, found.unit, rule)


def draw(layer: Layer, found: list[Histogram]) -> Image.Image:
    """One panel per kind, side by side."""
    width, height = PANEL_PX
    whole = Image.new("RGB", (width * len(found), height), (255, 255, 255))
    for number, each in enumerate(found):
        whole.paste(
            _panel(f"{name_of(layer.record)}: {each.of}", each, drawing.rgb(layer.record.colour)),
            (number * width, 0),
        )
    return whole


def _panel(title: str, found: Histogram, colour: tuple[int, int, int]) -> Image.Image:
    width, height = PANEL_PX
    panel = Image.new("RGB", PANEL_PX, (255, 255, 255))
    brush = ImageDraw.Draw(panel)
    number = found.figures.size
    brush.text(
        (_EDGE, 8), plain(f"{title} ({found.unit}), {number} objects"), fill=(0, 0, 0), font=drawing.font(14)
    )
    left, right, top, foot = _EDGE, width - 16, 36, height - 40
    brush.line((left, foot, right, foot), fill=(0, 0, 0))
    if not number:
        brush.text((left + 8, top + 8), "nothing to show", fill=(0, 0, 0), font=drawing.font(13))
        return panel
    end = float(np.percentile(found.figures, SHOWN_SHARE)) or 1.0
    held, edges = np.histogram(np.minimum(found.figures, end), bins=BARS, range=(0.0, end))
    step = (right - left) / BARS
    for bar, count in enumerate(held):
        high = foot - (foot - top) * count / held.max()
        brush.rectangle(
            (left + bar * step, high, left + (bar + 1) * step - 1, foot), fill=colour, outline=(70, 70, 70)
        )
    for at in (0, BARS // 2, BARS):
        more = "+" if at == BARS else ""
        text = f"{edges[at]:.3g}{more}"
        place = left + at * step - brush.textlength(text, font=drawing.font(12)) / 2
        brush.text((min(place, width - 42), foot + 5), text, fill=(0, 0, 0), font=drawing.font(12))
    brush.text((4, top - 6), f"{held.max()}", fill=(0, 0, 0), font=drawing.font(12))
    middle = left + min(float(np.median(found.figures)), end) / end * (right - left)
    brush.line((middle, top, middle, foot), fill=(200, 0, 0), width=2)
    brush.text((middle + 4, top), "median", fill=(200, 0, 0), font=drawing.font(12))
    return panel
