"""Metrics that are drawn: where objects are dense, where the densest 2 mm² lie, how sizes are distributed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.rasters import Raster
from tissuetalk.tools.masks.stored import SegmentedRegion
from tissuetalk.tools.measure import hotspot
from tissuetalk.tools.measure.values import GAP_RULE, Finding, Value, areas, gaps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT_CELLS = 40
"""Squares of a heat map along the longer side, about."""
LEAST_CELL_UM = 50.0
COLOURS = cv2.COLORMAP_PLASMA
STRONGEST = 0.85
"""How far the colour of the highest square covers the slide; a square of nothing keeps the slide's own grey."""
MOST_DOTS = 20_000
"""More objects than this in one view would hide the tissue, and are not drawn."""
PERCENTILES = (5, 25, 50, 75, 95)
BARS = 40
SHOWN_SHARE = 99.0
"""Bars end at this percentile; the last bar holds everything beyond."""
FOLDER = "pictures"
MOST_ON_SHEET = 4
_NAME = re.compile(r"[a-z]+_msk_[a-z0-9]+\.png")
_CIRCLE = (0, 90, 255)


def heat_maps(masks: SegmentedRegion) -> Iterator[Finding]:
    """Highest and median square of every mask, and the map."""
    for layer in masks.layers:
        heat = heat_map(layer, masks)
        known = heat.figures[~np.isnan(heat.figures)]
        for of, function in (("max", np.max), ("median", np.median)):
            value = float(function(known)) if known.size else None
            yield layer, Value(f"heatmap.{of}", value, heat.unit, f"{of} of: {heat.rule}")
        yield layer, _drawn_heat_map(layer, masks, heat)


@dataclass(frozen=True)
class HeatMap:
    """One figure per square of the region. figures: [rows, columns], NaN where there is no tissue."""

    figures: NDArray[np.float64]
    cell_um: float
    cell_px: float
    unit: str
    rule: str


def heat_map(layer: MaskLayer, masks: SegmentedRegion) -> HeatMap:
    """Density of objects, or share of a region, in squares of a round size. Raises InvalidArgumentError without a scale."""
    mpp, region = masks.needs_scale("heatmap"), masks.region
    longest_um = max(region.width, region.height) * mpp
    cell_um = max(LEAST_CELL_UM, drawing.round_length(longest_um / ABOUT_CELLS))
    cell_px = cell_um / mpp
    tissue_px = _area_per_cell(masks.tissue, region, cell_px)
    if layer.has_objects:
        held = hotspot.binned(layer, cell_px).astype(np.float64)
        figures = held / (cell_um**2 / 1e6)
        unit, of = "per mm²", "centroids per area of squares"
    else:
        held = np.zeros_like(tissue_px)
        for piece in layer.labels.rasters():
            held += _area_per_cell(piece, region, cell_px)
        # squares on the right and at the bottom are cut by the region; a mask pixel goes to the square its middle lies
        # in, so a full square can gain a pixel's width
        rows, columns = held.shape
        widths = np.minimum(cell_px, region.width - np.arange(columns) * cell_px)
        heights = np.minimum(cell_px, region.height - np.arange(rows) * cell_px)
        figures = np.minimum(held / (heights[:, None] * widths), 1.0)
        unit, of = "of the square", "mask area / area of squares"
    # objects on bare glass are shown, too: nothing that was counted is hidden
    figures[(tissue_px == 0) & (held == 0)] = np.nan
    rule = f"{of} of {cell_um:g} µm; squares without tissue left out"
    return HeatMap(figures, cell_um, cell_px, unit, rule)


