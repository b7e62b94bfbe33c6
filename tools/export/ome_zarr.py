"""OME-Zarr (NGFF 0.5): a label pyramid per mask, over the pyramid of the segmented region."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tissuetalk.tools.export.content import Content, Layer, library

SMALLEST_LEVEL_PX = 256
CHUNK_PX = 512
MOST_IMAGE_PX = 2**26
"""Larger regions are written without their pixels: the labels say which image they belong to."""


def write(content: Content, out: Path) -> None:
    """A folder that napari and other NGFF readers open: the region, and ``labels/<mask_id>`` over it.

    Pixel values of labels are object numbers. Scales are in micrometres, or in pixels where the scale is unknown;
    the region's corner is each level's translation.
    """
    zarr, writer = library("zarr"), _writer()
    root = zarr.open_group(str(out), mode="w")
    with_image = content.region.width * content.region.height <= MOST_IMAGE_PX
    root.attrs["tissuetalk"] = {**content.about(), "image_included": with_image}
    if with_image:
        writer.write_multiscale(
            _image_levels(content),
            root,
            name=content.image_name,
            **_space(content, ("c", "y", "x")),
            storage_options={"chunks": (3, CHUNK_PX, CHUNK_PX)},
        )
        _move(root, content, axes=3)
    for layer in content.layers:
        writer.write_multiscale_labels(
            levels(_smallest_type(layer.labels)),
            root,
            name=layer.record.mask_id,
            label_metadata=_label_metadata(layer, with_image),
            **_space(content, ("y", "x")),
            storage_options={"chunks": (CHUNK_PX, CHUNK_PX)},
        )
        _move(root[f"labels/{layer.record.mask_id}"], content, axes=2)


def levels(labels: NDArray[Any]) -> list[NDArray[Any]]:
    """Every second pixel of the level before, so that no level invents an object number."""
    found = [labels]
    while max(found[-1].shape) > SMALLEST_LEVEL_PX:
        found.append(found[-1][::2, ::2])
    return found


def _writer() -> Any:
    with warnings.catch_warnings():
        # ome-zarr builds a default argument from its own deprecated class when it is imported
        warnings.simplefilter("ignore", DeprecationWarning)
        return library("ome_zarr.writer")


def _image_levels(content: Content) -> list[NDArray[np.uint8]]:
    """[3, H, W] of the region at the sizes of the label levels."""
    shapes = [level.shape for level in levels(np.empty((content.region.height, content.region.width), bool))]
    with content.open_image() as source:
        return [
            np.moveaxis(source.read_region(content.region, width=width, height=height), -1, 0)
            for height, width in shapes
        ]


def _smallest_type(labels: NDArray[np.int32]) -> NDArray[Any]:
    return labels.astype(np.min_scalar_type(int(labels.max(initial=1))))


def _space(content: Content, axes: tuple[str, ...]) -> dict[str, Any]:
    """Axes and pixel size as the writer takes them; without a scale a pixel is 1 and has no unit."""
    space: dict[str, Any] = {"axes": list(axes)}
    if content.mpp is not None:
        space["scale"] = {"y": content.mpp, "x": content.mpp}
        space["axes_units"] = {"y": "micrometer", "x": "micrometer"}
    return space


def _move(group: Any, content: Content, axes: int) -> None:
    """Put the region where it lies in the image."""
    step = content.mpp or 1.0
    corner = [0.0] * (axes - 2) + [content.region.y0 * step, content.region.x0 * step]
    described = group.attrs["ome"]
    for dataset in described["multiscales"][0]["datasets"]:
        dataset["coordinateTransformations"].append({"type": "translation", "translation": corner})
    group.attrs["ome"] = described


def _label_metadata(layer: Layer, with_image: bool) -> dict[str, Any]:
    areas_px = np.bincount(layer.labels.ravel())
    numbers = [int(number) for number in np.flatnonzero(areas_px) if number]
    known: dict[str, Any] = {
        "properties": [
            {"label-value": number, "name": layer.name, "area_px": int(areas_px[number])}
            for number in numbers
        ]
    }
    if layer.instances is None:
        rgb = [int(layer.record.colour[at : at + 2], 16) for at in (1, 3, 5)]
        known["colors"] = [{"label-value": 1, "rgba": [*rgb, 255]}]
    if with_image:
        known["source"] = {"image": "../../"}
    return known
