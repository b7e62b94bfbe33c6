"""A finished result in the formats other software opens."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tissuetalk.models.errors import InvalidArgumentError, WorkspaceFullError
from tissuetalk.tools.export import (
    coco,
    dicom_ann,
    dicom_seg,
    geojson,
    ome_zarr,
    parquet,
    slide_dicom,
    slide_pictures,
    slide_rows,
    tables,
)
from tissuetalk.tools.export.content import Content
from tissuetalk.tools.export.slide_content import SlideContent
from tissuetalk.tools.masks.pyramid import is_slide
from tissuetalk.tools.masks.slide import StoredSlide
from tissuetalk.tools.measure.measure import OpenImage
from tissuetalk.tools.storage.result_folder import ResultFolder


@dataclass(frozen=True)
class Format:
    """One way to write a result. file_name: what ``save`` calls it inside a folder."""

    summary: str
    file_name: str
    write: Callable[[Content, Path], None]
    write_slide: Callable[[SlideContent, Path], None]


FORMATS: dict[str, Format] = {
    "geojson": Format(
        "outlines as QuPath reads them; .gz packs them",
        "objects.geojson",
        geojson.write,
        slide_rows.write_geojson,
    ),
    "csv": Format("one row of numbers per object", "objects.csv", tables.write, slide_rows.write_csv),
    "parquet": Format(
        "the same rows with outlines and provenance",
        "objects.parquet",
        parquet.write,
        slide_rows.write_parquet,
    ),
    "ome-zarr": Format(
        "label pyramids in micrometres", "result.ome.zarr", ome_zarr.write, slide_pictures.write_ome_zarr
    ),
    "dicom-seg": Format(
        "one binary segment per target", "segmentation.dcm", dicom_seg.write, slide_dicom.write_seg
    ),
    "dicom-ann": Format("one polygon per object", "annotations.dcm", dicom_ann.write, slide_dicom.write_ann),
    "coco": Format("one run-length mask per object", "coco.json", coco.write, slide_pictures.write_coco),
}


def export(folder: ResultFolder, format: str, out: Path, open_image: OpenImage) -> Path:
    """Write a result to a new file (a new folder for ome-zarr): whole, or not at all.

    Raises InvalidArgumentError for an unknown format, for a place that is taken or cannot be written, and for a result
    the format cannot hold; ModelUnavailableError when the format's library is missing; WorkspaceFullError on a full
    disk; and what ``open_image`` raises, where the format needs pixels.
    """
    if format not in FORMATS:
        raise InvalidArgumentError(f"unknown format {format[:40]!r}; choose from: {', '.join(FORMATS)}.")
    content = Content(folder, open_image)
    with _placed(out) as part:
        if is_slide(folder.path):
            with StoredSlide(folder, open_image) as slide:
                FORMATS[format].write_slide(SlideContent(content, slide), part)
        else:
            FORMATS[format].write(content, part)
    return out


def slide_resource(folder: ResultFolder, mask_id: str, kind: str, open_image: OpenImage) -> bytes:
    """The outlines (``objects``) or the table of one mask of a slide, when they are small enough to be sent.

    Raises ImageTooLargeError, which says how to save them instead.
    """
    with StoredSlide(folder, open_image, [mask_id]) as slide:
        content = SlideContent(Content(folder, open_image), slide)
        return slide_rows.outlines_of(content) if kind == "objects" else slide_rows.table_of(content)


def write_slide_outlines(folder: ResultFolder, out: Path) -> None:
    """All outlines of a slide as one GeoJSON file; needs no pixels."""
    with StoredSlide(folder, _no_image) as slide:
        slide_rows.write_geojson(SlideContent(Content(folder, _no_image), slide), out)


def _no_image() -> NoReturn:
    raise AssertionError("outlines are written without pixels")


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
