"""The label pyramid of one mask of a slide: read in windows, or at the size of a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import UnknownMaskError
from tissuetalk.models.images import Box
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.masks.layer import Raster
from tissuetalk.tools.storage.libraries import library

WINDOW_PX = 4096
"""Side of the pieces in which labels are read."""


def is_slide(path: Path) -> bool:
    """Whether a result folder holds a slide: its pictures of masks are then thumbnails."""
    return (path / "slide" / "slide.json").is_file()


class Pyramid:
    """An OME-Zarr of labels. mpp: µm per full-resolution pixel, None when nobody knows it."""

    def __init__(self, path: Path, mpp: float | None) -> None:
        self.path, self.mpp = path, mpp

    @classmethod
    def of(cls, result: Path, mask: Mask) -> Pyramid:
        """The pyramid of a mask in the folder of its result."""
        origin = mask.provenance
        known = origin.mpp_source in ("file", "given")
        return cls(result / "slide" / "labels" / f"{mask.mask_id}.ome.zarr", origin.mpp if known else None)

    @cached_property
    def levels(self) -> list[Level]:
        """The pyramid, finest first."""
        zarr = library("zarr")
        try:
            group = zarr.open_group(str(self.path), mode="r")
            (described,) = group.attrs["ome"]["multiscales"]
            unit_px = self.mpp if any("unit" in axis for axis in described["axes"]) else 1.0
            return [_level(group[each["path"]], each, unit_px or 1.0) for each in described["datasets"]]
        except (OSError, KeyError, ValueError) as error:
            raise missing(self.path.name.split(".")[0]) from error

    def windows(self, level: int = 0) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """(left, top, [h, w] labels) of every piece of a level that has something in it."""
        array = self.levels[level].array
        height, width = array.shape
        for top in range(0, height, WINDOW_PX):
            for left in range(0, width, WINDOW_PX):
                labels = np.asarray(array[top : top + WINDOW_PX, left : left + WINDOW_PX])
                if labels.any():
                    yield left, top, labels

    def rasters(self) -> Iterator[Raster]:
        level = self.levels[0]
        for left, top, labels in self.windows():
            yield level.raster(labels > 0, left, top)

    def overview(self, most_px: int) -> Raster:
        """The finest level that is small enough, or the coarsest one."""
        fitting = [level for level in self.levels if math.prod(level.array.shape) <= most_px]
        level = (fitting or self.levels[-1:])[0]
        return level.raster(np.asarray(level.array[:]) > 0)

    def sample(self, box: Box, width: int, height: int) -> NDArray[np.int32]:
        """[height, width] labels of a full-resolution box at the size of a picture, from the level that suits it."""
        return self.resampled((box.x0, box.y0), (box.width / width, box.height / height), (width, height))

    def resampled(
        self, corner_xy: tuple[float, float], step_xy: tuple[float, float], size: tuple[int, int]
    ) -> NDArray[np.int32]:
        """[height, width] of ``size``: the label under the middle of every pixel of a grid in full-resolution pixels."""
        fitting = [level for level in self.levels if level.step_x <= max(step_xy) * (1 + 1e-9)]
        level = (fitting or self.levels[:1])[-1]
        columns = _nearest(corner_xy[0] - level.x0, step_xy[0], size[0], level.step_x)
        rows = _nearest(corner_xy[1] - level.y0, step_xy[1], size[1], level.step_y)
        inside_x = np.flatnonzero((columns >= 0) & (columns < level.array.shape[1]))
        inside_y = np.flatnonzero((rows >= 0) & (rows < level.array.shape[0]))
        picture = np.zeros((size[1], size[0]), np.int32)
        if inside_x.size and inside_y.size:
            columns, rows = columns[inside_x], rows[inside_y]
            read = np.asarray(level.array[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
            picture[np.ix_(inside_y, inside_x)] = read[np.ix_(rows - rows[0], columns - columns[0])]
        return picture


@dataclass(frozen=True)
class Level:
    """One size of a label pyramid. x0, y0: its corner, step_x, step_y: size of its pixel, in full-resolution pixels."""

    array: Any
    x0: float
    y0: float
    step_x: float
    step_y: float

    def raster(self, values: NDArray[np.bool_], left: int = 0, top: int = 0) -> Raster:
        """A piece of this level that starts at a pixel of it."""
        x0, y0 = self.x0 + left * self.step_x, self.y0 + top * self.step_y
        return Raster(values, x0, y0, self.step_x, self.step_y)


def _level(array: Any, described: dict[str, Any], unit_px: float) -> Level:
    """Where NGFF says it lies. unit_px: units per full-resolution pixel. Positions there are of pixel middles."""
    scale, translation = described["coordinateTransformations"]
    step_y, step_x = (value / unit_px for value in scale["scale"])
    middle_y, middle_x = (value / unit_px for value in translation["translation"])
    return Level(array, middle_x + (1 - step_x) / 2, middle_y + (1 - step_y) / 2, step_x, step_y)


def _nearest(start: float, step: float, count: int, label_step: float) -> NDArray[np.int64]:
    """Index of the label pixel under the middle of every picture pixel."""
    middles = start + (np.arange(count) + 0.5) * step
    return np.asarray(np.floor(middles / label_step), np.int64)


def missing(mask_id: str) -> UnknownMaskError:
    """What to say when the files of a mask are not there."""
    return UnknownMaskError(
        f"the slide's files of mask {mask_id} are missing or damaged; segment the slide again."
    )
