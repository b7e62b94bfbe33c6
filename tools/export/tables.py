"""CSV: the tables of all masks under one header, with the mask in front of every row."""

from __future__ import annotations

import csv
from pathlib import Path

from tissuetalk.models.masks.object_table import column_names
from tissuetalk.tools.export.content import Content


def write(content: Content, out: Path) -> None:
    """Columns as ``RULES`` of the object table says; ``_um`` columns only where the scale is known."""
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["mask_id", "name", *columns(content)])
        for layer in content.layers:
            _, *rows = csv.reader(layer.table().splitlines())
            writer.writerows([layer.record.mask_id, layer.name, *row] for row in rows)


def columns(content: Content) -> list[str]:
    """Names of the numbers every object has, whether or not there is one."""
    return column_names(content.mpp)
