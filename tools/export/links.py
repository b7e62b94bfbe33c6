"""The files that a result links to: outlines and tables of single masks, made when they are asked for."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from tissuetalk.models.errors import ImageTooLargeError
from tissuetalk.models.writing import CsvWriter
from tissuetalk.tools.export import geojson, tables
from tissuetalk.tools.masks.layer import OpenImage, as_lines, layers_of
from tissuetalk.tools.masks.stored import open_masks
from tissuetalk.tools.storage.result_folder import MOST_OBJECTS, ResultFolder

MOST_RESOURCE_BYTES = 64_000_000
"""Of outlines or a table sent as one text; more is for a file."""


def resource(folder: ResultFolder, mask_id: str, kind: str, open_image: OpenImage) -> bytes:
    """The outlines (``objects``) as GeoJSON or the table of one mask as CSV, read from its file where there is one.

    Raises ImageTooLargeError, which says how to save them instead, where they are too large to be sent.
    """
    masks = open_masks(folder, open_image, [mask_id])
    (layer,) = masks.layers
    links = layer.record.resources
    path = folder.path / (links.geojson if kind == "objects" else links.table)
    if path.is_file():
        return path.read_bytes()
    # written as it would be to a file, and stopped when it gets too long
    sent = _Limited()
    text = io.TextIOWrapper(sent, "utf-8", newline="", write_through=True)
    if kind == "objects":
        geojson.write_features(masks, text.write)
    else:
        names, writer = tables.columns(masks), CsvWriter(text)
        writer.row(names)
        for rows in layer.rows(names):
            writer.rows(as_lines(rows))
    return sent.getvalue()


def write_outlines(folder: ResultFolder) -> None:
    """Beside a result that leaves the workspace: outlines of every mask where its link points to, unless it is huge."""
    for layer in layers_of(folder, folder.result().masks):
        if layer.count() <= MOST_OBJECTS:
            geojson.write_layers(folder.path / layer.record.resources.geojson, [layer])


def write_all_outlines(folder: ResultFolder, out: Path) -> None:
    """Of every mask in one file; needs no image."""
    geojson.write_layers(out, layers_of(folder, folder.result().masks))


class _Limited(io.BytesIO):
    """Bytes for a resource."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > MOST_RESOURCE_BYTES:
            raise ImageTooLargeError(
                f"this mask has more than {MOST_RESOURCE_BYTES // 10**6} MB of objects, too much for a resource; save them: "
                "library(action='save', format='geojson', 'csv' or 'parquet'), or `tissuetalk export`."
            )
        return super().write(data)
