"""Pictures of measures: where objects are dense, where the densest 2 mm² lie, how sizes are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tissuetalk.models.images import Box
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.layer import Layer, Place, needs_scale
from tissuetalk.tools.measure.hotspot import AREA_MM2, Hotspot, binned
from tissuetalk.tools.measure.values import Value, name_of

ABOUT_CELLS = 40
"""Squares of a heat map along the longer side, about."""
LEAST_CELL_UM = 50.0
COLOURS = cv2.COLORMAP_PLASMA
MOST_DOTS = 20_000
"""More objects than this in one view would hide the tissue, and are not drawn."""
STRONGEST = 0.85
"""How far the colour of the highest square covers the slide; a square of nothing keeps the slide's own grey."""
_WHITE, _INK, _CIRCLE = (255, 255, 255), (0, 0, 0), (0, 90, 255)


@dataclass(frozen=True)
class HeatMap:
    """One figure per square of the region. figures: [rows, columns], NaN where there is no tissue."""

    figures: NDArray[np.float64]
    cell_um: float
    cell_px: float
    unit: str
    rule: str


def heat_map(layer: Layer, place: Place) -> HeatMap:
    """Density of objects, or share of a region, in squares of a round size. Raises InvalidArgumentError without a scale."""
    mpp = needs_scale(place, "heatmap")
    longest_um = max(place.region.width, place.region.height) * mpp
    cell_um = max(LEAST_CELL_UM, drawing.round_length(longest_um / ABOUT_CELLS))
    cell_px = cell_um / mpp
    tissue_px = _area_per_cell(place.tissue.values, place, cell_px)
    if layer.has_objects:
        held = binned(layer, place, cell_px).astype(np.float64)
        figures = held / (cell_um**2 / 1e6)
        unit, of = "per mm²", "centroids per area of squares"
    else:
        share = np.zeros(tissue_px.shape)
        for piece in layer.rasters():
            share += _area_per_cell(
                piece.values, place, cell_px, (piece.x0, piece.y0), (piece.step_x, piece.step_y)
            )
        held = share
        # a mask pixel goes to the square its middle lies in, so a full square can gain a pixel's width
        figures = np.minimum(share / _cell_areas(place, cell_px, share.shape), 1.0)
        unit, of = "of the square", "mask area / area of squares"
    figures[(tissue_px == 0) & (held == 0)] = np.nan
    return HeatMap(
        figures, cell_um, cell_px, unit, f"{of} of {cell_um:g} µm; squares without tissue left out"
    )


