"""One mask of a result, whatever holds it: pixels in windows, objects as rows, outlines.

Measures, exports and pictures are written over ``MaskLayer`` alone. Two forms exist: ``PictureLayer`` holds everything in
memory, ``SlideLayer`` reads from disk and never holds more than a batch of rows or a window of labels.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.errors import ImageTooLargeError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.masks.characteristics import MIN_INSTANCE_PX, MaskSurvey, survey
from tissuetalk.models.masks.object_table import column_names, object_table
from tissuetalk.models.masks.outlines import polygons
from tissuetalk.models.writing import CsvWriter, library, write_whole
from tissuetalk.tools.answers.results import Mask, is_known
from tissuetalk.tools.masks.rasters import (
    WINDOW_PX,
    LabelPyramid,
    Points,
    create_pyramid,
    missing,
    write_levels,
)
from tissuetalk.tools.storage.result_folder import ResultFolder

ROWS_PER_BATCH = 20_000
MOST_TRACED_PX = 16_000_000
"""Largest picture of a region whose outline is traced; a larger one is traced at a coarser level of its pyramid."""
MOST_MEASURED_PX = 16_000_000
"""Largest region of a slide that is measured as one object; of a larger one only the area is known."""
MOST_IN_MEMORY_PX = 2**28
"""Largest region whose labels are given as one array of 1 GiB."""
DECIMALS = 2
"""Of a coordinate in full-resolution pixels."""
HALO_PX = 1_000.0
"""How far around a batch neighbours are looked for at first; doubled for those that could have a nearer one."""

OpenImage = Callable[[], ImageSource]
"""Opens the image a result was made from, checked to be unchanged; called only by what needs pixels."""
Rows = dict[str, NDArray[Any]]
"""Columns of equal length: those of ``RULES`` of the object table, the same in µm, and ``geometry``, the outline as WKB.
Of a slide also ``block``, where in the run an object was found."""
Window = tuple[float, float, float, float]
"""Half-open x0, y0, x1, y1 in full-resolution pixels."""


class MaskLayer(ABC):
    """One mask of a result. mpp: µm per full-resolution pixel, None when nobody knows it."""

    def __init__(self, folder: ResultFolder, record: Mask, open_image: OpenImage) -> None:
        self.folder, self.record, self.open_image = folder, record, open_image
        origin = record.provenance
        self.region = Box.from_sequence(origin.region)
        self.mpp = origin.mpp if is_known(origin.mpp_source) else None
        self.name = record.name
        self.has_objects = record.resources.instances is not None

    @property
    def region_px(self) -> int:
        return self.region.width * self.region.height

    @property
    @abstractmethod
    def labels(self) -> LabelPyramid:
        """Raises UnknownMaskError where its file is missing."""

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """What ``rows`` can give, in the order of the object table."""

    @abstractmethod
    def count(self) -> int:
        """Number of objects; 0 for a region."""

    @abstractmethod
    def rows(self, columns: Sequence[str], within: Window | None = None) -> Iterator[Rows]:
        """One row per object in batches, only of those whose centroid lies within; a region is one row, or one per part."""

    @abstractmethod
    def save_labels(self, path: Path) -> None:
        """Write the label pyramid as an OME-Zarr."""

    @cached_property
    def survey(self) -> MaskSurvey:
        """Boundary and parts of the mask, in its finest pixels."""
        # the 36 px of the definition are full-resolution ones; older slides have coarser labels
        least_px = MIN_INSTANCE_PX / (self.labels.finest.step_x * self.labels.finest.step_y)
        shape = self.labels.finest.array.shape
        return survey(self.labels.marked, shape, side=WINDOW_PX, min_px=least_px)

    def points(self, within: Window | None = None) -> Iterator[Points]:
        """Centroids in batches."""
        for batch in self.rows(["centroid_x", "centroid_y"], within):
            yield _centres(batch)

    def numbers(self, column: str) -> NDArray[np.float64]:
        """[N]: one column of all objects."""
        batches = (batch[column].astype(np.float64) for batch in self.rows([column]))
        return np.concatenate([np.zeros(0), *batches])

    def outlines(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """(numbers, shapely geometries) in batches, in full-resolution pixels; of a region its connected parts."""
        if not self.has_objects:
            yield from self._parts()
            return
        for batch in self.rows(["id", "geometry"]):
            yield batch["id"].astype(np.int64), shapely.from_wkb(batch["geometry"])

    def _parts(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        raster = self.labels.overview(MOST_TRACED_PX)
        from scipy import ndimage

        parts, _ = ndimage.label(raster.values, np.ones((3, 3)))
        found = list(polygons(np.asarray(parts, np.int32), (0, 0)))
        if found:
            corner, step = (raster.x0, raster.y0), (raster.step_x, raster.step_y)
            shapes = shapely.transform(np.array([shape for _, shape in found]), lambda at: at * step + corner)
            yield np.array([number for number, _ in found], np.int64), rounded(shapes)

    def in_full(self) -> NDArray[np.int32]:
        """[region.height, region.width] labels in full-resolution pixels. Raises ImageTooLargeError on a large slide."""
        if self.region_px > MOST_IN_MEMORY_PX:
            raise ImageTooLargeError(
                "the masks of a slide are not held in memory; segment a region, or export to ome-zarr or geojson."
            )
        return self.labels.sample(self.region, self.region.width, self.region.height)

    @property
    def _numbered(self) -> NDArray[np.int32]:
        labels = self.in_full()
        return labels if self.has_objects else (labels > 0).astype(np.int32)

    def _as_one(self, *, with_pixels: bool) -> Rows:
        """The object table of labels that fit in memory; a region counts as one object with number 1."""
        if not with_pixels:
            return object_table(self._numbered, self.region, mpp=self.mpp)
        origin = self.record.provenance
        with self.open_image() as source:
            # staining is measured as the model saw it, so that a slide and a picture of it agree
            step = origin.model_mpp / origin.mpp
            return object_table(self._numbered, self.region, mpp=self.mpp, source=source, step=step)

    def nearest_px(self, asked: Points) -> NDArray[np.float64]:
        """[N]: distance from each of the centroids ``asked`` to the nearest other one, NaN where there is none; exact."""
        from scipy.spatial import cKDTree

        distances, open_, halo = np.full(len(asked), np.nan), np.arange(len(asked)), HALO_PX
        (x0, y0), (x1, y1) = asked.min(axis=0), asked.max(axis=0)
        region = self.region
        while open_.size:
            window = (x0 - halo, y0 - halo, x1 + halo, y1 + halo)
            everything = window[0] <= region.x0 and window[1] <= region.y0
            everything = everything and window[2] > region.x1 and window[3] > region.y1
            # every window holds the points that are asked about, so the nearest of two hits is the point itself
            near = np.concatenate(list(self.points(window)))
            if len(near) > 1:
                distances[open_] = np.asarray(cKDTree(near).query(asked[open_], k=2)[0])[:, 1]
            # whatever lies beyond the window is at least so far away
            from_edge = np.minimum(asked[open_] - window[:2], window[2:] - asked[open_]).min(axis=1)
            certain = distances[open_] <= from_edge
            open_ = open_[:0] if everything else open_[~certain]
            halo *= 2
        return distances


class PictureLayer(MaskLayer):
    """A mask whose labels are a picture, held in memory when first asked for."""

    @cached_property
    def labels(self) -> LabelPyramid:
        found = self.folder.instances(self.record.mask_id) if self.has_objects else None
        if found is None:
            found = self.folder.mask(self.record.mask_id).astype(np.int32)
        return LabelPyramid.in_memory(found, self.region)

    def in_full(self) -> NDArray[np.int32]:
        found: NDArray[np.int32] = self.labels.finest.array
        return found

    @property
    def columns(self) -> list[str]:
        return [*column_names(self.mpp), "geometry"]

    def count(self) -> int:
        return int(np.count_nonzero(np.bincount(self._numbered.ravel())[1:])) if self.has_objects else 0

    def rows(self, columns: Sequence[str], within: Window | None = None) -> Iterator[Rows]:
        # outlines and geometry need no image; most questions end there
        table = self._geometry if set(columns) <= {*self._geometry, "geometry"} else self._table
        keep = slice(None) if within is None else _lie_in(_centres(table), within)
        chosen = {name: self._outlines if name == "geometry" else table[name] for name in columns}
        if len(table["id"]):
            yield {name: column[keep] for name, column in chosen.items()}

    def save_labels(self, path: Path) -> None:
        finest = self.labels.finest
        kind = str(np.min_scalar_type(int(finest.array.max(initial=1))))
        group = library("zarr").open_group(str(path), mode="w")
        corner = (finest.x0, finest.y0)
        arrays = create_pyramid(group, finest.size, corner_xy=corner, step=1.0, mpp=self.mpp, dtype=kind)
        write_levels(arrays, finest.array.astype(kind))

    @cached_property
    def _geometry(self) -> Rows:
        return self._as_one(with_pixels=False)

    @cached_property
    def _outlines(self) -> NDArray[Any]:
        shapes = [shape for _, shape in polygons(self._numbered, (self.region.x0, self.region.y0))]
        return np.asarray(shapely.to_wkb(np.array(shapes, object)), object)

    @cached_property
    def _table(self) -> Rows:
        """With the columns that need pixels; kept beside the result, so that the image is read once."""
        path = self.folder.path / self.record.resources.table
        if path.is_file():
            header, *lines = csv.reader(path.read_text("utf-8").splitlines())
            return {name: _parsed([line[at] for line in lines]) for at, name in enumerate(header)}
        table = self._as_one(with_pixels=True)
        buffer = io.StringIO()
        writer = CsvWriter(buffer, list(table))
        writer.header()
        writer.rows(as_lines(table))
        write_whole(path, buffer.getvalue())
        return table


class SlideLayer(MaskLayer):
    """A mask on disk: ``slide/labels/<mask_id>.ome.zarr`` and, where it has objects, ``slide/objects/<mask_id>.parquet``."""

    @cached_property
    def labels(self) -> LabelPyramid:
        return LabelPyramid.stored(self._label_path, self.mpp)

    @property
    def _label_path(self) -> Path:
        return self.folder.path / "slide" / "labels" / f"{self.record.mask_id}.ome.zarr"

    def save_labels(self, path: Path) -> None:
        try:
            shutil.copytree(self._label_path, path)
        except FileNotFoundError as error:
            raise missing(self.record.mask_id) from error

    @cached_property
    def _file(self) -> Any | None:
        """Footer of the object file; None for a region without one."""
        path = self.folder.path / "slide" / "objects" / f"{self.record.mask_id}.parquet"
        if path.is_file():
            return library("pyarrow.parquet").ParquetFile(path, memory_map=False)
        if self.has_objects:
            raise missing(self.record.mask_id)
        return None

    @cached_property
    def columns(self) -> list[str]:
        if self._file is None:
            if self.region_px <= MOST_MEASURED_PX:
                return [*column_names(self.mpp), "geometry"]
            return ["id", "area_px", *(["area_um2"] if self.mpp else []), "geometry"]
        names = {"id", *self._file.schema_arrow.names, "nearest_neighbour_px", "nearest_neighbour_um"}
        return [name for name in (*column_names(self.mpp), "geometry", "block") if name in names]

    def count(self) -> int:
        return int(self._file.metadata.num_rows) if self.has_objects and self._file is not None else 0

    def rows(self, columns: Sequence[str], within: Window | None = None) -> Iterator[Rows]:
        if self._file is None:
            if self.record.found:
                yield self._whole(columns)
            return
        near = [name for name in columns if name.startswith("nearest_neighbour")]
        more = {"centroid_x", "centroid_y"} if near or within is not None else set()
        names = {"object_id" if name == "id" else name for name in {*columns, *more} - set(near)}
        # the nearest neighbour may lie in another window of the run, so files do not hold it: it is looked up here
        for batch in self._batches(sorted(names), within):
            if within is not None:  # before outlines are taken out of it, one by one
                centres = _centres({name: _as_numpy(batch.column(name)) for name in more})
                batch = batch.filter(library("pyarrow").array(_lie_in(centres, within)))
            found = {name: _as_numpy(batch.column(name)) for name in names}
            found["id"] = found.pop("object_id", np.zeros(0))
            if near:
                nearest = self.nearest_px(_centres(found))
                found |= {"nearest_neighbour_px": nearest, "nearest_neighbour_um": nearest * (self.mpp or 1)}
            yield {name: found[name] for name in columns}

    def _batches(self, names: list[str], within: Window | None) -> Iterator[Any]:
        """Arrow record batches in the order of the file; groups of rows that lie elsewhere are not read."""
        assert self._file is not None
        if within is None:
            groups = list(range(self._file.metadata.num_row_groups))
        else:
            # half a pixel: the file counts from pixel centres, windows count from pixel edges
            low, high = self._group_edges
            there = (high >= np.array(within[:2]) - 0.5) & (low < np.array(within[2:]) - 0.5)
            groups = np.flatnonzero(there.all(axis=1)).tolist()
        if groups:
            yield from self._file.iter_batches(ROWS_PER_BATCH, groups, names, use_threads=False)

    @cached_property
    def _group_edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest centroid, [groups, 2] x and y, of every group of rows."""
        assert self._file is not None
        footer, names = self._file.metadata, self._file.schema_arrow.names
        at = [names.index("centroid_x"), names.index("centroid_y")]
        edges = np.empty((2, footer.num_row_groups, 2))
        for group in range(footer.num_row_groups):
            for axis, column in enumerate(at):
                known = footer.row_group(group).column(column).statistics
                # a file written by others may come without statistics: then every group is read
                has = known is not None and known.has_min_max
                edges[:, group, axis] = (known.min, known.max) if has else (-math.inf, math.inf)
        return edges[0], edges[1]

    def _whole(self, columns: Sequence[str]) -> Rows:
        """The one row of a region without an object file."""
        whole: Rows = {
            "id": np.array([1]),
            "area_px": np.array([self.record.area_px]),
            "area_um2": np.array([self.record.area_um2]),
        }
        if not set(columns) <= {*whole, "geometry"}:
            whole = self._as_one(with_pixels=True)
        if "geometry" in columns:  # a large region is long in tracing
            shapes = np.concatenate([parts for _, parts in self._parts()])
            joined = shapely.multipolygons(shapely.get_parts(shapes))
            whole["geometry"] = np.array([shapely.to_wkb(joined)], object)
        return {name: whole[name] for name in columns}

    def outlines(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        if self._file is None:
            yield from self._parts()
            return
        for batch in self.rows(["id", "geometry"]):
            yield batch["id"].astype(np.int64), rounded(shapely.from_wkb(batch["geometry"]))


def is_on_disk(folder: ResultFolder) -> bool:
    """Whether masks are label pyramids and object files; the pictures of such a result are thumbnails."""
    return (folder.path / "slide" / "slide.json").is_file()


def layers_of(
    folder: ResultFolder, records: Iterable[Mask], open_image: OpenImage | None = None
) -> list[MaskLayer]:
    """Masks of a folder, in memory or on disk as they were written. open_image: not needed for labels and outlines."""
    form = SlideLayer if is_on_disk(folder) else PictureLayer
    return [form(folder, record, open_image or _no_image) for record in records]


def _no_image() -> NoReturn:
    raise AssertionError("labels and outlines are read without the image")


def rounded(shapes: NDArray[Any]) -> NDArray[Any]:
    """Geometries with ``DECIMALS`` decimals; labels coarser than the image have corners between its pixels."""
    return np.asarray(shapely.transform(shapes, lambda corners: np.round(corners, DECIMALS)))


def as_lines(rows: Rows) -> Iterator[tuple[Any, ...]]:
    """Row after row as Python has numbers, which are written so that they read back as they were."""
    return zip(*(column.tolist() for column in rows.values()), strict=True)


def _as_numpy(column: Any) -> NDArray[Any]:
    """[N] of an Arrow array; its own ``to_numpy`` imports all of pandas, which takes a second."""
    types = library("pyarrow.types")
    if (types.is_integer(column.type) or types.is_floating(column.type)) and not column.null_count:
        return np.from_dlpack(column)
    return np.array(column.to_pylist(), bool if types.is_boolean(column.type) else object)


def _parsed(texts: list[str]) -> NDArray[Any]:
    if texts and texts[0] in ("True", "False"):
        return np.array([text == "True" for text in texts])
    try:
        return np.array([int(text) for text in texts], np.int64)
    except ValueError:
        return np.array([float(text) for text in texts], np.float64)


def _centres(rows: Rows) -> Points:
    # from pixel centres at whole numbers to pixel edges at whole numbers
    return np.column_stack([rows["centroid_x"], rows["centroid_y"]]).astype(np.float64) + 0.5


def _lie_in(points: Points, within: Window) -> NDArray[np.bool_]:
    x, y = points.T
    x0, y0, x1, y1 = within
    return np.asarray((x >= x0) & (x < x1) & (y >= y0) & (y < y1), bool)
