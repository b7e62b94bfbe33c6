"""A slide result made of an ordinary one, so that both hold the same objects and every measure can be compared."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import shapely
import zarr
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.images import Box
from tissuetalk.models.masks.object_table import geometry, in_micrometres, staining
from tissuetalk.models.masks.outlines import polygons
from tissuetalk.models.segmenter import RGB
from tissuetalk.tools.storage.result_folder import ResultFolder

STEP = 2
"""Full-resolution pixels per label pixel."""


def coarse(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Labels as a model at half the scale would give them, in full-resolution pixels."""
    return np.repeat(np.repeat(labels[::STEP, ::STEP], STEP, axis=0), STEP, axis=1)[
        : labels.shape[0], : labels.shape[1]
    ]


def as_slide(
    folder: ResultFolder,
    tissue: NDArray[np.bool_],
    rgb: RGB | None = None,
    *,
    parts: bool = False,
    step: int = STEP,
) -> ResultFolder:
    """Adds the files of a slide to a result whose labels are ``coarse``. tissue, rgb: of the region.

    parts: regions have an object file too, a row for each connected part.
    """
    result, slide = folder.result(), folder.path / "slide"
    region, mpp = result.image.region, result.image.mpp if result.image.mpp_source == "given" else None
    (slide / "objects").mkdir(parents=True)
    (slide / "slide.json").write_text(json.dumps({"version": 1, "tissue_rule": "drawn by the test"}))
    cv2.imwrite(str(slide / "tissue.png"), tissue[::8, ::8].astype(np.uint8) * 255)
    for mask in result.masks:
        objects = folder.instances(mask.mask_id)
        labels = folder.mask(mask.mask_id).astype(np.int32) if objects is None else objects
        _write_pyramid(
            slide / "labels" / f"{mask.mask_id}.ome.zarr",
            labels[::step, ::step],
            objects is None,
            region,
            mpp,
            step,
        )
        if objects is None and parts:
            objects = ndimage.label(labels, np.ones((3, 3)))[0].astype(np.int32)
        if objects is not None:
            _write_rows(slide / "objects" / f"{mask.mask_id}.parquet", objects, rgb, region, mpp)
    return folder


def _write_pyramid(
    path: Path, labels: NDArray[np.int32], is_region: bool, region: list[int], mpp: float | None, step: int
) -> None:
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    unit, datasets, level = mpp or 1.0, [], labels.astype(np.uint8 if is_region else np.int32)
    while True:
        size = step * 2 ** len(datasets)
        group.create_array(str(len(datasets)), data=level, chunks=(64, 64), dimension_names=("y", "x"))
        middle = [(corner + (size - 1) / 2) * unit for corner in (region[1], region[0])]
        datasets.append(
            {
                "path": str(len(datasets)),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [size * unit] * 2},
                    {"type": "translation", "translation": middle},
                ],
            }
        )
        if max(level.shape) <= 64:
            break
        level = level[::2, ::2]
    axes = [{"name": name, "type": "space", **({"unit": "micrometer"} if mpp else {})} for name in "yx"]
    scales = {"name": path.name.split(".")[0], "axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [scales], "image-label": {"version": "0.5"}}


def _write_rows(
    path: Path, labels: NDArray[np.int32], rgb: RGB | None, region: list[int], mpp: float | None
) -> None:
    pixels = np.zeros((*labels.shape, 3), np.uint8) if rgb is None else rgb
    table = geometry(labels, Box(*region))
    table |= staining(labels, pixels, table["id"])
    if mpp is not None:
        table |= in_micrometres(table, mpp)
    ids = table.pop("id")
    table["area_px"] = table["area_px"].astype(float)
    dropped = {name: column for name, column in table.items() if not name.startswith("nearest_neighbour")}
    shapes = [shapely.to_wkb(shape) for _, shape in polygons(labels, (region[0], region[1]))]
    columns = {
        "object_id": ids.astype(np.int64),
        "block": ["0.5:0_0"] * len(ids),
        "geometry": shapes,
        **dropped,
    }
    pyarrow.parquet.write_table(
        pyarrow.table(
            {
                **columns,
                "block": pyarrow.array(columns["block"], pyarrow.string()),
                "geometry": pyarrow.array(shapes, pyarrow.binary()),
            }
        ),
        path,
        row_group_size=1000,
    )
