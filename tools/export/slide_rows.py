"""GeoJSON, CSV and Parquet of a slide, written a batch at a time."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import shapely

from tissuetalk.models.errors import ImageTooLargeError
from tissuetalk.models.masks.outlines import MANY
from tissuetalk.tools.export import parquet as ordinary
from tissuetalk.tools.export import tables
from tissuetalk.tools.export.content import library
from tissuetalk.tools.export.slide_content import SlideContent, outlined, region_parts
from tissuetalk.tools.masks.slide import SlideLayer

MOST_RESOURCE_BYTES = 8_000_000
"""An assistant cannot read more in one go; a file can hold it."""


def write_geojson(content: SlideContent, out: Path) -> None:
    """One feature per object or part of a region, a line each; packed when the name ends in ``.gz``."""
    with ExitStack() as stack:
        raw = stack.enter_context(out.open("wb"))
        if out.suffix == ".gz":
            packed = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0))
            write_features(content, content.layers, lambda text: packed.write(text.encode()))
        else:
            write_features(content, content.layers, lambda text: raw.write(text.encode()))


def write_features(content: SlideContent, layers: list[SlideLayer], write: Any) -> None:
    """A whole FeatureCollection in small pieces of text."""
    about = json.dumps(content.content.about())
    write(f'{{"type": "FeatureCollection", "tissuetalk": {about}, "features": [')
    between = "\n"
    for layer in layers:
        for text in features(layer):
            write(between + text)
            between = ",\n"
    write("\n]}")


def features(layer: SlideLayer) -> Iterator[str]:
    """The same properties as in the outlines of an ordinary result, one JSON text per feature."""
    record = layer.record
    kind = "detection" if layer.count() >= MANY else "annotation"
    rgb = [int(record.colour[at : at + 2], 16) for at in (1, 3, 5)]
    shared = json.dumps({"objectType": kind, "classification": {"name": layer.name, "color": rgb}})[:-1]
    for numbers, shapes in outlined(layer):
        for number, geometry in zip(numbers.tolist(), shapely.to_geojson(shapes).tolist(), strict=True):
            own = json.dumps({"name": f"{layer.name} {number}", "mask_id": record.mask_id, "object": number})
            yield f'{{"type": "Feature", "geometry": {geometry}, "properties": {shared}, {own[1:]}}}'


def write_csv(content: SlideContent, out: Path) -> None:
    """Columns of the object file under one header; a region without one is a row with its area alone."""
    with out.open("wb") as file:
        write_table(content, content.layers, file)


def write_table(content: SlideContent, layers: list[SlideLayer], file: Any) -> None:
    """Rows of some masks as CSV."""
    arrow, csv = library("pyarrow"), library("pyarrow.csv")
    columns = content.columns()
    fields = [(name, arrow.string()) for name in ("mask_id", "name")] + [("id", arrow.int64())]
    schema = arrow.schema([*fields, *((name, _type(arrow, name)) for name in columns)])
    with csv.CSVWriter(file, schema) as writer:
        for layer in layers:
            constants = {"mask_id": layer.record.mask_id, "name": layer.name}
            for batch in _batches(layer, columns, with_outline=False):
                writer.write_table(_placed(arrow, batch, schema, constants))


def write_parquet(content: SlideContent, out: Path) -> None:
    """The object files as one, with provenance, in the columns of an ordinary export; numbers a region lacks are null."""
    arrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    columns = content.columns()
    full = ordinary.schema(arrow, content.content)
    left_out = set(tables.columns(content.content)) - {*columns, "id"}
    schema = arrow.schema(
        [
            arrow.field(each.name, arrow.float64()) if each.name == "area_px" else each
            for each in full
            if each.name not in left_out
        ]
        + [arrow.field("block", arrow.string())],
        metadata=full.metadata,
    )
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for layer in content.layers:
            constants = ordinary.constants(content.content, layer.record, layer.name, layer.has_objects)
            for batch in _batches(layer, [*columns, "block"], with_outline=True):
                writer.write_table(_placed(arrow, batch, schema, constants))


class _Limited(io.BytesIO):
    """Bytes for a resource. Raises ImageTooLargeError when they become too many to send."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > MOST_RESOURCE_BYTES:
            raise ImageTooLargeError(
                f"this mask has more than {MOST_RESOURCE_BYTES // 10**6} MB of objects, too much for a resource; save them: "
                "library(action='save', format='geojson', 'csv' or 'parquet'), or `tissuetalk export`."
            )
        return super().write(data)


def outlines_of(content: SlideContent) -> bytes:
    """GeoJSON small enough to be sent."""
    buffer = _Limited()
    write_features(content, content.layers, lambda text: buffer.write(text.encode()))
    return buffer.getvalue()


def table_of(content: SlideContent) -> bytes:
    """CSV small enough to be sent."""
    buffer = _Limited()
    write_table(content, content.layers, buffer)
    return buffer.getvalue()


def _batches(layer: SlideLayer, columns: list[str], *, with_outline: bool) -> Iterator[dict[str, Any]]:
    """Arrow columns by name; of a region without rows its number, area and outline."""
    arrow = library("pyarrow")
    if layer.columns:
        names = [name for name in columns if name in layer.columns] + (["geometry"] if with_outline else [])
        chosen = ", ".join(f'"{name}"' for name in names)
        for batch in layer.arrow_batches(f"object_id as id, {chosen}"):
            yield {name: batch.column(name) for name in batch.schema.names}
    elif layer.record.found and not layer.has_objects:
        row: dict[str, Any] = {"id": arrow.array([1]), "area_px": arrow.array([float(layer.record.area_px)])}
        if layer.record.area_um2 is not None:
            row["area_um2"] = arrow.array([layer.record.area_um2])
        if with_outline:
            _, parts = region_parts(layer)
            row["geometry"] = arrow.array([shapely.to_wkb(shapely.multipolygons(parts))], arrow.binary())
        yield row


def _placed(arrow: Any, batch: dict[str, Any], schema: Any, constants: dict[str, Any]) -> Any:
    rows = len(batch["id"])
    arrays = []
    for field in schema:
        if field.name in batch:
            arrays.append(batch[field.name].cast(field.type))
        else:
            arrays.append(arrow.array([constants.get(field.name)] * rows, field.type))
    return arrow.Table.from_arrays(arrays, schema=schema)


def _type(arrow: Any, column: str) -> Any:
    if column.startswith("bbox_"):
        return arrow.int64()
    return arrow.bool_() if column == "touches_border" else arrow.float64()
