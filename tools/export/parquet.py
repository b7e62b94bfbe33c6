"""Parquet: one row per object with outline, numbers and provenance, for DuckDB, pandas and GeoPandas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import shapely

from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.export import tables
from tissuetalk.tools.export.content import Content, Layer, library

_WHOLE = ("id", "area_px", "bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1")


def write(content: Content, out: Path) -> None:
    """Outlines are WKB in full-resolution pixels, described as GeoParquet 1.1 does; no mask, no rows."""
    arrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    columns = schema(arrow, content)
    with parquet.ParquetWriter(out, columns, compression="zstd") as writer:
        for layer in content.layers:
            writer.write_table(_rows(arrow, layer, columns))


def schema(arrow: Any, content: Content) -> Any:
    """Columns of an export, described as GeoParquet."""
    words = ["result_id", "image_id", "mask_id", "name", "label", "target", "object_type"]
    provenance = ["prompt", "words", "model", "weights_sha256", "mpp_source", "version"]
    fields = [(word, arrow.string()) for word in words]
    fields += [("geometry", arrow.binary())]
    fields += [(name, _type(arrow, name)) for name in tables.columns(content)]
    fields += [(word, arrow.string()) for word in provenance]
    fields += [("mpp", arrow.float64()), ("model_mpp", arrow.float64())]
    geometry = {"encoding": "WKB", "geometry_types": ["Polygon", "MultiPolygon"], "crs": None}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return arrow.schema(
        fields,
        metadata={"geo": json.dumps(geo), "tissuetalk": json.dumps(content.about(), ensure_ascii=False)},
    )


def _type(arrow: Any, column: str) -> Any:
    if column in _WHOLE:
        return arrow.int64()
    return arrow.bool_() if column == "touches_border" else arrow.float64()


def _rows(arrow: Any, layer: Layer, schema: Any) -> Any:
    reader = library("pyarrow.csv")
    types = {name: schema.field(name).type for name in tables.columns(layer.content)}
    numbers = reader.read_csv(
        arrow.BufferReader(layer.table().encode()),
        convert_options=reader.ConvertOptions(column_types=types),
    )
    known = constants(layer.content, layer.record, layer.name, layer.instances is not None)
    row_count = numbers.num_rows
    arrays = {
        name: arrow.array([value] * row_count, schema.field(name).type) for name, value in known.items()
    }
    arrays["geometry"] = arrow.array([shapely.to_wkb(shape) for _, shape in layer.polygons()], arrow.binary())
    arrays |= {name: numbers[name] for name in types}
    return arrow.table([arrays[name] for name in schema.names], schema=schema)


def constants(content: Content, record: Mask, name: str, objects: bool) -> dict[str, Any]:
    """What every row of one mask has in common."""
    origin = record.provenance
    return {
        "result_id": content.result.result_id,
        "image_id": content.result.image.image_id,
        "mask_id": record.mask_id,
        "name": name,
        "label": record.label,
        "target": record.target,
        "object_type": "object" if objects else "region",
        "prompt": origin.prompt,
        "words": origin.words,
        "model": origin.model,
        "weights_sha256": origin.weights_sha256,
        "mpp_source": origin.mpp_source,
        "version": origin.version,
        "mpp": content.mpp,
        "model_mpp": origin.model_mpp,
    }
