"""Numbers and outlines of objects in full-resolution pixels of the slide, as rows of a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.models.masks.object_table import RULES, geometry, staining
from tissuetalk.models.masks.outlines import polygons
from tissuetalk.models.segmenter import RGB
from tissuetalk.tools.storage.libraries import library

WHOLE = ("bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1")
LEFT_OUT = ("id", "nearest_neighbour_px")
"""Not columns of a slide: the id is ``object_id``, and the nearest neighbour may lie in another window."""
NUMBERS = tuple(name for name in RULES if name not in LEFT_OUT)
LENGTHS = tuple(name for name in NUMBERS if name.endswith("_px") and name != "area_px")

Columns = dict[str, NDArray[Any]]


def columns_of(
    labels: NDArray[np.int32], rgb: RGB, frame: Box, region: Box, step: float, mpp: float | None
) -> Columns:
    """One entry per object of ``labels`` in ascending order, in full-resolution pixels.

    labels, rgb: [frame.height, frame.width]. frame, region: working pixels. step: full-resolution pixels per working
    pixel. mpp: µm per full-resolution pixel, None leaves out areas and lengths in µm.
    """
    table = measured(labels, rgb)
    found: Columns = {name: np.asarray(table[name]) for name in NUMBERS}
    found["touches_border"] = (
        (found["bbox_x0"] + frame.x0 <= region.x0)
        | (found["bbox_y0"] + frame.y0 <= region.y0)
        | (found["bbox_x1"] + frame.x0 >= region.x1)
        | (found["bbox_y1"] + frame.y0 >= region.y1)
    )
    return in_full_pixels(found, (frame.x0, frame.y0), step, mpp)


def measured(labels: NDArray[np.int32], rgb: RGB) -> Columns:
    """The object table of a picture at the model's own scale."""
    table = geometry(labels, Box.whole(labels.shape[1], labels.shape[0]))
    return table | staining(labels, rgb, table["id"])


def in_full_pixels(table: Columns, corner: tuple[float, float], step: float, mpp: float | None) -> Columns:
    """Positions, lengths and areas of a picture whose corner lies at ``corner`` and whose pixels are ``step`` wide."""
    out = dict(table)
    for axis, start in zip("xy", corner, strict=True):
        out[f"centroid_{axis}"] = (table[f"centroid_{axis}"] + start + 0.5) * step - 0.5
        out[f"bbox_{axis}0"] = np.floor((table[f"bbox_{axis}0"] + start) * step + 1e-6).astype(np.int64)
        out[f"bbox_{axis}1"] = np.ceil((table[f"bbox_{axis}1"] + start) * step - 1e-6).astype(np.int64)
    out["area_px"] = table["area_px"] * step**2
    for name in LENGTHS:
        out[name] = table[name] * step
    if mpp is not None:
        out["area_um2"] = out["area_px"] * mpp**2
        out |= {f"{name[:-2]}um": out[name] * mpp for name in LENGTHS}
    return out


def outlines_of(labels: NDArray[np.int32], frame: Box, step: float) -> list[bytes]:
    """WKB outlines along pixel edges in full-resolution pixels, one per label in ascending order."""
    shapes = [shape for _, shape in polygons(labels, (frame.x0, frame.y0))]
    return as_wkb(shapes, step)


def as_wkb(shapes: list[shapely.Geometry], step: float) -> list[bytes]:
    """Working pixels to full-resolution pixels."""
    if not shapes:
        return []
    scaled = shapely.transform(np.array(shapes, object), lambda corners: corners * step)
    return [bytes(each) for each in shapely.to_wkb(scaled)]


def schema(known_scale: bool) -> Any:
    """The columns of an object file."""
    arrow = library("pyarrow")
    fields = [("object_id", arrow.int64()), ("block", arrow.string()), ("geometry", arrow.binary())]
    for name in NUMBERS:
        kind = (
            arrow.int64() if name in WHOLE else arrow.bool_() if name == "touches_border" else arrow.float64()
        )
        fields.append((name, kind))
    if known_scale:
        fields.append(("area_um2", arrow.float64()))
        fields += [(f"{name[:-2]}um", arrow.float64()) for name in LENGTHS]
    return arrow.schema(fields)


def as_table(
    ids: NDArray[np.int64], blocks: list[str], outlines: list[bytes], columns: Columns, known_scale: bool
) -> Any:
    """Rows as Arrow has them."""
    arrow = library("pyarrow")
    kinds = schema(known_scale)
    arrays = [
        arrow.array(ids, arrow.int64()),
        arrow.array(blocks, arrow.string()),
        arrow.array(outlines, arrow.binary()),
    ]
    arrays += [
        arrow.array(columns[field.name].astype(field.type.to_pandas_dtype()), field.type)
        for field in list(kinds)[3:]
    ]
    return arrow.Table.from_arrays(arrays, schema=kinds)


def write_rows(path: Path, table: Any) -> None:
    """Write all of it or nothing."""
    part = path.with_name(path.name + ".part")
    library("pyarrow.parquet").write_table(table, part, compression="zstd")
    part.replace(path)


def read_rows(path: Path) -> Any:
    return library("pyarrow.parquet").read_table(path)
