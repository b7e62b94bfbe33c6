"""The table of formats, and what holds for all of them: a file is written whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError, WorkspaceFullError
from tissuetalk.tools.export import coco, dicom_ann, dicom_seg, geojson, ome_zarr, tables
from tissuetalk.tools.masks.layer import OpenImage, as_lines
from tissuetalk.tools.masks.stored import SegmentedRegion, layers_of, open_masks
from tissuetalk.tools.storage.result_folder import MOST_OBJECTS, ResultFolder

MOST_RESOURCE_BYTES = 64_000_000
"""Of outlines or a table sent as one text; more is for a file."""


@dataclass(frozen=True)
class Format:
    """One way to write a result. file_name: what ``save`` calls it inside a folder."""

    summary: str
    file_name: str
    write: Callable[[SegmentedRegion, Path], None]


FORMATS: dict[str, Format] = {
    "geojson": Format("outlines as QuPath reads them; .gz packs them", "objects.geojson", geojson.write),
    "csv": Format("one row of numbers per object", "objects.csv", tables.write_csv_file),
    "parquet": Format("the same rows with outlines and provenance", "objects.parquet", tables.write_parquet),
    "ome-zarr": Format("label pyramids in micrometres", "result.ome.zarr", ome_zarr.write),
    "dicom-seg": Format("one binary segment per target", "segmentation.dcm", dicom_seg.write),
    "dicom-ann": Format("one polygon per object", "annotations.dcm", dicom_ann.write),
    "coco": Format("one run-length mask per object", "coco.json", coco.write),
}


def export(folder: ResultFolder, format: str, out: Path, open_image: OpenImage) -> Path:
    """Write a result to a new file (a new folder for ome-zarr): whole, or not at all.

    Raises InvalidArgumentError for an unknown format, for a place that is taken or cannot be written, and for a result
    the format cannot hold; ModelUnavailableError when the format's library is missing; WorkspaceFullError on a full
    disk; and what ``open_image`` raises, where the format needs pixels.
    """
    if format not in FORMATS:
        raise InvalidArgumentError(f"unknown format {format[:40]!r}; choose from: {', '.join(FORMATS)}.")
    with _placed(out) as part:
        FORMATS[format].write(open_masks(folder, open_image), part)
    return out


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
    sent = _Limited()
    text = io.TextIOWrapper(sent, "utf-8", newline="", write_through=True)
    if kind == "objects":
        geojson.write_features(masks, text.write)
    else:
        names, writer = tables.columns(masks), csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        for rows in layer.rows(names):
            writer.writerows(as_lines(rows))
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


@contextmanager
def _placed(out: Path) -> Iterator[Path]:
    """A path of the same name beside ``out`` to write to; it takes its place when the block ends well."""
    try:
        if out.exists() or out.is_symlink():
            raise InvalidArgumentError(f"{out} exists; choose a new name.")
        out.parent.mkdir(parents=True, exist_ok=True)
        workplace = tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-")
    except OSError as error:
        raise _refused(out, error) from error
    with workplace as name:
        part = Path(name) / out.name
        try:
            yield part
            part.rename(out)
        except OSError as error:
            raise _refused(out, error) from error


def _refused(out: Path, error: OSError) -> InvalidArgumentError | WorkspaceFullError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkspaceFullError(f"the disk of {out.parent} is full; make room or choose another disk.")
    reason = error.strerror or str(error)
    return InvalidArgumentError(f"cannot write {out} ({reason}); choose a name in a folder you may write to.")
