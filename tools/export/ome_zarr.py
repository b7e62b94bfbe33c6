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
        _write_image(content, root, writer)
    for layer in content.layers:
        pyramid = levels(_smallest_type(layer.labels))
        writer.write_multiscale_labels(
            pyramid,
            root,
            name=layer.record.mask_id,
            label_metadata=_label_metadata(layer, with_image),
            **_axes(content, ("y", "x")),
            storage_options={"chunks": (CHUNK_PX, CHUNK_PX)},
        )
        shrunk = [(2.0**number, 2.0**number) for number in range(len(pyramid))]
        _place(root[f"labels/{layer.record.mask_id}"], content, shrunk)


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


def _write_image(content: Content, root: Any, writer: Any) -> None:
    """The region's pixels at the sizes of the label levels, [3, H, W] each."""
    region = content.region
    shapes = [level.shape for level in levels(np.empty((region.height, region.width), bool))]
    _write_levels(content, root, writer, shapes)


def write_reduced_image(content: Content, root: Any, size: tuple[int, int]) -> None:
    """The same for a slide: its finest level is (width, height) pixels."""
    shapes = [level.shape for level in levels(np.empty((size[1], size[0]), bool))]
    _write_levels(content, root, _writer(), shapes)


def _write_levels(content: Content, root: Any, writer: Any, shapes: list[tuple[int, ...]]) -> None:
    region = content.region
    with content.open_image() as source:
        pyramid = [
            np.moveaxis(source.read_region(region, width=width, height=height), -1, 0)
            for height, width in shapes
        ]
    writer.write_multiscale(
        pyramid,
        root,
        name=content.image_name,
        **_axes(content, ("c", "y", "x")),
        storage_options={"chunks": (3, CHUNK_PX, CHUNK_PX)},
    )
    _place(root, content, [(region.height / height, region.width / width) for height, width in shapes])


def _smallest_type(labels: NDArray[np.int32]) -> NDArray[Any]:
    return labels.astype(np.min_scalar_type(int(labels.max(initial=1))))


def _axes(content: Content, names: tuple[str, ...]) -> dict[str, Any]:
    """Axes as the writer takes them; without a scale a pixel is 1 and has no unit."""
    if content.mpp is None:
        return {"axes": list(names)}
    return {"axes": list(names), "axes_units": {"y": "micrometer", "x": "micrometer"}}


def _place(group: Any, content: Content, shrunk_yx: list[tuple[float, float]]) -> None:
    """State where every level lies, given how often it is smaller than the first.

    A pixel covers a block of the first level, so its centre lies half a block in. The writer's own figures leave that
    half in pixels, whatever the scale.
    """
    step, corner_yx = content.mpp or 1.0, (content.region.y0, content.region.x0)
    described = group.attrs["ome"]
    scales = described["multiscales"][0]
    channels = len(scales["axes"]) - 2
    for dataset, shrunk in zip(scales["datasets"], shrunk_yx, strict=True):
        middle = [(corner + (by - 1) / 2) * step for corner, by in zip(corner_yx, shrunk, strict=True)]
        dataset["coordinateTransformations"] = [
            {"type": "scale", "scale": [1.0] * channels + [by * step for by in shrunk]},
            {"type": "translation", "translation": [0.0] * channels + middle},
        ]
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
