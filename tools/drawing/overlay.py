"""Stored masks as layers of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.pyramid import Pyramid, is_slide
from tissuetalk.tools.measure.measure import name_of
from tissuetalk.tools.storage.result_folder import ResultFolder


def overlay_of(
    folder: ResultFolder, source: ImageSource, region: Box, masks: Sequence[Mask], mpp: float | None
) -> Image.Image:
    """The segmented region with the outlines of the masks that were found. mpp: None draws no scale bar."""
    width, height = drawing.picture_size(region)
    pixels = source.read_region(region, width=width, height=height)
    found = [mask for mask in masks if mask.found]
    return drawing.draw(pixels, region, layers=layers_in(folder, found, region), mpp=mpp)


def layers_in(folder: ResultFolder, masks: Sequence[Mask], box: Box) -> list[drawing.Layer]:
    """One layer per mask, cut or padded to the viewed box; of a slide, the labels of the pyramid at that place."""
    layers = []
    for mask in masks:
        name = name_of(mask)
        caption = name if mask.count is None else f"{name} ({mask.count})"
        layers.append(drawing.Layer(_labels_in(folder, mask, box), mask.colour, caption))
    return layers


def _labels_in(folder: ResultFolder, mask: Mask, box: Box) -> NDArray[np.int32]:
    if is_slide(folder.path):
        return Pyramid.of(folder.path, mask).sample(box, *drawing.picture_size(box))
    labels = folder.instances(mask.mask_id)
    if labels is None:
        labels = folder.mask(mask.mask_id).astype(np.int32)
    return _placed(labels, mask.provenance.region, box)


def _placed(labels: NDArray[np.int32], region: Sequence[int], box: Box) -> NDArray[np.int32]:
    """The labels of ``region`` as seen in ``box``, zero where the two do not overlap."""
    if list(region) == box.as_list():
        return labels
    placed = np.zeros((box.height, box.width), np.int32)
    x0, y0 = max(region[0], box.x0), max(region[1], box.y0)
    x1, y1 = min(region[2], box.x1), min(region[3], box.y1)
    if x0 < x1 and y0 < y1:
        placed[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0] = labels[
            y0 - region[1] : y1 - region[1], x0 - region[0] : x1 - region[0]
        ]
    return placed
