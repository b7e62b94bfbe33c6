"""The object file of a mask (Parquet): numbers and outlines in full-resolution pixels, a row per object or part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.masks.object_table import (
    RULES,
    CoarseGrid,
    geometry,
    in_micrometres,
    object_table,
    staining,
)
from tissuetalk.models.masks.outlines import polygons
from tissuetalk.models.writing import library, whole_file
from tissuetalk.tools.masks.rasters import create_pyramid, write_levels
from tissuetalk.tools.segment.algebra import LabelImage
from tissuetalk.tools.segment.decide import Labels
from tissuetalk.tools.segment.grid import Grid

THUMBNAIL_PX = 2048
SHOWN_SHARE = 0.3
"""Share of a thumbnail pixel that must be marked to be shown."""
MOST_SHOWN = 65_535
LARGE_PX = 4_000_000
"""An object whose bounding box has more pixels is measured on a picture shrunk to about this many."""
WHOLE = ("bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1")
LEFT_OUT = ("id", "nearest_neighbour_px")
"""Not columns of a slide: the id is ``object_id``, and the nearest neighbour may lie in another window."""
NUMBERS = tuple(name for name in RULES if name not in LEFT_OUT)
LENGTHS = tuple(name for name in NUMBERS if name.endswith("_px") and name != "area_px")


@dataclass(frozen=True)
class Measuring:
    """What measuring needs besides labels. mpp: µm per full-resolution pixel, None where nobody knows it."""

    source: ImageSource
    grid: Grid
    mpp: float | None

    def rows(self, labels: Labels, box: Box, blocks: list[str]) -> Any:
        """One row per number of [box.height, box.width], ascending. blocks: where each was seen."""
        table = object_table(
            labels, box, mpp=self.mpp, source=self.source, step=self.grid.step, region=self.grid.region
        )
        outlines = shapely.to_wkb([shape for _, shape in polygons(labels, (box.x0, box.y0))]).tolist()
        return as_rows(table["id"], blocks, outlines, table, self.mpp)


def schema(mpp: float | None) -> Any:
    """The columns of an object file."""
    arrow = library("pyarrow")
    fields = [("object_id", arrow.int64()), ("block", arrow.string()), ("geometry", arrow.binary())]
    for name in NUMBERS:
        kind = (
            arrow.int64() if name in WHOLE else arrow.bool_() if name == "touches_border" else arrow.float64()
        )
        fields.append((name, kind))
    if mpp is not None:
        fields.append(("area_um2", arrow.float64()))
        fields += [(f"{name[:-2]}um", arrow.float64()) for name in LENGTHS]
    return arrow.schema(fields)


def as_rows(
    ids: NDArray[Any],
    blocks: list[str],
    outlines: list[bytes],
    columns: dict[str, NDArray[Any]],
    mpp: float | None,
) -> Any:
    """Rows as Arrow has them."""
    arrow = library("pyarrow")
    kinds = schema(mpp)
    arrays = [
        arrow.array(np.asarray(ids, np.int64), arrow.int64()),
        arrow.array(blocks, arrow.string()),
        arrow.array(outlines, arrow.binary()),
    ]
    arrays += [
        arrow.array(np.asarray(columns[kind.name]).astype(kind.type.to_pandas_dtype()), kind.type)
        for kind in list(kinds)[3:]
    ]
    return arrow.Table.from_arrays(arrays, schema=kinds)


def no_rows(mpp: float | None) -> Any:
    return schema(mpp).empty_table()


def read_rows(path: Path) -> Any:
    return library("pyarrow.parquet").read_table(path)


def write_rows(path: Path, table: Any) -> None:
    """Write all of it or nothing."""
    with whole_file(path) as partial:
        library("pyarrow.parquet").write_table(table, partial, compression="zstd")


def write_tables(path: Path, tables: Iterator[Any], mpp: float | None, control: Control = Control()) -> None:
    """One group of rows per table that has any; all of the file or nothing."""
    parquet = library("pyarrow.parquet")
    with (
        whole_file(path) as partial,
        parquet.ParquetWriter(partial, schema(mpp), compression="zstd") as writer,
    ):
        for table in tables:
            control.check()
            if table.num_rows:
                writer.write_table(table.sort_by("object_id"))


def row_alone(mask: LabelImage, number: int, box: Box, block: str, how: Measuring) -> tuple[Any, bool]:
    """The row of one object that lies in a box, and whether shape and stain had to be measured on a shrunk picture.

    Area, centre and bounding box are exact either way.
    """
    if box.width * box.height <= LARGE_PX:
        found = np.where(mask.read(box) == number, number, 0).astype(np.int32)
        tight = Box.around(found, box.x0, box.y0)
        if tight is None:
            return no_rows(how.mpp), False
        return how.rows(np.ascontiguousarray(found[tight.inside(box)]), tight, [block]), False
    step = max(how.grid.step, 1.0)
    coarse = CoarseGrid.over(
        box, step * max(1.0, np.ceil((box.width * box.height / step**2 / LARGE_PX) ** 0.5))
    )
    whole = _InPieces(mask, number, box, coarse)
    bounds = whole.bounds()
    if bounds is None:
        return no_rows(how.mpp), False
    table = geometry(
        whole.shrunk, Box(coarse.x0, coarse.y0, coarse.x0 + coarse.width, coarse.y0 + coarse.height)
    )
    table |= staining(whole.shrunk, coarse.pixels(how.source), table["id"])
    columns: dict[str, NDArray[Any]] = table | {name: table[name] * coarse.step for name in LENGTHS}
    edge = how.grid.region
    touches = bounds.x0 <= edge.x0 or bounds.y0 <= edge.y0 or bounds.x1 >= edge.x1 or bounds.y1 >= edge.y1
    exact = {
        "centroid_x": whole.sum_x / whole.area,
        "centroid_y": whole.sum_y / whole.area,
        "area_px": whole.area,
        "equivalent_diameter_px": np.sqrt(4 * whole.area / np.pi),
        "touches_border": touches,
    } | dict(zip(WHOLE, bounds.as_list(), strict=True))
    columns |= {name: np.array([value]) for name, value in exact.items()}
    if how.mpp is not None:
        columns |= in_micrometres({name: columns[name] for name in (*LENGTHS, "area_px")}, how.mpp)
    outline = shapely.to_wkb(shapely.union_all(whole.shapes))
    return as_rows(np.array([number]), [block], [outline], columns, how.mpp), True


class _InPieces:
    """One object, read piece by piece: sums and outlines of its full-resolution pixels, and a shrunk picture of it."""

    def __init__(self, mask: LabelImage, number: int, box: Box, coarse: CoarseGrid) -> None:
        self.area, self.sum_x, self.sum_y = 0, 0, 0
        self.shapes: list[shapely.Geometry] = []
        self.shrunk = np.zeros((coarse.height, coarse.width), np.int32)
        self._boxes: list[Box] = []
        for part in mask.parts():
            here = part.intersection(box)
            if here is None:
                continue
            labels = (mask.read(here) == number).astype(np.int32)
            marked = Box.around(labels, here.x0, here.y0)
            if marked is None:
                continue
            self._boxes.append(marked)
            rows, columns = labels.sum(axis=1, dtype=np.int64), labels.sum(axis=0, dtype=np.int64)
            self.area += int(rows.sum())
            self.sum_x += int((columns * np.arange(here.x0, here.x1)).sum())
            self.sum_y += int((rows * np.arange(here.y0, here.y1)).sum())
            self.shapes += [shape for _, shape in polygons(labels, (here.x0, here.y0))]
            (to_y, from_y), (to_x, from_x) = (
                _under(first, count, coarse.step, start, end)
                for first, count, start, end in (
                    (coarse.y0, coarse.height, here.y0, here.y1),
                    (coarse.x0, coarse.width, here.x0, here.x1),
                )
            )
            self.shrunk[np.ix_(to_y, to_x)] = labels[np.ix_(from_y, from_x)]
        if self.area and not self.shrunk.any():
            # thinner than a pixel of the shrunk picture everywhere
            self.shrunk[0, 0] = 1

    def bounds(self) -> Box | None:
        if not self._boxes:
            return None
        return Box(
            min(each.x0 for each in self._boxes),
            min(each.y0 for each in self._boxes),
            max(each.x1 for each in self._boxes),
            max(each.y1 for each in self._boxes),
        )


def _under(
    first: int, count: int, step: float, start: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Coarse pixels whose middle lies in start..end, and the full-resolution pixels under them, from start."""
    middles = np.floor((first + np.arange(count) + 0.5) * step).astype(np.int64)
    at = np.flatnonzero((middles >= start) & (middles < end))
    return at, middles[at] - start


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
    group = library("zarr").open_group(str(path), mode="w", zarr_format=3)
    levels = create_pyramid(
        group,
        (region.width, region.height),
        corner_xy=(region.x0, region.y0),
        step=1.0,
        mpp=mpp,
        dtype="int32" if mask.objects else "uint8",
    )
    described = group.attrs["ome"]
    described["multiscales"][0]["name"] = path.name.split(".")[0]
    group.attrs["ome"] = {**described, "image-label": {"version": "0.5"}}
    group.attrs["tissuetalk"] = about
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
        write_levels(levels, labels if mask.objects else (labels > 0).astype(np.uint8), left, top)
        shown, left, top = labels[marked.inside(box)], marked.x0 - region.x0, marked.y0 - region.y0
        _add_to_thumbnail(painted.labels, share, shown, left, top, shrink)
        painted.area += int(np.count_nonzero(labels))
        old = painted.box or marked
        painted.box = Box(
            min(old.x0, marked.x0), min(old.y0, marked.y0), max(old.x1, marked.x1), max(old.y1, marked.y1)
        )
    painted.mask = share >= SHOWN_SHARE
    painted.labels[~painted.mask] = 0
    return painted


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
    # row by row first: several times faster than both ways at once
    most = padded.reshape(size[1], shrink, -1).max(axis=1).reshape(size[1], size[0], shrink).max(axis=2)
    shown = np.where(most > 0, (most - 1) % MOST_SHOWN + 1, 0).astype(np.uint16)
    np.maximum(highest[at], shown, out=highest[at])
