"""CSV and Parquet: one row per object, a batch at a time; a region is one row, or one per part."""

from __future__ import annotations

import json
from itertools import repeat
from pathlib import Path
from typing import Any

from tissuetalk.models.masks.object_table import column_names
from tissuetalk.models.writing import CsvWriter, library
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.stored import SegmentedRegion

_PROVENANCE = ("prompt", "words", "model", "weights_sha256", "mpp_source", "version")
_WHOLE = ("id", "bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1")


def columns(masks: SegmentedRegion) -> list[str]:
    """Names of the numbers every object here has, whether or not there is one."""
    asked = [layer for layer in masks.layers if layer.has_objects] or masks.layers
    return [name for name in column_names(masks.mpp) if all(name in layer.columns for layer in asked)]


def write_csv(masks: SegmentedRegion, out: Path) -> None:
    """All masks under one header, the mask in front of every row; ``_um`` columns only where the scale is known."""
    names = columns(masks)
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = CsvWriter(file, line_end="\r\n")
        writer.row(["mask_id", "name", *names])
        for layer in masks.layers:
            known = [name for name in names if name in layer.columns]
            for batch in layer.rows(known):
                # a region may know less of itself than objects do: its cells stay empty, the columns stay the same
                empty = [""] * len(batch["id"])
                numbers = [batch[name].tolist() if name in batch else empty for name in names]
                # strict would refuse the two that repeat without end
                mask = repeat(layer.record.mask_id), repeat(layer.name)
                writer.rows(zip(*mask, *numbers, strict=False))


def write_parquet(masks: SegmentedRegion, out: Path) -> None:
    """Outlines are WKB in full-resolution pixels, described as GeoParquet 1.1 does; no mask, no rows."""
    arrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    schema = _schema(arrow, masks)
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for layer in masks.layers:
            constants = _constants(masks, layer)
            for batch in layer.rows([name for name in schema.names if name in layer.columns]):
                count = len(batch["id"])
                arrays = [
                    arrow.array(batch[field.name], field.type)
                    if field.name in batch
                    else arrow.array([constants.get(field.name)] * count, field.type)
                    for field in schema
                ]
                writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _schema(arrow: Any, masks: SegmentedRegion) -> Any:
    words = ["result_id", "image_id", "mask_id", "name", "label", "target", "object_type"]
    fields = [(word, arrow.string()) for word in words]
    fields += [("geometry", arrow.binary())]
    for name in columns(masks):
        kind = arrow.int64() if name in _WHOLE else arrow.float64()
        fields.append((name, arrow.bool_() if name == "touches_border" else kind))
    fields += [(word, arrow.string()) for word in _PROVENANCE]
    fields += [("mpp", arrow.float64()), ("model_mpp", arrow.float64())]
    if any("block" in layer.columns for layer in masks.layers):
        fields.append(("block", arrow.string()))
    geometry = {"encoding": "WKB", "geometry_types": ["Polygon", "MultiPolygon"], "crs": None}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    told = {"geo": json.dumps(geo), "tissuetalk": json.dumps(masks.about(), ensure_ascii=False)}
    return arrow.schema(fields, metadata=told)


def _constants(masks: SegmentedRegion, layer: MaskLayer) -> dict[str, Any]:
    """What every row of one mask has in common."""
    record = layer.record
    return record.provenance.model_dump(include={*_PROVENANCE, "model_mpp"}) | {
        "result_id": masks.result.result_id,
        "image_id": masks.result.image.image_id,
        "mask_id": record.mask_id,
        "name": layer.name,
        "label": record.label,
        "target": record.target,
        "object_type": "object" if layer.has_objects else "region",
        "mpp": masks.mpp,
    }
