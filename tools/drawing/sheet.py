"""Evidence as one picture that can be read without the text: titled panels, numbers, legends and bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tissuetalk.models.images import Box
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.drawing.drawing import DrawnMask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHITE, INK, GREY, LINE = (255, 255, 255), (20, 20, 20), (105, 105, 105), (205, 205, 205)
GAP_PX, TITLE_PX, NOTE_PX = 10, 24, 19


@dataclass(frozen=True)
class Panel:
    """A picture under a title and over notes. keys: (colour, line) pairs of the legend."""

    picture: Image.Image
    title: str
    notes: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True)
class Bar:
    """One line of a bar chart: value from ``low`` to ``high``; text is what is written behind it."""

    name: str
    value: float
    text: str
    colour: str = "#4f6db0"


def marked(pixels: NDArray[np.uint8], masks: Sequence[DrawnMask], um_per_px: float | None) -> Image.Image:
    """The pixels with outlines and, at the largest object of each set, its number. um_per_px: of these pixels."""
    picture = drawing.outlined(pixels, masks, thick_from_px=500)
    for each in masks:
        if each.number is not None and (at := _core(each.labels, *picture.size)) is not None:
            tag(picture, at, str(each.number), each.colour)
    if um_per_px is not None:
        drawing.scale_bar(picture, um_per_px)
    return picture


def _core(labels: NDArray[np.int32], width: int, height: int) -> tuple[int, int] | None:
    """Where the largest part of a mask is deepest, in picture pixels."""
    shown = cv2.resize((labels > 0).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if not shown.any():
        return None
    # padded: a mask that reaches the edge is deepest inside, not on the edge
    depth = cv2.distanceTransform(np.pad(shown, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)


def tag(picture: Image.Image, at: tuple[int, int], text: str, colour: str) -> None:
    """A number on a white label with a coloured border, kept inside the picture."""
    brush, font = ImageDraw.Draw(picture), drawing.font(16)
    wide = int(brush.textlength(text, font=font)) + 12
    x = int(np.clip(at[0] - wide / 2, 1, max(1, picture.width - wide - 2)))
    y = int(np.clip(at[1] - 11, 1, max(1, picture.height - 24)))
    brush.rectangle((x, y, x + wide, y + 22), fill=WHITE, outline=drawing.rgb(colour), width=3)
    brush.text((x + 6, y + 1), text, fill=INK, font=font)


def framed(picture: Image.Image, box: Box, region: Box, colour: str, text: str | None = None) -> None:
    """A box of full-resolution pixels drawn into a picture of ``region``, with a tag at its corner."""
    across, down = picture.width / region.width, picture.height / region.height
    corner = ((box.x0 - region.x0) * across, (box.y0 - region.y0) * down)
    far = ((box.x1 - region.x0) * across - 1, (box.y1 - region.y0) * down - 1)
    brush = ImageDraw.Draw(picture)
    brush.rectangle((*corner, *far), outline=WHITE, width=4)
    brush.rectangle((*corner, *far), outline=drawing.rgb(colour), width=2)
    if text is not None:
        tag(picture, (int(corner[0]) + 14, int(corner[1]) + 12), text, colour)


def _faded(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 3] in grey and paler, so that colours on top stand out."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    return np.repeat(255 - (255 - grey) * np.float32(0.7), 3, axis=2)


def heated(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The pixels in grey, with 0..1 ``heat`` from nothing over yellow to red."""
    height, width = pixels.shape[:2]
    shown = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    grey = _faded(pixels)
    warm = np.concatenate([np.full_like(shown, 225), 190 * (1 - shown), np.zeros_like(shown)], axis=2)
    strength = np.clip(shown * 1.6, 0, 0.9)
    return np.asarray(grey * (1 - strength) + warm * strength, np.uint8)


