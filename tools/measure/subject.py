"""One mask of an ordinary result with what measures need of it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.models.masks.object_table import Table, object_table
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.measure.values import OpenImage
from tissuetalk.tools.storage.result_folder import ResultFolder


class Subject:
    """One mask with what metrics need of it, computed when first asked for."""

    def __init__(self, folder: ResultFolder, mask: Mask, mpp: float | None, open_image: OpenImage) -> None:
        self.folder, self.record, self.mpp = folder, mask, mpp
        self._open_image = open_image

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        return self.folder.mask(self.record.mask_id)

    @cached_property
    def instances(self) -> NDArray[np.int32] | None:
        return self.folder.instances(self.record.mask_id)

    @cached_property
    def table(self) -> Table:
        """Geometry of every object; empty for a region without objects."""
        objects = self.instances
        labels = np.zeros_like(self.mask, np.int32) if objects is None else objects
        return object_table(labels, self._box, mpp=self.mpp)

    @property
    def _box(self) -> Box:
        return Box.from_sequence(self.record.provenance.region)

    @cached_property
    def stained_table(self) -> Table:
        """Geometry, staining and texture of every object; for a region, the region as one object."""
        objects = self.mask.astype(np.int32) if self.instances is None else self.instances
        origin = self.record.provenance
        with self._open_image() as source:
            step = origin.model_mpp / origin.mpp
            return object_table(objects, self._box, mpp=self.mpp, source=source, step=step)

    def length(self, column: str) -> tuple[NDArray[np.float64], str]:
        """A ``_px`` column in µm where the scale is known."""
        name, unit = (f"{column[:-2]}um", "µm") if self.mpp is not None else (column, "px")
        return self.table[name], unit
