"""Masks as grids of pixels: a piece of one, the label pyramid of one (of a picture a level in memory, of a slide an
OME-Zarr that is read in windows), and the one rule that tells tissue from glass.

Blocks of work, areas of tissue and densities per tissue all come from ``Tissue.of``, which looks at a small view of the
whole image. Models judge stain and scale of a slide from a sample of tissue, not from a view of mostly glass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import UnknownMaskError, UnreadableImageError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB
from tissuetalk.models.writing import library

WINDOW_PX = 4096
"""Side of the pieces in which labels are read."""
CHUNK_PX = 1024
SMALLEST_LEVEL_PX = 256
BRIGHT_OD = 0.08
"""Mean optical density below which a pixel counts as glass."""
VIEW_PX = 2048
"""Longest side of the view on which tissue is told from glass."""
BESIDE_PX = 4
"""Pixels of the view beside tissue that are worked on too."""
LEAST_PX = 12
"""Parts smaller than this in the view are dust."""
SAMPLE_PX, SAMPLES = 256, 16
RULE = (
    f"mean optical density above {BRIGHT_OD:g} on a view of at most {VIEW_PX} px, "
    f"parts of at least {LEAST_PX} px of that view"
)
_DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)
"""Optical density of an 8-bit value; 1 is added so that black has one."""

Points = NDArray[np.float64]
"""[N, 2] rows of x, y in full-resolution pixels of the source, where pixel (0, 0) covers 0..1: the edge counts."""


@dataclass(frozen=True)
class Raster:
    """A yes-or-no picture of a part of the image.

    values: [h, w] bool. x0, y0: its corner and step_x, step_y: the size of one of its pixels, in full-resolution px.
    """

    values: NDArray[np.bool_]
    x0: float
    y0: float
    step_x: float
    step_y: float

    @classmethod
    def over(cls, values: NDArray[np.bool_], box: Box) -> Raster:
        """A picture that covers ``box`` exactly."""
        height, width = values.shape
        return cls(values, box.x0, box.y0, box.width / width, box.height / height)

    @property
    def pixel_px(self) -> float:
        """Full-resolution pixels that one of its pixels covers."""
        return self.step_x * self.step_y

    @property
    def area_px(self) -> float:
        """Full-resolution pixels that are marked."""
        return float(np.count_nonzero(self.values)) * self.pixel_px

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Half-open x0, y0, x1, y1."""
        height, width = self.values.shape
        return self.x0, self.y0, self.x0 + width * self.step_x, self.y0 + height * self.step_y

    @property
    def middles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x of the middle of every column and y of the middle of every row."""
        height, width = self.values.shape
        columns, rows = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
        return self.x0 + (columns + 0.5) * self.step_x, self.y0 + (rows + 0.5) * self.step_y

    def at(self, points: Points) -> NDArray[np.bool_]:
        """Whether each point is marked; outside the picture nothing is."""
        height, width = self.values.shape
        column = np.floor((points[:, 0] - self.x0) / self.step_x).astype(np.int64)
        row = np.floor((points[:, 1] - self.y0) / self.step_y).astype(np.int64)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = np.zeros(len(points), bool)
        found[inside] = self.values[row[inside], column[inside]]
        return found

    def nearest(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[len(y), len(x)]: whether places of a grid are marked; outside the picture its edge counts."""
        height, width = self.values.shape
        columns = np.clip(((x - self.x0) / self.step_x).astype(np.int64), 0, width - 1)
        rows = np.clip(((y - self.y0) / self.step_y).astype(np.int64), 0, height - 1)
        # whole rows are copied fast, so those that many places share are picked from first
        used, which = np.unique(rows, return_inverse=True)
        return self.values[np.ix_(used, columns)][which]


@dataclass(frozen=True)
class LabelLevel:
    """One size of a label pyramid. array: [h, w] of NumPy or Zarr. Corner and pixel size in full-resolution pixels."""

    array: Any
    x0: float
    y0: float
    step_x: float
    step_y: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return int(self.array.shape[1]), int(self.array.shape[0])

    def raster(self, values: NDArray[np.bool_], left: int = 0, top: int = 0, every: int = 1) -> Raster:
        """A piece of this level that starts at a pixel of it and holds every n-th."""
        x0, y0 = self.x0 + left * self.step_x, self.y0 + top * self.step_y
        return Raster(values, x0, y0, self.step_x * every, self.step_y * every)


