"""The table of formats, and what holds for all of them: a file is written whole or not at all.

Cheap to import, because help texts and completions are made from the table; a writer is imported when it writes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.writing import place_errors, whole_file, whole_folder

if TYPE_CHECKING:
    from tissuetalk.tools.masks.layer import OpenImage
    from tissuetalk.tools.masks.stored import SegmentedRegion
    from tissuetalk.tools.storage.result_folder import ResultFolder


@dataclass(frozen=True)
class Format:
    """One way to write a result. writer: module:function of this folder. file_name: what ``save`` calls it inside a folder.

    is_folder: of many files.
    """

    summary: str
    file_name: str
    writer: str
    is_folder: bool = False

    @property
    def write(self) -> Callable[[SegmentedRegion, Path], None]:
        module, _, function = self.writer.partition(":")
        found = import_module(f"{__package__}.{module}")
        return cast("Callable[[SegmentedRegion, Path], None]", getattr(found, function))


FORMATS = {
    "geojson": Format("outlines as QuPath reads them; .gz packs them", "objects.geojson", "geojson:write"),
    "csv": Format("one row of numbers per object", "objects.csv", "tables:write_csv"),
    "parquet": Format(
        "the same rows with outlines and provenance", "objects.parquet", "tables:write_parquet"
    ),
    "ome-zarr": Format("label pyramids in micrometres", "result.ome.zarr", "ome_zarr:write", is_folder=True),
    "dicom-seg": Format("one binary segment per target", "segmentation.dcm", "dicom_seg:write"),
    "dicom-ann": Format("one polygon per object", "annotations.dcm", "dicom_ann:write"),
    "training": Format(
        "picture, masks and words to evaluate and train on", "training", "training:write", is_folder=True
    ),
    "coco": Format("one run-length mask per object", "coco.json", "coco:write"),
    "dicom-sr": Format("the measures as a structured report", "measures.dcm", "dicom_sr:write"),
}
"""A new format is a file and an entry here."""


def export(
    folder: ResultFolder, format: str, out: Path, open_image: OpenImage, *, keep_identifiers: bool = False
) -> Path:
    """Write a result to a new file (a new folder for ome-zarr): whole, or not at all.

    keep_identifiers: let a DICOM object say whose slide it is about, and COCO what the file is called.

    Raises InvalidArgumentError for an unknown format, for a place that is taken or cannot be written, and for a result
    the format cannot hold; ModelUnavailableError when the format's library is missing; WorkspaceFullError on a full
    disk; and what ``open_image`` raises, where the format needs pixels.
    """
    if format not in FORMATS:
        raise InvalidArgumentError(f"unknown format {format[:40]!r}; choose from: {', '.join(FORMATS)}.")
    from tissuetalk.tools.masks.stored import open_masks

    with place_errors(out):
        if os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        # the libraries for folders open many files by path: they get a folder that nobody else can reach
        place = whole_folder if FORMATS[format].is_folder else whole_file
        with place(out) as part:
            FORMATS[format].write(open_masks(folder, open_image, keep_identifiers=keep_identifiers), part)
    return out
