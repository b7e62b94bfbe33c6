"""Shape and colour of every annotated target by a model that sees pictures, as the table ``studies`` of a vlsm recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from tissuetalk.models.control import Control
from tissuetalk.models.datasets.manifest import Record, read_manifest, read_rgb
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.annotations import SCORED_KINDS, read_annotations
from tissuetalk.models.metrics.tables import csv_text
from tissuetalk.models.reading import table_of
from tissuetalk.models.segmenter import RGB
from tissuetalk.models.writing import write_whole
from tissuetalk.prompts.llm.look import look_of
from tissuetalk.prompts.llm.seam import LanguageModel

SHOWN_PX: Final = 512
"""Longest side of the picture that is sent."""
OUTLINE: Final = (255, 220, 0)


def describe(
    manifest: Path, name: str, out: Path, model: LanguageModel, control: Control = Control()
) -> Path:
    """Ask about every image with a mask and write ``out`` (CSV); its other columns, and rows that have a shape, stay.

    name: of the class, as the question says it. Raises InvalidArgumentError, ModelUnavailableError and CancelledError, with the
    rows so far written.
    """
    by_image: dict[Path, list[Record]] = {}
    for record in read_manifest(manifest):
        if record.kind in SCORED_KINDS:
            by_image.setdefault(record.image, []).append(record)
    if not by_image:
        raise InvalidArgumentError(f"{manifest} lists no image with a mask; there is nothing to describe.")
    columns, known = table_of(out, "utf-8-sig") if out.is_file() else (["file"], [])
    if "file" not in columns:
        raise InvalidArgumentError(f"{out.name} has no column file; give another name.")
    rows = {Path(row["file"]).name: row for row in known}
    try:
        for number, (image, records) in enumerate(by_image.items()):
            control.check()
            row = rows.setdefault(image.name, {"file": image.name})
            if not row.get("shape"):
                row |= look_of(model, outlined(records), name, control.stop)
            control.report((number + 1) / len(by_image), image.name)
    finally:
        every = list(dict.fromkeys([*columns, "shape", "color"]))
        write_whole(
            out, csv_text([{column: row.get(column, "") for column in every} for row in rows.values()], every)
        )
    return out


def outlined(records: Sequence[Record]) -> bytes:
    """PNG of an image, of which these are the rows, with the outline of everything annotated on it."""
    image: RGB = read_rgb(records[0].image)
    mask: Mask = np.any([each.mask for record in records for each in read_annotations(record)], axis=0)
    zoom = min(1.0, SHOWN_PX / max(mask.shape))
    size = tuple(max(1, round(length * zoom)) for length in mask.shape[::-1])
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    edges, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, edges, -1, OUTLINE, 2)
    _, png = cv2.imencode(".png", picture[..., ::-1])
    return png.tobytes()
