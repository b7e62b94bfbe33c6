"""A slide result on disk, read in pieces: label pyramids through zarr, objects through DuckDB.

Nothing here grows with the slide: DuckDB has a memory limit and spills to disk, rows come in batches, and labels are read
in windows. Layout: ``slide/slide.json``, ``slide/tissue.png``, ``slide/labels/<mask_id>.ome.zarr`` and
``slide/objects/<mask_id>.parquet``, next to the files of an ordinary result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import BadRequestError, UnknownMaskError, UnknownResultError
from tissuetalk.models.images import Box
from tissuetalk.tools.libraries import library
from tissuetalk.tools.result_folder import ResultFolder
from tissuetalk.tools.results import Mask
from tissuetalk.tools.slides.place import Points, Raster
from tissuetalk.tools.values import OpenImage, name_of

MEMORY_LIMIT = "512MB"
ROWS_PER_BATCH = 50_000
WINDOW_PX = 4096
"""Side of the pieces in which labels are read."""

Batch = dict[str, NDArray[Any]]
"""Columns of equal length."""


def is_slide(path: Path) -> bool:
    """Whether a result folder holds a slide: its pictures of masks are then thumbnails."""
    return (path / "slide" / "slide.json").is_file()


class StoredSlide:
    """One slide result. Use as a context manager: it may hold a database open."""

    def __init__(self, folder: ResultFolder, open_image: OpenImage, mask_ids: Sequence[str] = ()) -> None:
        self.folder, self.open_image = folder, open_image
        self.result = folder.result()
        image = self.result.image
        self.region = Box.from_sequence(image.region)
        self.mpp = image.mpp if image.mpp_source in ("file", "given") else None
        self.layers = [SlideLayer(self, record) for record in folder.chosen(list(mask_ids))]

    @cached_property
    def about(self) -> dict[str, Any]:
        """slide.json."""
        try:
            content: dict[str, Any] = json.loads(
                (self.folder.path / "slide" / "slide.json").read_text("utf-8")
            )
        except (OSError, ValueError) as error:
            raise _damaged(self.folder) from error
        return content

    @cached_property
    def tissue(self) -> Raster:
        picture = cv2.imread(str(self.folder.path / "slide" / "tissue.png"), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise _damaged(self.folder)
        return Raster.over(picture > 0, self.region)

    @property
    def tissue_rule(self) -> str:
        return str(self.about.get("tissue_rule") or "the tissue mask of the run, slide/tissue.png")

    @cached_property
    def database(self) -> Any:
        """DuckDB in memory, limited; it never installs anything."""
        return library("duckdb").connect(
            ":memory:",
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": 1,
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            },
        )

    def background(self, box: Box, width: int, height: int) -> NDArray[np.uint8]:
        """The slide's pixels; where the slide is gone or changed, the tissue mask in grey."""
        try:
            with self.open_image() as source:
                return source.read_region(box, width=width, height=height)
        except BadRequestError:
            middles_x = box.x0 + (np.arange(width) + 0.5) * box.width / width
            middles_y = box.y0 + (np.arange(height) + 0.5) * box.height / height
            grid = np.stack(np.meshgrid(middles_x, middles_y), axis=-1).reshape(-1, 2)
            grey = np.where(self.tissue.at(grid), 215, 255).astype(np.uint8).reshape(height, width, 1)
            return np.repeat(grey, 3, axis=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "database" in self.__dict__:
            self.database.close()


class SlideLayer:
    """One mask of a slide result."""

    def __init__(self, slide: StoredSlide, record: Mask) -> None:
        self.slide, self.record = slide, record
        self.name = name_of(record)
        self.has_objects = record.resources.instances is not None

    @property
    def parquet(self) -> Path:
        return self.slide.folder.path / "slide" / "objects" / f"{self.record.mask_id}.parquet"

    @property
    def zarr_path(self) -> Path:
        return self.slide.folder.path / "slide" / "labels" / f"{self.record.mask_id}.ome.zarr"

    @cached_property
    def columns(self) -> list[str]:
        """Names in the object file; empty without one."""
        if not self.parquet.is_file():
            if self.has_objects:
                raise _missing(self)
            return []
        described = self.slide.database.execute(
            "select name from parquet_schema(?) where num_children is null", [str(self.parquet)]
        )
        return [name for (name,) in described.fetchall()]

    def query(self, columns: str, where: str = "true", values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a small answer. columns and where are SQL of ours; what varies goes into ``values``."""
        if not self.columns:
            return []
        sql = f"select {columns} from read_parquet(?) where {where}"
        rows: list[tuple[Any, ...]] = self.slide.database.execute(
            sql, [str(self.parquet), *values]
        ).fetchall()
        return rows

    def arrow_batches(
        self, columns: str, where: str = "true", values: Sequence[Any] = (), rows: int = ROWS_PER_BATCH
    ) -> Iterator[Any]:
        """Rows of a large answer in the order of the file, as Arrow record batches of some tens of thousands."""
        if not self.columns:
            return
        # a cursor of its own, so that other questions can be asked while these rows are being read
        with self.slide.database.cursor() as cursor:
            sql = f"select {columns} from read_parquet(?) where {where}"
            found = cursor.sql(sql, params=[str(self.parquet), *values])
            yield from (batch for batch in found.to_arrow_reader(rows) if batch.num_rows)

    def batches(self, columns: str, where: str = "true", values: Sequence[Any] = ()) -> Iterator[Batch]:
        """The same as columns of numbers."""
        for batch in self.arrow_batches(columns, where, values):
            yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}

    def count(self) -> int:
        if not self.has_objects:
            return 0
        ((number,),) = self.query("count(*)") or [(0,)]
        return int(number)

    def points(self, within: tuple[float, float, float, float] | None = None) -> Iterator[Points]:
        where, values = "true", ()  # type: tuple[str, tuple[float, ...]]
        if within is not None:
            where = "centroid_x >= ? and centroid_x < ? and centroid_y >= ? and centroid_y < ?"
            values = (within[0] - 0.5, within[2] - 0.5, within[1] - 0.5, within[3] - 0.5)
        for batch in self.batches("centroid_x, centroid_y", where, values):
            yield np.column_stack([batch["centroid_x"], batch["centroid_y"]]).astype(np.float64) + 0.5

    def numbers(self, column: str) -> Iterator[NDArray[np.float64]]:
        for batch in self.batches(f'"{column}"'):
            yield batch[column].astype(np.float64)

    @cached_property
    def levels(self) -> list[Level]:
        """The pyramid, finest first."""
        zarr = library("zarr")
        try:
            group = zarr.open_group(str(self.zarr_path), mode="r")
            (described,) = group.attrs["ome"]["multiscales"]
            unit_px = self.slide.mpp if any("unit" in axis for axis in described["axes"]) else 1.0
            return [_level(group[each["path"]], each, unit_px or 1.0) for each in described["datasets"]]
        except (OSError, KeyError, ValueError) as error:
            raise _missing(self) from error

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
    return np.floor((start + (np.arange(count) + 0.5) * step) / label_step).astype(np.int64)


def _missing(layer: SlideLayer) -> UnknownMaskError:
    return UnknownMaskError(
        f"the slide's files of mask {layer.record.mask_id} are missing or damaged; segment the slide again."
    )


def _damaged(folder: ResultFolder) -> UnknownResultError:
    return UnknownResultError(
        f"the slide result in {folder.path.name} is incomplete or damaged; segment the slide again."
    )
