"""The object file of one mask: rows of all windows under their final ids, large objects measured as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.images import ImageSource
from tissuetalk.tools.segment import rows
from tissuetalk.tools.segment.stitching import Group, Numbered, Piece, Place, Stitched, WindowStore
from tissuetalk.tools.storage.libraries import library

LARGE_PX = 4_000_000
"""A large object whose bounding box has more pixels is measured on a picture shrunk to about this many."""


@dataclass(frozen=True)
class Scale:
    """step: full-resolution pixels per working pixel. mpp: µm per full-resolution pixel, None if nobody knows."""

    step: float
    model_mpp: float
    mpp: float | None


def write_objects(
    path: Path,
    store: WindowStore,
    stitched: Stitched,
    numbered: Numbered,
    source: ImageSource,
    scale: Scale,
    stop: Callable[[], None] = lambda: None,
) -> int:
    """Write the rows, one group per window with objects, and return how many large objects were measured shrunk."""
    parquet = library("pyarrow.parquet")
    shrunk = 0
    starting: dict[Place, list[int]] = {}
    for index, group in enumerate(stitched.groups):
        if index in numbered.group_ids:
            starting.setdefault(group.pieces[0][0], []).append(index)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(part, rows.schema(scale.mpp is not None), compression="zstd") as writer:
        for place in store.order():
            stop()
            tables = [_whole(store, stitched, numbered, place)]
            for index in starting.get(place, []):
                table, was_shrunk = _large(
                    store, stitched.groups[index], numbered.group_ids[index], source, scale
                )
                tables.append(table)
                shrunk += was_shrunk
            table = library("pyarrow").concat_tables(tables).sort_by("object_id")
            if table.num_rows:
                writer.write_table(table)
    part.replace(path)
    return shrunk


def _whole(store: WindowStore, stitched: Stitched, numbered: Numbered, place: Place) -> Any:
    arrow = library("pyarrow")
    table = rows.read_rows(store.files[place].rows(store.prompt))
    ids = numbered.numbers[place][1 : 1 + len(stitched.small[place])].astype(np.int64)
    table = table.set_column(0, "object_id", arrow.array(ids, arrow.int64()))
    return table.filter(arrow.array(ids > 0))


def outline_of(store: WindowStore, pieces: list[Piece]) -> shapely.Geometry:
    """The union of fragments, in working pixels."""
    shapes = []
    by_place: dict[Place, list[int]] = {}
    for place, number in pieces:
        by_place.setdefault(place, []).append(number)
    for place, numbers in by_place.items():
        small = store.summary(place).small
        outlines = store.files[place].read_outlines(store.prompt)
        shapes += [outlines[number - small - 1] for number in numbers]
    return shapes[0] if len(shapes) == 1 else shapely.union_all(shapes)


def _large(
    store: WindowStore, group: Group, object_id: int, source: ImageSource, scale: Scale
) -> tuple[Any, bool]:
    """Its row, and whether outline and stain had to be measured on a shrunk picture. Area and centre are exact."""
    shape = outline_of(store, group.pieces)
    width, height = group.x1 - group.x0, group.y1 - group.y0
    shrink = max(1, int(np.ceil(np.sqrt(width * height / LARGE_PX))))
    labels = _drawn(shape, group, shrink)
    step = scale.step * shrink
    rgb = source.read_grid(
        (group.x0 * scale.step, step),
        (group.y0 * scale.step, step),
        width=labels.shape[1],
        height=labels.shape[0],
    )
    table = rows.measured(labels, rgb)
    measured: rows.Columns = {name: np.asarray(table[name]) for name in rows.NUMBERS}
    region = store.grid.box
    measured["touches_border"] = np.array(
        [group.x0 <= region.x0 or group.y0 <= region.y0 or group.x1 >= region.x1 or group.y1 >= region.y1]
    )
    columns = rows.in_full_pixels(measured, (group.x0 / shrink, group.y0 / shrink), step, scale.mpp)
    x, y = group.centre
    columns |= {
        "centroid_x": np.array([x * scale.step - 0.5]),
        "centroid_y": np.array([y * scale.step - 0.5]),
    }
    for name, edge in (("x0", group.x0), ("y0", group.y0)):
        columns[f"bbox_{name}"] = np.array([int(np.floor(edge * scale.step + 1e-6))])
    for name, edge in (("x1", group.x1), ("y1", group.y1)):
        columns[f"bbox_{name}"] = np.array([int(np.ceil(edge * scale.step - 1e-6))])
    columns["area_px"] = np.array([group.area * scale.step**2])
    if scale.mpp is not None:
        columns["area_um2"] = columns["area_px"] * scale.mpp**2
    (column, row), _ = group.pieces[0]
    block = f"{scale.model_mpp:g}:window {column}_{row}" + (
        f" +{len(group.pieces) - 1}" if len(group.pieces) > 1 else ""
    )
    outlines = rows.as_wkb([shape], scale.step)
    return rows.as_table(np.array([object_id]), [block], outlines, columns, scale.mpp is not None), shrink > 1


def _drawn(shape: shapely.Geometry, group: Group, shrink: int) -> NDArray[np.int32]:
    """[h, w] of the object's bounding box, 1 where it is. Pixels of the shrunk picture count by their middle."""
    width, height = -(-(group.x1 - group.x0) // shrink), -(-(group.y1 - group.y0) // shrink)
    labels = np.zeros((height, width), np.int32)
    for polygon in getattr(shape, "geoms", [shape]):
        x0, y0, x1, y1 = polygon.bounds
        left, top = int((x0 - group.x0) // shrink), int((y0 - group.y0) // shrink)
        right, bottom = (
            min(width, int(-(-(x1 - group.x0) // shrink))),
            min(height, int(-(-(y1 - group.y0) // shrink))),
        )
        patch = np.zeros((bottom - top, right - left), np.uint8)
        rings = [polygon.exterior, *polygon.interiors]
        _fill(patch, [np.asarray(ring.coords) for ring in rings], group, shrink, left, top)
        labels[top:bottom, left:right][patch > 0] = 1
    if not labels.any():
        labels[0, 0] = 1
    return labels


def _fill(
    patch: NDArray[np.uint8], rings: list[NDArray[np.float64]], group: Group, shrink: int, left: int, top: int
) -> None:
    """Even-odd fill of rings along pixel edges: a pixel is inside when its middle is."""
    height, width = patch.shape
    crossings = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        x = (ring[:, 0] - group.x0) / shrink - left
        y = (ring[:, 1] - group.y0) / shrink - top
        for (x0, y0), (_, y1) in zip(
            np.stack([x[:-1], y[:-1]], 1).tolist(), np.stack([x[1:], y[1:]], 1).tolist(), strict=True
        ):
            if y0 != y1:  # outlines run along the axes: only vertical edges cross rows
                first, last = sorted((int(np.ceil(y0 - 0.5)), int(np.ceil(y1 - 0.5))))
                column = min(max(int(np.ceil(x0 - 0.5)), 0), width)
                crossings[max(first, 0) : min(last, height), column] += 1
    patch[:] = np.cumsum(crossings, axis=1)[:, :width] & 1