class LabelPyramid:
    """Levels of one mask, finest first: 0 is background, other numbers are objects (1 in a region)."""

    def __init__(self, levels: Sequence[LabelLevel]) -> None:
        self.levels = levels
        self.finest = levels[0]

    @classmethod
    def in_memory(cls, labels: NDArray[Any], region: Box) -> LabelPyramid:
        """labels: [region.height, region.width]."""
        return cls([LabelLevel(labels, region.x0, region.y0, 1.0, 1.0)])

    @classmethod
    def stored(cls, path: Path, mpp: float | None) -> LabelPyramid:
        """Of an OME-Zarr. mpp: µm per full-resolution pixel, if known. Raises UnknownMaskError where files are missing."""
        zarr = library("zarr")
        try:
            group = zarr.open_group(str(path), mode="r")
            (described,) = group.attrs["ome"]["multiscales"]
            # without a unit NGFF's numbers are full-resolution pixels
            unit_px = mpp if any("unit" in axis for axis in described["axes"]) else 1.0
            return cls([_level(group[each["path"]], each, unit_px or 1.0) for each in described["datasets"]])
        except (OSError, KeyError, ValueError) as error:
            raise missing(path.name.split(".")[0]) from error

    def rasters(self) -> Iterator[Raster]:
        """The mask at its finest in pieces that do not overlap; pieces with nothing in them are missing."""
        width, height = self.finest.size
        for top in range(0, height, WINDOW_PX):
            for left in range(0, width, WINDOW_PX):
                marked = self.marked(slice(top, top + WINDOW_PX), slice(left, left + WINDOW_PX))
                if marked.any():
                    yield self.finest.raster(marked, left, top)

    def marked(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Whether pixels of the finest level belong to the mask."""
        return np.asarray(self.finest.array[rows, columns]) > 0

    def overview(self, most_px: int) -> Raster:
        """All of the mask in at most so many pixels: the finest level that is small enough, or of the coarsest every n-th."""
        fitting = [level for level in self.levels if math.prod(level.size) <= most_px]
        level = (fitting or self.levels[-1:])[0]
        # one level in memory has no coarser ones: take the middle of every n by n pixels
        every = max(1, math.ceil(math.sqrt(math.prod(level.size) / most_px)))
        picked = np.asarray(level.array[every // 2 :: every, every // 2 :: every])
        return level.raster(picked > 0, every=every)

    def sample(self, box: Box, width: int, height: int) -> NDArray[np.int32]:
        """[height, width] labels of a full-resolution box at the size of a picture; 0 outside the region."""
        return self.resampled((box.x0, box.y0), (box.width / width, box.height / height), (width, height))

    def resampled(
        self, corner_xy: tuple[float, float], step_xy: tuple[float, float], size: tuple[int, int]
    ) -> NDArray[np.int32]:
        """[height, width] of ``size``: the label under the middle of every pixel of a grid in full-resolution pixels."""
        fitting = [level for level in self.levels if level.step_x <= max(step_xy) * (1 + 1e-9)]
        # the coarsest level that is not coarser than the grid: labels are never averaged, only picked
        level = (fitting or self.levels[:1])[-1]
        columns = _under(corner_xy[0] - level.x0, step_xy[0], size[0], level.step_x)
        rows = _under(corner_xy[1] - level.y0, step_xy[1], size[1], level.step_y)
        inside_x = np.flatnonzero((columns >= 0) & (columns < level.size[0]))
        inside_y = np.flatnonzero((rows >= 0) & (rows < level.size[1]))
        picture = np.zeros((size[1], size[0]), np.int32)
        if inside_x.size and inside_y.size:
            columns, rows = columns[inside_x], rows[inside_y]
            read = np.asarray(level.array[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
            picture[np.ix_(inside_y, inside_x)] = read[np.ix_(rows - rows[0], columns - columns[0])]
        return picture


def _under(start: float, step: float, count: int, label_step: float) -> NDArray[np.int64]:
    """Index of the label pixel under the middle of every picture pixel."""
    middles = start + (np.arange(count) + 0.5) * step
    return np.asarray(np.floor(middles / label_step), np.int64)


def _level(array: Any, described: dict[str, Any], unit_px: float) -> LabelLevel:
    """Where NGFF says it lies. unit_px: units per full-resolution pixel. Positions there are of pixel middles."""
    scale, translation = described["coordinateTransformations"]
    step_y, step_x = (value / unit_px for value in scale["scale"])
    middle_y, middle_x = (value / unit_px for value in translation["translation"])
    return LabelLevel(array, middle_x + (1 - step_x) / 2, middle_y + (1 - step_y) / 2, step_x, step_y)


def create_pyramid(
    group: Any,
    size: tuple[int, int],
    *,
    corner_xy: tuple[float, float],
    step: float,
    mpp: float | None,
    dtype: str,
    channels: int = 0,
) -> list[Any]:
    """Empty arrays of a Zarr group, finest first, each half as large as the one before, described as NGFF 0.5 wants.

    Args:
        size: width and height of the finest level.
        corner_xy: of its first pixel and step: size of a pixel, in full-resolution pixels.
        mpp: units are µm where the scale is known, else full-resolution pixels without a unit.
        channels: 0 for [h, w] labels, else [channels, h, w].
    """
    # as many levels as napari needs to show the coarsest one at once
    shapes = [(size[1], size[0])]
    while max(shapes[-1]) > SMALLEST_LEVEL_PX:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    first = ([channels], ["c"], [1.0], [0.0]) if channels else ([], [], [], [])
    arrays, datasets, unit = [], [], mpp or 1.0
    for number, shape in enumerate(shapes):
        arrays.append(
            group.create_array(
                str(number),
                shape=(*first[0], *shape),
                chunks=(*first[0], *(min(CHUNK_PX, side) for side in shape)),
                dtype=dtype,
                fill_value=0,
                dimension_names=(*first[1], "y", "x"),
                compressors=library("zarr").codecs.ZstdCodec(level=1),
            )
        )
        pixel = step * 2**number
        middle = [(corner + (pixel - 1) / 2) * unit for corner in reversed(corner_xy)]
        transforms = [
            {"type": "scale", "scale": [*first[2], pixel * unit, pixel * unit]},
            {"type": "translation", "translation": [*first[3], *middle]},
        ]
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    axes = [{"name": name, "type": "channel"} for name in first[1]]
    axes += [{"name": name, "type": "space", **({"unit": "micrometer"} if mpp else {})} for name in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return arrays


def write_levels(arrays: Sequence[Any], labels: NDArray[Any], left: int = 0, top: int = 0) -> None:
    """Put a piece of the finest level into all: every second pixel of the level before, so none invents an object."""
    for number, array in enumerate(arrays):
        every = 2**number
        part = labels[-top % every :: every, -left % every :: every]
        if part.any():
            y, x = -(-top // every), -(-left // every)
            array[y : y + part.shape[0], x : x + part.shape[1]] = part


def missing(mask_id: str) -> UnknownMaskError:
    """What to say when the files of a mask are not there."""
    return UnknownMaskError(
        f"the slide's files of mask {mask_id} are missing or damaged; segment the slide again."
    )


def tissue_mask(view: RGB) -> NDArray[np.bool_]:
    """[H, W] where there is more than glass: optical density, meant over the channels and 5 x 5 px of [H, W, 3]."""
    density = cv2.transform(cv2.LUT(view, _DENSITY), np.full((1, 3), 1 / 3, np.float32))
    return np.asarray(cv2.blur(density, (5, 5)) > BRIGHT_OD, bool)


@dataclass(frozen=True)
class Tissue:
    """[h, w] bool over the whole slide; ``step_x``, ``step_y``: full-resolution pixels per pixel of it.

    near: the mask and what lies beside it, where a nucleus in pale tissue may be; work is done there.
    """

    mask: NDArray[np.bool_]
    step_x: float
    step_y: float

    @cached_property
    def near(self) -> NDArray[np.bool_]:
        kernel = np.ones((2 * BESIDE_PX + 1, 2 * BESIDE_PX + 1), np.uint8)
        return np.asarray(cv2.dilate(self.mask.astype(np.uint8), kernel), bool)

    @classmethod
    def of(cls, source: ImageSource) -> Tissue:
        """Look at the whole slide. Raises UnreadableImageError where its small levels are damaged."""
        view = source.overview(VIEW_PX)
        found = tissue_mask(view)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
        large = stats[:, cv2.CC_STAT_AREA] >= LEAST_PX
        large[0] = False
        height, width = found.shape
        return cls(np.asarray(large[parts], bool), source.width / width, source.height / height)

    def reaches(self, box: Box) -> bool:
        """Whether there is tissue in or beside a full-resolution box."""
        height, width = self.mask.shape
        x0, y0 = min(int(box.x0 / self.step_x), width - 1), min(int(box.y0 / self.step_y), height - 1)
        x1, y1 = int(np.ceil(box.x1 / self.step_x)), int(np.ceil(box.y1 / self.step_y))
        return bool(self.near[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].any())

    def picture(self, region: Box) -> NDArray[np.bool_]:
        """[h, w] over exactly the region, at about the view's scale or finer."""
        width = max(1, min(region.width, VIEW_PX, round(region.width / self.step_x) or 1))
        height = max(1, min(region.height, VIEW_PX, round(region.height / self.step_y) or 1))
        x = region.x0 + (np.arange(width) + 0.5) * region.width / width
        y = region.y0 + (np.arange(height) + 0.5) * region.height / height
        return Raster(self.mask, 0, 0, self.step_x, self.step_y).nearest(x, y)

    def near_at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[len(y), len(x)]: whether full-resolution places are tissue or beside it."""
        return Raster(self.near, 0, 0, self.step_x, self.step_y).nearest(x, y)


def sample(source: ImageSource, tissue: Tissue, step: float) -> RGB:
    """A square of up to 16 views of tissue, 256 px each at ``step`` full-resolution pixels a pixel, side by side.

    The same slide and step give the same sample, whatever region is asked about. Without tissue: the slide's overview.
    """
    side = SAMPLE_PX * step
    places = _places(tissue, side)
    if not places:
        return source.overview()
    across = int(np.ceil(np.sqrt(min(len(places), SAMPLES))))
    chosen = [places[number * len(places) // across**2] for number in range(across**2)]
    views = [view for place in dict.fromkeys(chosen) if (view := _readable(source, place, step)) is not None]
    if not views:
        return source.overview()
    out = np.empty((across * SAMPLE_PX, across * SAMPLE_PX, 3), np.uint8)
    for number in range(across**2):
        top, left = (at * SAMPLE_PX for at in divmod(number, across))
        out[top : top + SAMPLE_PX, left : left + SAMPLE_PX] = views[number % len(views)]
    return out


def _readable(source: ImageSource, place: tuple[float, float], step: float) -> RGB | None:
    """One square of the sample; None where the slide is damaged, which is said when its block is worked on."""
    try:
        return source.read_grid((place[0], step), (place[1], step), width=SAMPLE_PX, height=SAMPLE_PX)
    except UnreadableImageError:
        return None


def _places(tissue: Tissue, side: float) -> list[tuple[float, float]]:
    """Corners of squares of ``side`` full-resolution pixels that are mostly tissue, row by row; else the fullest one."""
    height, width = tissue.mask.shape
    rows, columns = max(1, round(height * tissue.step_y / side)), max(1, round(width * tissue.step_x / side))
    rows, columns = min(rows, height), min(columns, width)
    share = cv2.resize(tissue.mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    if not share.any():
        return []
    chosen = np.argwhere(share >= min(0.6, float(share.max())))
    full_height, full_width = height * tissue.step_y, width * tissue.step_x
    x = (chosen[:, 1] + 0.5) * full_width / columns - side / 2
    y = (chosen[:, 0] + 0.5) * full_height / rows - side / 2
    x = np.minimum(np.maximum(x, 0), max(full_width - side, 0))
    return list(
        zip(x.tolist(), np.minimum(np.maximum(y, 0), max(full_height - side, 0)).tolist(), strict=True)
    )
