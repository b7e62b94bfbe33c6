"""A result as the exports see it: masks in the order they were asked for, and what is true of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.models.masks import outlines
from tissuetalk.tools.answers.explained import NOTICE
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.measure import measure
from tissuetalk.tools.measure.measure import OpenImage
from tissuetalk.tools.storage.libraries import library
from tissuetalk.tools.storage.result_folder import ResultFolder

__all__ = ["Content", "Layer", "library"]


class Layer:
    """One mask that was looked for, read when first needed."""

    def __init__(self, content: Content, record: Mask) -> None:
        self.content, self.record = content, record
        self.name = measure.name_of(record)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """[H, W] of the segmented region."""
        return self.content.folder.mask(self.record.mask_id)

    @cached_property
    def instances(self) -> NDArray[np.int32] | None:
        """[H, W], 0 background and 1..N objects; None for a region without separate objects."""
        return self.content.folder.instances(self.record.mask_id)

    @property
    def labels(self) -> NDArray[np.int32]:
        """The objects; a region counts as one object with number 1."""
        return self.mask.astype(np.int32) if self.instances is None else self.instances

    def polygons(self) -> Iterator[tuple[int, shapely.Geometry]]:
        """(object number, outline) in full-resolution pixels of the source, in ascending order."""
        return outlines.polygons(self.labels, (self.content.region.x0, self.content.region.y0))

    def table(self) -> str:
        """CSV, one row of numbers per object, in the order of ``polygons``; reads the image's pixels."""
        return measure.write_table(self.content.folder, self.record, self.content.open_image)


class Content:
    """One result. mpp: µm per full-resolution pixel, None unless the file or the caller said so."""

    def __init__(self, folder: ResultFolder, open_image: OpenImage) -> None:
        self.folder, self.open_image = folder, open_image
        self.result = folder.result()
        image = self.result.image
        x0, y0, x1, y1 = image.region
        self.region = Box(x0, y0, x1, y1)
        self.mpp = image.mpp if image.mpp_source in ("file", "given") else None
        self.layers = [Layer(self, record) for record in self.result.masks]

    @property
    def image_name(self) -> str:
        """File name of the image without its folders, which can say more than they should."""
        return Path(self.folder.request()["image"]).name

    def about(self) -> dict[str, Any]:
        """What every export says about itself."""
        image = self.result.image
        scale = (
            "unknown: lengths and areas are in pixels" if self.mpp is None else f"{self.mpp:g} µm per pixel"
        )
        return {
            "software": f"tissuetalk {version('tissuetalk')}",
            "result_id": self.result.result_id,
            "image_id": image.image_id,
            "image_size": [image.width, image.height],
            "region": self.region.as_list(),
            "unit": "pixel of the full-resolution image, x right, y down",
            "mpp": self.mpp,
            "mpp_source": image.mpp_source,
            "scale": scale,
            "notice": NOTICE,
        }
