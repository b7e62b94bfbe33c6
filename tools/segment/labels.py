"""Label images in full-resolution pixels, in memory or on disk: object numbers that can be read in any box.

A picture is held as one array, a slide is read from the files of its windows. What chooses or combines objects
(``algebra.py``) and what measures and writes them (``objects.py``) is written once, over this. Of a slide a label pyramid
stays (OME-Zarr, NGFF 0.5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.images import Box
from tissuetalk.models.writing import library
from tissuetalk.tools.segment.decide import Labels

CHUNK_PX = 1024
SMALLEST_LEVEL_PX = 256
THUMBNAIL_PX = 2048
SHOWN_SHARE = 0.3
"""Share of a thumbnail pixel that must be marked to be shown."""
MOST_SHOWN = 65_535


class LabelImage(Protocol):
    """Numbers 1..count of objects, or of the parts of a region, over ``region`` in full-resolution pixels."""

    @property
    def region(self) -> Box: ...

    @property
    def objects(self) -> bool:
        """Whether the numbers are objects; else they are the parts of one region."""
        ...

    @property
    def count(self) -> int: ...

    def read(self, box: Box) -> Labels:
        """[box.height, box.width] of a box in the region, 0 background."""
        ...

    def parts(self) -> Iterable[Box]:
        """Boxes to read it in, from top left on, that do not overlap and cover all of it."""
        ...


@dataclass(frozen=True)
class HeldLabels:
    """In memory: [region.height, region.width]."""

    labels: Labels
    region: Box
    objects: bool

    @cached_property
    def count(self) -> int:
        return int(self.labels.max(initial=0))

    def read(self, box: Box) -> Labels:
        return self.labels[box.inside(self.region)]

    def parts(self) -> list[Box]:
        return [self.region]


@dataclass
class Painted:
    """mask, labels: [h, w] thumbnail. area: marked full-resolution pixels. box: of all of them, or None."""

    mask: NDArray[np.bool_]
    labels: NDArray[np.uint16]
    area: int = 0
    box: Box | None = None


def paint(
    path: Path, mask: LabelImage, mpp: float | None, about: dict[str, Any], control: Control = Control()
) -> Painted:
    """Write a label pyramid, numbers of objects or 1 for a region, and return its thumbnail.

    mpp: µm per full-resolution pixel, or None when nobody knows it. about: what the pyramid says of itself.
    """
    region = mask.region
    levels = _create(path, mask, mpp, about)
    shrink = 1
    while max(region.width, region.height) / shrink > THUMBNAIL_PX:
        shrink *= 2
    size = (-(-region.height // shrink), -(-region.width // shrink))
    painted = Painted(np.zeros(size, bool), np.zeros(size, np.uint16))
    share = np.zeros(size, np.float32)
    for box in mask.parts():
        control.check()
        labels = mask.read(box)
        marked = Box.around(labels, box.x0, box.y0)
        if marked is None:
            continue
        left, top = box.x0 - region.x0, box.y0 - region.y0
        values = labels if mask.objects else (labels > 0).astype(np.uint8)
        for number, level in enumerate(levels):
            every = 2**number
            part = values[-top % every :: every, -left % every :: every]
            if part.any():
                y, x = -(-top // every), -(-left // every)
                level[y : y + part.shape[0], x : x + part.shape[1]] = part
        _add_to_thumbnail(painted.labels, share, labels, left, top, shrink)
        painted.area += int(np.count_nonzero(labels))
        old = painted.box or marked
        painted.box = Box(
            min(old.x0, marked.x0), min(old.y0, marked.y0), max(old.x1, marked.x1), max(old.y1, marked.y1)
        )
    painted.mask = share >= SHOWN_SHARE
    painted.labels[~painted.mask] = 0
    return painted


def _create(path: Path, mask: LabelImage, mpp: float | None, about: dict[str, Any]) -> list[Any]:
    zarr = library("zarr")
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    shapes = [(mask.region.height, mask.region.width)]
    while max(shapes[-1]) > SMALLEST_LEVEL_PX:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    levels = [
        group.create_array(
            str(number),
            shape=shape,
            chunks=(min(CHUNK_PX, shape[0]), min(CHUNK_PX, shape[1])),
            dtype="int32" if mask.objects else "uint8",
            fill_value=0,
            dimension_names=("y", "x"),
            compressors=zarr.codecs.ZstdCodec(level=1),
        )
        for number, shape in enumerate(shapes)
    ]
    pixel, unit = mpp or 1.0, "micrometer" if mpp else None
    axes = [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in "yx"]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": [pixel * 2**number] * 2},
                # positions are those of pixel middles: each level takes every second pixel, from the first on
                {
                    "type": "translation",
                    "translation": [
                        (at + (2**number - 1) / 2) * pixel for at in (mask.region.y0, mask.region.x0)
                    ],
                },
            ],
        }
        for number in range(len(shapes))
    ]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": path.name.split(".")[0], "axes": axes, "datasets": datasets}],
        "image-label": {"version": "0.5"},
    }
    group.attrs["tissuetalk"] = about
    return levels


def _add_to_thumbnail(
    highest: NDArray[np.uint16], share: NDArray[np.float32], labels: Labels, left: int, top: int, shrink: int
) -> None:
    """Parts may begin and end inside a thumbnail pixel: shares add up, and the highest number shows."""
    before_y, before_x = top % shrink, left % shrink
    after_y, after_x = -(top + labels.shape[0]) % shrink, -(left + labels.shape[1]) % shrink
    padded = np.pad(labels, ((before_y, after_y), (before_x, after_x))) if shrink > 1 else labels
    size = (padded.shape[1] // shrink, padded.shape[0] // shrink)
    y, x = top // shrink, left // shrink
    at = (slice(y, y + size[1]), slice(x, x + size[0]))
    share[at] += cv2.resize((padded > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    most = padded.reshape(size[1], shrink, size[0], shrink).max(axis=(1, 3))
    shown = np.where(most > 0, (most - 1) % MOST_SHOWN + 1, 0).astype(np.uint16)
    np.maximum(highest[at], shown, out=highest[at])