def signed(
    pixels: NDArray[np.uint8],
    value: NDArray[np.float32],
    limit: float,
    known: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """The pixels in grey under a scale from blue (-limit) over nothing (0) to red (+limit)."""
    height, width = pixels.shape[:2]

    def enlarged(values: NDArray[Any]) -> NDArray[np.float32]:
        sized = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return np.asarray(sized, np.float32)[..., None]

    share = np.clip(enlarged(value) / max(limit, 1e-9), -1, 1)
    grey = _faded(pixels)
    colour = np.where(share > 0, np.array([200.0, 20.0, 30.0]), np.array([30.0, 70.0, 200.0]))
    strength = np.abs(share) * 0.65
    if known is not None:
        strength *= enlarged(known)
    return np.asarray(grey * (1 - strength) + colour * strength, np.uint8)


def bars(title: str, rows: Sequence[Bar], width: int, *, low: float, high: float, foot: str) -> Panel:
    """A bar chart with the number behind each bar; the axis runs from ``low`` to ``high``."""

    def draw(figure: Figure) -> None:
        axes, at = figure.subplots(), list(range(len(rows)))
        axes.barh(at, [row.value for row in rows], color=[row.colour for row in rows], height=0.65)
        axes.set(xlim=(low, high), xlabel=foot, facecolor="#f0f0f0")
        # names and words are what somebody wrote, not formulas
        axes.set_yticks(at, [row.name for row in rows], parse_math=False)
        axes.invert_yaxis()
        behind = axes.secondary_yaxis("right")
        behind.set_yticks(at, [row.text for row in rows], parse_math=False)
        for side in (axes, behind):
            side.tick_params(axis="y", length=0)
            side.spines[:].set_visible(False)

    return Panel(drawing.plotted(width, 24 * len(rows) + 52, draw), title)


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled to fit, enlarged at most fourfold."""
    scale = min(width / picture.width, height / picture.height, 4.0)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def row(panels: Sequence[Panel]) -> Image.Image:
    """Panels side by side, their titles on one line."""
    return drawing.stacked([[_drawn(panel) for panel in panels]], GAP_PX)


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two finished rows as one."""
    return drawing.stacked([[left, right]], GAP_PX)


def _drawn(panel: Panel) -> Image.Image:
    font, small = drawing.font(16), drawing.font(14)
    width = panel.picture.width
    titles = wrapped(panel.title, width, 16)
    notes = [line for note in panel.notes for line in wrapped(note, width, 14)]
    keys = [(colour, line) for colour, text in panel.keys for line in wrapped(text, width - 26, 14)[:1]]
    top = (TITLE_PX - 3) * len(titles) + 4
    height = top + panel.picture.height + 4 + NOTE_PX * (len(notes) + len(keys))
    whole = Image.new("RGB", (width, height), WHITE)
    brush = ImageDraw.Draw(whole)
    for number, line in enumerate(titles):
        brush.text((0, number * (TITLE_PX - 3)), line, fill=INK, font=font)
    whole.paste(panel.picture, (0, top))
    y = top + panel.picture.height + 4
    for colour, line in keys:
        brush.rectangle((0, y + 1, 16, y + 14), fill=(110, 60, 120), outline=drawing.rgb(colour), width=4)
        brush.text((24, y - 1), line, fill=INK, font=small)
        y += NOTE_PX
    for line in notes:
        brush.text((0, y - 1), line, fill=GREY, font=small)
        y += NOTE_PX
    return whole


def wrapped(text: str, width: int, size_px: int) -> list[str]:
    """Lines no wider than ``width``; what the picture's font lacks is spelled out."""
    # what Pillow's own font lacks
    plain = text.replace("µ", "u").replace("²", "2").replace("“", '"').replace("”", '"').replace("→", "->")
    plain = plain.replace("—", "-").replace("±", "+-")
    font = drawing.font(size_px)
    lines, line = [], ""
    for word in plain.split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) > width and line:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line] if line else lines


def sheet(title: str, rows: Sequence[Image.Image], foot: str) -> Image.Image:
    """Rows under one title, with a line at the bottom."""
    width = max(320, max(each.width for each in rows)) + 2 * GAP_PX
    heading = wrapped(title, width - 2 * GAP_PX, 19)
    feet = wrapped(foot, width - 2 * GAP_PX, 13)
    height = GAP_PX + 26 * len(heading) + sum(each.height + GAP_PX for each in rows) + 17 * len(feet) + GAP_PX
    whole = Image.new("RGB", (width, height), WHITE)
    brush = ImageDraw.Draw(whole)
    y = GAP_PX
    for line in heading:
        brush.text((GAP_PX, y - 3), line, fill=INK, font=drawing.font(19))
        y += 26
    for number, each in enumerate(rows):
        if number:
            brush.line((GAP_PX, y - GAP_PX // 2, width - GAP_PX, y - GAP_PX // 2), fill=LINE)
        whole.paste(each, (GAP_PX, y))
        y += each.height + GAP_PX
    for line in feet:
        brush.text((GAP_PX, y - 2), line, fill=GREY, font=drawing.font(13))
        y += 17
    return whole
