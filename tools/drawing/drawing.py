"""Pictures an assistant can look at: outlines, numbers, a legend, a scale bar, a coordinate grid."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.tools.answers.bounds import MOST_STRUCTURE_BYTES, MOST_TEXT_BYTES, RESULT_BYTES
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.masks.layer import layers_of
from tissuetalk.tools.storage.result_folder import ResultFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_SIDE_PX = 1024
PALETTE = (
    "#ffd400",
    "#00e5ff",
    "#39ff14",
    "#ff6a00",
    "#0066ff",
    "#ff2d55",
    "#b388ff",
    "#00b386",
    "#ffffff",
    "#8d4a00",
)
"""Outline colours that stand out from pink and purple, and from each other."""


@dataclass(frozen=True)
class DrawnMask:
    """One mask as drawn: [H, W] labels at any scale covering the viewed region, a colour and a legend line.

    number: the one it has in the text, written on it by ``sheet.marked``.
    """

    labels: NDArray[np.int32]
    colour: str
    caption: str
    number: int | None = None


def colour_of(number: int) -> str:
    """Outline colour of the n-th mask (from 0)."""
    return PALETTE[number % len(PALETTE)]


def picture_size(box: Box, longest_px: int = LONGEST_SIDE_PX) -> tuple[int, int]:
    """Width and height of a view of ``box``; small regions are enlarged up to fourfold so that they can be read."""
    scale = min(longest_px / max(box.width, box.height), 4.0)
    return max(1, round(box.width * scale)), max(1, round(box.height * scale))


def pixels_of(source: ImageSource, box: Box) -> NDArray[np.uint8]:
    """[h, w, 3]: a region at the size of its picture."""
    width, height = picture_size(box)
    small = min(width, box.width), min(height, box.height)
    if box == source.box:
        pixels = source.overview(LONGEST_SIDE_PX)  # which is read once
    else:
        pixels = source.read_region(box, width=small[0], height=small[1])
    if small == (width, height):
        return pixels
    # the reader's exact resampling would make a server's first answer wait for SciPy
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def draw(
    pixels: NDArray[np.uint8],
    box: Box,
    *,
    layers: Sequence[DrawnMask] = (),
    mpp: float | None = None,
    grid: bool = False,
) -> Image.Image:
    """The viewed pixels with outlines, legend, scale bar and grid.

    pixels: [h, w, 3], the region ``box`` at the picture's own size. mpp: µm per full-resolution pixel, or None for no bar.
    """
    picture = outlined(pixels, layers, thick_from_px=600)
    if grid:
        _grid(picture, box)
    if mpp is not None:
        scale_bar(picture, mpp * box.width / picture.width)
    return _with_legend(picture, layers) if layers else picture


def overlay_of(
    folder: ResultFolder, source: ImageSource, region: Box, masks: Sequence[Mask], mpp: float | None
) -> Image.Image:
    """The segmented region with the outlines of the masks that were found. mpp: None draws no scale bar."""
    pixels = pixels_of(source, region)
    found = [mask for mask in masks if mask.found]
    picture = draw(pixels, region, layers=layers_in(folder, found, region), mpp=mpp)
    for mask in found:
        if mask.taught is not None and mask.taught.unsure is not None:
            _asked_for(picture, Box.from_sequence(mask.taught.unsure), region, mask.colour)
    return picture


def _asked_for(picture: Image.Image, box: Box, region: Box, colour: str) -> None:
    """A dashed frame with a question mark: one more example here would help most."""
    scale = picture_size(region)[0] / region.width
    x0, y0, x1, y1 = (
        (at - start) * scale for at, start in zip(box.as_list(), (region.x0, region.y0) * 2, strict=True)
    )
    brush = ImageDraw.Draw(picture)
    for start, end, along, at in ((x0, x1, 0, y0), (x0, x1, 0, y1), (y0, y1, 1, x0), (y0, y1, 1, x1)):
        for dash in np.arange(start, end, 8.0):
            last = min(dash + 4, end)
            brush.line(
                (dash, at, last, at) if along == 0 else (at, dash, at, last), fill=rgb(colour), width=2
            )
    brush.rectangle((x0, y0, x0 + 14, y0 + 18), fill=(255, 255, 255))
    brush.text((x0 + 3, y0 + 1), "?", fill=(0, 0, 0), font=font(15))


def layers_in(folder: ResultFolder, masks: Sequence[Mask], box: Box) -> list[DrawnMask]:
    """Masks as they lie in the viewed box, at the size of its picture."""
    drawn = []
    for layer in layers_of(folder, masks):
        caption = layer.name if layer.record.count is None else f"{layer.name} ({layer.record.count})"
        labels = layer.labels.sample(box, *picture_size(box))
        drawn.append(DrawnMask(labels, layer.record.colour, caption))
    return drawn


def outlined(pixels: NDArray[np.uint8], layers: Sequence[DrawnMask], *, thick_from_px: int) -> Image.Image:
    """The pixels, [h, w, 3], with lines where labels change; touching objects keep a line between them."""
    canvas = pixels.copy()
    height, width = canvas.shape[:2]
    thickness = 2 if max(width, height) > thick_from_px else 1
    kernel = np.ones((thickness + 1, thickness + 1), np.uint8)
    for layer in layers:
        labels = layer.labels.astype(np.float32)
        shown = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        # where the highest and lowest label around a pixel differ, two things meet
        highest = cv2.dilate(shown, kernel)
        canvas[(highest != cv2.erode(shown, kernel)) & (highest > 0)] = rgb(layer.colour)
    return Image.fromarray(canvas)


def rgb(colour: str) -> tuple[int, int, int]:
    """#rrggbb as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@lru_cache(maxsize=4)
