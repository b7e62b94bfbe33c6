"""GeoJSON as QuPath reads it: one feature per object, or per connected part of a region, a line each."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import shapely

from tissuetalk.models.writing import whole_file
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.stored import SegmentedRegion

MANY = 200
"""From this many objects on QuPath is better served with detections than with annotations."""


def write(masks: SegmentedRegion, out: Path) -> None:
    """Plain, or packed when the name ends in ``.gz``. What holds for all of it stands beside the features."""
    with out.open("wb") as file:
        # while it is written the file's name goes on behind its own ending
        if ".gz" not in out.suffixes[-3:]:
            write_features(masks, lambda text: file.write(text.encode()))
            return
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            write_features(masks, lambda text: packed.write(text.encode()))


def write_features(masks: SegmentedRegion, write: Callable[[str], object]) -> None:
    """A whole FeatureCollection in small pieces of text."""
    _write_collection(write, f'"tissuetalk": {json.dumps(masks.about())}, ', masks.layers)


def write_layers(out: Path, layers: Iterable[MaskLayer]) -> None:
    """Outlines alone, which need nothing but the masks; the whole file or none."""
    with whole_file(out) as part, part.open("w", encoding="utf-8") as file:
        _write_collection(file.write, "", layers)


def _write_collection(write: Callable[[str], object], head: str, layers: Iterable[MaskLayer]) -> None:
    write(f'{{"type": "FeatureCollection", {head}"features": [')
    between = "\n"
    for layer in layers:
        for text in features(layer):
            write(between + text)
            between = ",\n"
    write("\n]}")


def features(layer: MaskLayer) -> Iterator[str]:
    """One JSON text per feature, in full-resolution pixels of the source.

    A polygon runs along pixel edges: drawn again, it gives the same pixels.
    """
    record = layer.record
    name = record.label or layer.name
    kind = "detection" if layer.count() >= MANY else "annotation"
    classified = {"name": name, "color": drawing.rgb(record.colour)}
    shared = json.dumps({"objectType": kind, "classification": classified})[:-1]
    for numbers, shapes in layer.outlines():
        for number, geometry in zip(numbers.tolist(), shapely.to_geojson(shapes).tolist(), strict=True):
            own = json.dumps({"name": f"{name} {number}", "mask_id": record.mask_id, "object": number})
            yield f'{{"type": "Feature", "geometry": {geometry}, "properties": {shared}, {own[1:]}}}'