def _area_per_cell(raster: Raster, region: Box, cell_px: float) -> NDArray[np.float64]:
    """[rows, columns]: full-resolution pixels that are marked in each square."""
    columns, rows = math.ceil(region.width / cell_px), math.ceil(region.height / cell_px)
    x, y = raster.middles
    column = np.clip((x - region.x0) // cell_px, 0, columns - 1).astype(np.int64)
    row = np.clip((y - region.y0) // cell_px, 0, rows - 1).astype(np.int64)
    lines = raster.values.astype(np.float64)
    area = np.zeros((rows, columns))
    np.add.at(area, row, [np.bincount(column, weights=line, minlength=columns) for line in lines])
    return area * raster.pixel_px


def _drawn_heat_map(layer: MaskLayer, masks: SegmentedRegion, heat: HeatMap) -> Image.Image:
    """The squares over the grey slide, with a scale bar, over a colour bar that says the unit."""
    region = masks.region
    width, height = drawing.picture_size(region, 900)
    grey = cv2.cvtColor(masks.background(region, width, height), cv2.COLOR_RGB2GRAY)
    canvas = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB).astype(np.float32)
    x = ((np.arange(width) + 0.5) * region.width / width // heat.cell_px).astype(int)
    y = ((np.arange(height) + 0.5) * region.height / height // heat.cell_px).astype(int)
    rows, columns = heat.figures.shape
    shown = np.nan_to_num(heat.figures)[np.ix_(np.minimum(y, rows - 1), np.minimum(x, columns - 1))]
    top = float(shown.max())
    picture = Image.fromarray(_tinted(canvas, shown / (top or 1.0)))
    drawing.scale_bar(picture, masks.needs_scale("heatmap") * region.width / width)

    def colour_bar(figure: Figure) -> None:
        axes = figure.subplots()
        ramp = _tinted(np.full((1, 256, 3), 200.0), np.linspace(0.0, 1.0, 256)[None, :])
        axes.imshow(ramp, extent=(0, top or 1.0, 0, 1), aspect="auto")
        axes.set_yticks([])
        # a name is what somebody wrote, not a formula
        axes.set_title(f"{layer.name}: {heat.unit}, squares of {heat.cell_um:g} µm", parse_math=False)

    return drawing.stacked([[picture], [drawing.plotted(420, 76, colour_bar)]])


def _tinted(canvas: NDArray[Any], share: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[h, w, 3] pixels coloured by a share of 0..1: the higher, the less of the pixels is seen."""
    level = np.round(share * 255).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(level, COLOURS), cv2.COLOR_BGR2RGB)
    # the root lets middling squares be seen beside one very dense square
    cover = STRONGEST * np.sqrt(share)[..., None]
    return np.asarray(cover * colour + (1 - cover) * canvas, np.uint8)


def histograms(masks: SegmentedRegion) -> Iterator[Finding]:
    """Percentiles of the objects' areas and of the distances to their nearest neighbours, and both as bars."""
    for layer in masks.layers:
        if not layer.has_objects:
            continue
        found = {"size": (*areas(layer), "area of each object"), "distance": (*gaps(layer), GAP_RULE)}
        for of, (numbers, unit, rule) in found.items():
            for share in PERCENTILES:
                value = float(np.percentile(numbers, share)) if numbers.size else None
                yield layer, Value(f"histogram.{of}.p{share}", value, unit, f"percentile {share} of: {rule}")
        shown = [(f"{layer.name}: {of}", numbers, unit) for of, (numbers, unit, _) in found.items()]
        draw = partial(_draw_bars, shown, layer.record.colour)
        yield layer, drawing.plotted(460 * len(shown), 300, draw)


def _draw_bars(shown: Sequence[tuple[str, NDArray[np.float64], str]], colour: str, figure: Figure) -> None:
    """shown: title, numbers and unit of each panel. The last bar holds all beyond the last percentile shown."""
    for axes, (title, numbers, unit) in zip(figure.subplots(1, len(shown)), shown, strict=True):
        axes.set(xlabel=unit, ylabel="objects")
        axes.set_title(f"{title}, {numbers.size} objects", parse_math=False)
        if numbers.size:
            # a few clumps would else squeeze everything into the first bar
            end = float(np.percentile(numbers, SHOWN_SHARE)) or 1.0
            cut = np.minimum(numbers, end)
            axes.hist(cut, bins=BARS, range=(0, end), color=colour, edgecolor="#464646")
            axes.axvline(float(np.median(cut)), color="#c80000", label="median")
            # a place is given: searching for the best one takes time with many bars
            axes.legend(frameon=False, loc="upper right")


def hotspots(masks: SegmentedRegion) -> Iterator[Finding]:
    """The densest 2 mm² of every mask with objects, and where they lie."""
    for layer in masks.layers:
        if layer.has_objects:
            spot = hotspot.hotspot(layer, masks.needs_scale("hotspot"))
            yield from ((layer, value) for value in hotspot.values(spot, masks))
            if spot is not None:
                yield layer, _drawn_hotspot(layer, masks, spot)


def _drawn_hotspot(layer: MaskLayer, masks: SegmentedRegion, spot: hotspot.Hotspot) -> Image.Image:
    """The slide with the circle and every object as a dot; beside it the circle enlarged."""
    width, height = drawing.picture_size(masks.region, 640)
    first = (math.floor(at - spot.radius_px) for at in (spot.x, spot.y))
    near = Box(*first, *(math.ceil(at + spot.radius_px) for at in (spot.x, spot.y)))
    side = max(360, min(640, height))
    dot_px = sum(spot.count < few for few in (600, 6_000))
    views = [
        _dotted(layer, masks, spot, masks.region, (width, height), max(0, dot_px - 1)),
        _dotted(layer, masks, spot, near, (side, side), dot_px),
    ]
    caption = (
        f"{layer.name}: {spot.count} of {layer.count()} in the densest {hotspot.AREA_MM2:g} mm², "
        f"centre x {spot.x:.0f}, y {spot.y:.0f} px"
    )
    return drawing.stacked([views, [drawing.line_of_text(caption)]], gap_px=10)


def _dotted(
    layer: MaskLayer,
    masks: SegmentedRegion,
    spot: hotspot.Hotspot,
    box: Box,
    size: tuple[int, int],
    dot_px: int,
) -> Image.Image:
    """A view with a dot of ``2 * dot_px + 1`` px at every centroid, and the circle."""
    width, height = size
    pixels = masks.background(box, width, height).copy()
    scale = width / box.width
    reach = np.arange(-dot_px, dot_px + 1)
    shown = layer.count() if box == masks.region else spot.count
    for batch in layer.points((box.x0, box.y0, box.x1, box.y1)) if shown <= MOST_DOTS else ():
        at = ((batch - (box.x0, box.y0)) * scale).astype(np.int64)
        rows = np.clip(at[:, 1, None, None] + reach[:, None], 0, height - 1)
        columns = np.clip(at[:, 0, None, None] + reach[None, :], 0, width - 1)
        pixels[rows, columns] = drawing.rgb(layer.record.colour)
    picture = Image.fromarray(pixels)
    x, y, radius = (spot.x - box.x0) * scale, (spot.y - box.y0) * scale, spot.radius_px * scale
    circle = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(picture).ellipse(circle, outline=_CIRCLE, width=3)
    drawing.scale_bar(picture, masks.needs_scale("hotspot") / scale)
    return picture


def write_picture(path: Path, metric: str, layer: MaskLayer, picture: Image.Image) -> str:
    """Into a result's folder; its relative address."""
    name = f"{FOLDER}/{metric}_{layer.record.mask_id}.png"
    write_whole(path / name, drawing.as_png(picture))
    return name


def read_picture(path: Path, name: str) -> bytes:
    """A picture that was drawn before. Raises InvalidArgumentError."""
    if _NAME.fullmatch(name) is None or not (path / FOLDER / name).is_file():
        raise InvalidArgumentError(
            f"there is no picture {name[:80]!r} yet; measure with metrics hotspot, heatmap or histogram draws it."
        )
    return (path / FOLDER / name).read_bytes()


def sheet(path: Path, names: Sequence[str]) -> Image.Image | None:
    """The first few pictures, two in a row; None without any."""
    pictures = []
    for name in names[:MOST_ON_SHEET]:
        with Image.open(path / name) as picture:
            pictures.append(picture.convert("RGB"))
    rows = [pictures[at : at + 2] for at in range(0, len(pictures), 2)]
    return drawing.stacked(rows, gap_px=12) if rows else None