def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: the same everywhere, without µ and ²."""
    return ImageFont.load_default(size_px)


def scale_bar(picture: Image.Image, um_per_px: float) -> None:
    """A bar of a round length, about a fifth of the width, bottom left. Pillow's own font has no µ."""
    length_um = round_length(um_per_px * picture.width / 5)
    length_px = length_um / um_per_px
    text = f"{length_um:g} um" if length_um < 1000 else f"{length_um / 1000:g} mm"
    brush = ImageDraw.Draw(picture)
    x, y = 12, picture.height - 16
    brush.rectangle((x - 6, y - 24, x + max(length_px, 70) + 6, y + 10), fill=(255, 255, 255))
    brush.rectangle((x, y, x + length_px, y + 4), fill=(0, 0, 0))
    brush.text((x, y - 20), text, fill=(0, 0, 0), font=font(15))


def round_length(about: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above ``about``."""
    power = 10.0 ** np.floor(np.log10(about))
    return float(max(step * power for step in (1, 2, 5) if step * power <= about))


def _grid(picture: Image.Image, box: Box) -> None:
    """Lines labelled in full-resolution pixels of the source, so that a point can be named."""
    step = round_length(max(box.width, box.height) / 5)
    brush = ImageDraw.Draw(picture)
    axes = (box.x0, box.x1, picture.width), (box.y0, box.y1, picture.height)
    for axis, (start, stop, size) in enumerate(axes):
        for value in np.arange(np.ceil(start / step) * step, stop, step):
            at = (value - start) / (stop - start) * size
            line = (at, 0, at, picture.height) if axis == 0 else (0, at, picture.width, at)
            brush.line(line, fill=(20, 20, 20), width=1)
            place = (at + 3, 2) if axis == 0 else (2, at + 2)
            caption = f"{'xy'[axis]} {value:g}"
            brush.rectangle(brush.textbbox(place, caption, font=font(13)), fill=(255, 255, 255))
            brush.text(place, caption, fill=(0, 0, 0), font=font(13))


def _with_legend(picture: Image.Image, layers: Sequence[DrawnMask]) -> Image.Image:
    line_px, width = 24, max(picture.width, 320)
    whole = Image.new("RGB", (width, picture.height + line_px * len(layers) + 8), (255, 255, 255))
    whole.paste(picture, (0, 0))
    brush = ImageDraw.Draw(whole)
    for number, layer in enumerate(layers):
        y = picture.height + 6 + number * line_px
        brush.rectangle((8, y, 28, y + 16), fill=(110, 60, 120), outline=rgb(layer.colour), width=4)
        brush.text((36, y), f"{number + 1}  {layer.caption}", fill=(0, 0, 0), font=font(15))
    return whole


def stacked(rows: Sequence[Sequence[Image.Image]], gap_px: int = 0) -> Image.Image:
    """Pictures side by side in rows, on white."""
    widths = [sum(each.width for each in row) + gap_px * (len(row) - 1) for row in rows]
    heights = [max(each.height for each in row) for row in rows]
    size = max(widths), sum(heights) + gap_px * (len(rows) - 1)
    whole, top = Image.new("RGB", size, (255, 255, 255)), 0
    for row, high in zip(rows, heights, strict=True):
        left = 0
        for each in row:
            whole.paste(each, (left, top))
            left += each.width + gap_px
        top += high + gap_px
    return whole


def line_of_text(text: str) -> Image.Image:
    """A caption as a picture; Pillow's own font has no µ and ²."""
    plain = text.replace("µ", "u").replace("²", "2")
    picture = Image.new("RGB", (int(font(15).getlength(plain)) + 16, 22), (255, 255, 255))
    ImageDraw.Draw(picture).text((8, 2), plain, fill=(0, 0, 0), font=font(15))
    return picture


def plotted(width: int, height: int, draw: Callable[[Figure], None]) -> Image.Image:
    """A plot of so many pixels. draw: puts it into an empty figure."""
    from matplotlib.figure import Figure  # half a second that most answers do not need

    figure, buffer = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained"), io.BytesIO()
    draw(figure)
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def as_png(picture: Image.Image) -> bytes:
    # level 6 takes four times as long for a fifth less
    return _encoded(picture, "PNG", {"compress_level": 1})


def as_jpeg_within(picture: Image.Image, budget_bytes: int) -> bytes:
    """The best JPEG that fits: first quality goes down, then size."""
    shown = picture.convert("RGB")
    # readers look at structure: fine JPEG noise disturbs less than fewer pixels
    for side in (LONGEST_SIDE_PX, 896, 768, 640, 512, 384, 256):
        if max(shown.size) > side:
            shown.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in (85, 75, 62, 50):
            data = _encoded(shown, "JPEG", {"quality": quality})
            if len(data) <= budget_bytes:
                return data
    return data


def _encoded(picture: Image.Image, kind: str, options: dict[str, int]) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def picture_budget(text: str, structured_json_bytes: int) -> int:
    """Bytes a JPEG may have so that text, structured content and its base64 form fit in one result."""
    others = min(len(text.encode()), MOST_TEXT_BYTES) + min(structured_json_bytes, MOST_STRUCTURE_BYTES)
    return (RESULT_BYTES - others) * 3 // 4
