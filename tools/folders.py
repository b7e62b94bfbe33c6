"""Results in folders the user chose: measure and export without a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tissuetalk.models.errors import ImageChangedError, InvalidArgumentError, UnknownImageError
from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.tools import measure
from tissuetalk.tools.result_folder import ResultFolder
from tissuetalk.tools.results import MeasureResult


def measure_path(path: Path, metrics: Sequence[str] | None) -> MeasureResult:
    """Numbers for a folder written by ``tissuetalk segment``. Raises UnknownResultError and measure's errors."""
    folder = ResultFolder.existing(path)
    return measure.measure_folder(
        folder, metrics=metrics, mask_ids=None, open_image=lambda: _image_of(folder)
    )


def _image_of(folder: ResultFolder) -> ImageSource:
    """The image the result was made from, wherever the request said it lies; its content is checked."""
    path = Path(folder.request()["image"])
    if not path.is_file():
        raise UnknownImageError(f"the image {path} is gone; put it back to measure staining or texture.")
    source = open_image(path, name=path.name)
    if source.image_id != folder.result().image.image_id:
        source.close()
        raise ImageChangedError(f"{path} has changed since it was segmented; segment it again.")
    return source


def export_path(path: Path, format: str, out: Path) -> None:
    """Write the result in another format. Raises InvalidArgumentError for an unknown one."""
    folder = ResultFolder.existing(path)
    if out.exists():
        raise InvalidArgumentError(f"{out} exists; choose a new file.")
    if format == "geojson":
        out.write_text(folder.all_geojson(), "utf-8")
    elif format == "csv":
        out.write_text(_all_tables(folder), "utf-8")
    else:
        raise InvalidArgumentError(f"cannot export {format!r} yet; choose geojson or csv.")


def _all_tables(folder: ResultFolder) -> str:
    """The tables of all masks under one header, with the mask in front."""
    lines: list[str] = []
    for mask in folder.result().masks:
        header, *rows = measure.write_table(folder, mask, lambda: _image_of(folder)).splitlines()
        if not lines:
            lines.append(f"mask_id,name,{header}")
        name = measure.name_of(mask).replace('"', "'")
        lines += [f'{mask.mask_id},"{name}",{row}' for row in rows]
    return "\n".join(lines) + "\n"
