"""Stored masks as outlines in a picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.stored import layers_of
from tissuetalk.tools.storage.result_folder import ResultFolder


def overlay_of(
    folder: ResultFolder, source: ImageSource, region: Box, masks: Sequence[Mask], mpp: float | None
) -> Image.Image:
    """The segmented region with the outlines of the masks that were found. mpp: None draws no scale bar."""
    width, height = drawing.picture_size(region)
    pixels = source.read_region(region, width=width, height=height)
    found = [mask for mask in masks if mask.found]
    return drawing.draw(pixels, region, layers=layers_in(folder, found, region), mpp=mpp)


def layers_in(folder: ResultFolder, masks: Sequence[Mask], box: Box) -> list[drawing.DrawnMask]:
    """Masks as they lie in the viewed box, at the size of its picture."""
    drawn = []
    for layer in layers_of(folder, masks):
        caption = layer.name if layer.record.count is None else f"{layer.name} ({layer.record.count})"
        labels = layer.labels.sample(box, *drawing.picture_size(box))
        drawn.append(drawing.DrawnMask(labels, layer.record.colour, caption))
    return drawn
