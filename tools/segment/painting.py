"""The label pyramid of one mask (OME-Zarr, NGFF 0.5), written window by window, and its thumbnail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.tools.segment.grid import Grid, inside, intersection
from tissuetalk.tools.segment.stitching import Numbered, Place, Stitched, WindowStore
from tissuetalk.tools.storage.libraries import library

CHUNK_PX = 1024
SMALLEST_LEVEL_PX = 256
THUMBNAIL_PX = 2048
SHOWN_SHARE = 0.3
"""Share of a thumbnail pixel that must be marked to be shown."""
MOST_SHOWN = 65_535


@dataclass
class Painted:
    """mask, labels: [h, w] thumbnail. area: marked working pixels. box: of all of them in working pixels, or None."""

    mask: NDArray[np.bool_]
    labels: NDArray[np.uint16]
    area: int
    box: tuple[int, int, int, int] | None


def paint(
    path: Path,
    store: WindowStore,
    stitched: Stitched,
    numbered: Numbered,
    *,
    objects: bool,
    corner_um: tuple[float, float],
    pixel: float,
    unit: str | None,
    about: dict[str, Any],
    stop: Callable[[], None] = lambda: None,
) -> Painted:
    """Write every level and return the thumbnail.

    corner_um: x, y of the first label pixel's centre and pixel: size of one, in ``unit`` (or pixels where it is None).
    """
    grid = store.grid
    levels = _create(path, grid, objects, corner_um, pixel, unit, about)
    shrink = 1
    while max(grid.width, grid.height) / shrink > THUMBNAIL_PX:
        shrink *= 2
    size = (-(-grid.height // shrink), -(-grid.width // shrink))
    painted = Painted(np.zeros(size, bool), np.zeros(size, np.uint16), 0, None)
    for place, canvas in canvases(store, stitched, numbered):
        stop()
        if not canvas.any():
            continue
        window = store.windows[place]
        left, top = window.core.x0 - grid.x0, window.core.y0 - grid.y0
        values = canvas if objects else (canvas > 0).astype(np.uint8)
        for number, level in enumerate(levels):
            every = 2**number
            part = values[-top % every :: every, -left % every :: every]
            if part.any():
                y, x = -(-top // every), -(-left // every)
                level[y : y + part.shape[0], x : x + part.shape[1]] = part
        _thumbnail(painted, canvas, left // shrink, top // shrink, shrink)
        _count(painted, canvas, window.core.x0, window.core.y0)
    return painted


def canvases(
    store: WindowStore, stitched: Stitched, numbered: Numbered
) -> Iterator[tuple[Place, NDArray[np.int32]]]:
    """Final ids of the core of every window, in reading order. Where two objects claim a pixel the lower id has it."""
    for place in store.order():
        core = store.windows[place].core
        canvas = np.zeros((core.height, core.width), np.int32)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                other = (place[0] + dx, place[1] + dy)
                if other not in store.windows or not numbered.numbers[other].any():
                    continue
                frame = store.frame(other)
                shared = intersection(core, frame)
                if shared is None:
                    continue
                labels = store.labels(other)[inside(shared, frame)]
                if other != place:  # fragments end where their own core ends
                    labels = np.where(labels <= len(stitched.small[other]), labels, 0)
                ids = numbered.numbers[other][labels]
                here = canvas[inside(shared, core)]
                free = (ids > 0) & ((here == 0) | (ids < here))
                here[free] = ids[free]
        yield place, canvas


def _create(
    path: Path,
    grid: Grid,
    objects: bool,
    corner: tuple[float, float],
    pixel: float,
    unit: str | None,
    about: dict[str, Any],
) -> list[Any]:
    zarr = library("zarr")
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    shapes = [(grid.height, grid.width)]
    while max(shapes[-1]) > SMALLEST_LEVEL_PX:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    levels = [
        group.create_array(
            str(number),
            shape=shape,
            chunks=(min(CHUNK_PX, shape[0]), min(CHUNK_PX, shape[1])),
            dtype="int32" if objects else "uint8",
            fill_value=0,
            dimension_names=("y", "x"),
            compressors=zarr.codecs.ZstdCodec(level=1),
        )
        for number, shape in enumerate(shapes)
    ]
    axes = [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in "yx"]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": [pixel * 2**number] * 2},
                {
                    "type": "translation",
                    "translation": [at + (2**number - 1) / 2 * pixel for at in (corner[1], corner[0])],
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


def _thumbnail(painted: Painted, canvas: NDArray[np.int32], left: int, top: int, shrink: int) -> None:
    height, width = -(-canvas.shape[0] // shrink), -(-canvas.shape[1] // shrink)
    padded = np.pad(canvas, ((0, height * shrink - canvas.shape[0]), (0, width * shrink - canvas.shape[1])))
    share = cv2.resize((padded > 0).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    shown = share >= SHOWN_SHARE
    highest = padded.reshape(height, shrink, width, shrink).max(axis=(1, 3))
    at = (slice(top, top + height), slice(left, left + width))
    painted.mask[at] |= shown
    painted.labels[at] = np.where(shown, (highest - 1) % MOST_SHOWN + 1, 0)


def _count(painted: Painted, canvas: NDArray[np.int32], x: int, y: int) -> None:
    marked = canvas > 0
    painted.area += int(np.count_nonzero(marked))
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    box = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
    old = painted.box or box
    painted.box = (min(old[0], box[0]), min(old[1], box[1]), max(old[2], box[2]), max(old[3], box[3]))