def _area_per_cell(
    values: NDArray[np.bool_],
    place: Place,
    cell_px: float,
    corner: tuple[float, float] | None = None,
    step: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """Full-resolution pixels that are marked in each square. The picture covers the region unless told otherwise."""
    region = place.region
    x0, y0 = corner or (region.x0, region.y0)
    step_x, step_y = step or (region.width / values.shape[1], region.height / values.shape[0])
    columns, rows = math.ceil(region.width / cell_px), math.ceil(region.height / cell_px)
    column = ((x0 - region.x0 + (np.arange(values.shape[1]) + 0.5) * step_x) // cell_px).astype(np.int64)
    row = ((y0 - region.y0 + (np.arange(values.shape[0]) + 0.5) * step_y) // cell_px).astype(np.int64)
    area = np.zeros((rows, columns))
    across = np.stack(
        [np.bincount(column, weights=line, minlength=columns) for line in values.astype(np.float64)]
    )
    np.add.at(area, np.minimum(row, rows - 1), across[:, :columns])
    return np.asarray(area * step_x * step_y, np.float64)


def _cell_areas(place: Place, cell_px: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Area of each square that lies in the region: those on the right and at the bottom are cut."""
    rows, columns = shape
    widths = np.minimum(cell_px, place.region.width - np.arange(columns) * cell_px)
    heights = np.minimum(cell_px, place.region.height - np.arange(rows) * cell_px)
    return np.asarray(heights[:, None] * widths[None, :], np.float64)


def values(layer: Layer, heat: HeatMap) -> list[Value]:
    """Highest and median square, and where the highest is."""
    known = heat.figures[~np.isnan(heat.figures)]
    if not known.size:
        return [Value("heatmap.max", None, heat.unit, f"no tissue; {heat.rule}")]
    return [
        Value("heatmap.max", float(known.max()), heat.unit, f"highest of: {heat.rule}"),
        Value("heatmap.median", float(np.median(known)), heat.unit, f"median of: {heat.rule}"),
    ]


def draw_heat_map(layer: Layer, place: Place, heat: HeatMap) -> Image.Image:
    """The squares over the grey slide, with a colour bar that says the unit, and a scale bar."""
    region = place.region
    width, height = drawing.picture_size(region, 900)
    grey = cv2.cvtColor(place.background(region, width, height), cv2.COLOR_RGB2GRAY)
    canvas = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB).astype(np.float32)
    x = ((np.arange(width) + 0.5) * region.width / width // heat.cell_px).astype(int)
    y = ((np.arange(height) + 0.5) * region.height / height // heat.cell_px).astype(int)
    shown = heat.figures[
        np.ix_(np.minimum(y, heat.figures.shape[0] - 1), np.minimum(x, heat.figures.shape[1] - 1))
    ]
    known = ~np.isnan(shown)
    top = float(np.nanmax(heat.figures)) if known.any() else 0.0
    share = np.where(known, shown, 0.0) / (top or 1.0)
    picture = Image.fromarray(_tinted(canvas, share))
    drawing.scale_bar(picture, needs_scale(place, "heatmap") * region.width / width)
    return _with_colour_bar(
        picture, top, f"{name_of(layer.record)}: {heat.unit}, squares of {heat.cell_um:g} um"
    )


def _tinted(canvas: NDArray[Any], share: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[h, w, 3] pixels coloured by a share of 0..1: the higher, the less of the pixels is seen."""
    level = np.round(share * 255).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(level, COLOURS), cv2.COLOR_BGR2RGB)
    cover = STRONGEST * np.sqrt(share)[..., None]
    return np.asarray(cover * colour + (1 - cover) * canvas, np.uint8)


def _with_colour_bar(picture: Image.Image, top: float, caption: str) -> Image.Image:
    whole = Image.new("RGB", (max(picture.width, 420), picture.height + 62), _WHITE)
    whole.paste(picture, (0, 0))
    ramp = np.repeat(np.linspace(0.0, 1.0, 300)[None, :], 14, axis=0)
    whole.paste(Image.fromarray(_tinted(np.full((14, 300, 3), 200.0), ramp)), (10, picture.height + 28))
    brush = ImageDraw.Draw(whole)
    brush.text((10, picture.height + 6), plain(caption), fill=_INK, font=drawing.font(15))
    for at, figure in ((0.0, 0.0), (0.5, top / 2), (1.0, top)):
        text = f"{figure:,.0f}" if top >= 100 else f"{figure:.3g}"
        length = brush.textlength(text, font=drawing.font(13))
        left = 10 + at * 300 - (length / 2 if at else 0)
        brush.text((left, picture.height + 43), text, fill=_INK, font=drawing.font(13))
    return whole


def draw_hotspot(layer: Layer, place: Place, spot: Hotspot) -> Image.Image:
    """The slide with the circle and every object as a dot; beside it the circle enlarged."""
    region = place.region
    width, height = drawing.picture_size(region, 640)
    near = Box(
        math.floor(spot.x - spot.radius_px),
        math.floor(spot.y - spot.radius_px),
        math.ceil(spot.x + spot.radius_px),
        math.ceil(spot.y + spot.radius_px),
    )
    side = max(360, min(640, height))
    dot_px = sum(spot.count < few for few in (600, 6_000))
    whole = _dotted(layer, place, spot, region, (width, height), dot_px=max(0, dot_px - 1))
    enlarged = _dotted(layer, place, spot, near, (side, side), dot_px=dot_px)
    caption = (
        f"{name_of(layer.record)}: {spot.count} of {layer.count()} in the densest {AREA_MM2:g} mm2, "
        f"centre x {spot.x:.0f}, y {spot.y:.0f} px"
    )
    return _side_by_side([whole, enlarged], caption)


def _dotted(
    layer: Layer, place: Place, spot: Hotspot, box: Box, size: tuple[int, int], dot_px: int
) -> Image.Image:
    """A view with a dot of ``2 * dot_px + 1`` px at every centroid, and the circle."""
    width, height = size
    pixels = place.background(box, width, height).copy()
    scale = width / box.width
    reach = np.arange(-dot_px, dot_px + 1)
    shown = layer.count() if box == place.region else spot.count
    corners = (box.x0, box.y0, box.x1, box.y1)
    for batch in layer.points(corners) if shown <= MOST_DOTS else ():
        at = ((batch - (box.x0, box.y0)) * scale).astype(np.int64)
        rows = np.clip(at[:, 1, None, None] + reach[:, None], 0, height - 1)
        columns = np.clip(at[:, 0, None, None] + reach[None, :], 0, width - 1)
        pixels[rows, columns] = drawing.rgb(layer.record.colour)
    picture = Image.fromarray(pixels)
    x, y, radius = (spot.x - box.x0) * scale, (spot.y - box.y0) * scale, spot.radius_px * scale
    ImageDraw.Draw(picture).ellipse(
        (x - radius, y - radius, x + radius, y + radius), outline=_CIRCLE, width=3
    )
    drawing.scale_bar(picture, needs_scale(place, "hotspot") / scale)
    return picture


def _side_by_side(pictures: Sequence[Image.Image], caption: str) -> Image.Image:
    width, height = sum(each.width for each in pictures) + 10, max(each.height for each in pictures)
    whole = Image.new("RGB", (width, height + 28), _WHITE)
    left = 0
    for each in pictures:
        whole.paste(each, (left, 0))
        left += each.width + 10
    ImageDraw.Draw(whole).text((8, height + 6), plain(caption), fill=_INK, font=drawing.font(15))
    return whole


def plain(text: str) -> str:
    """In letters that the font has."""
    return text.replace("µ", "u").replace("²", "2")
