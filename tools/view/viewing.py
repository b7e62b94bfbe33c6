"""A viewer's questions to a session: what there is to see, and the tiles of it.

A tile never changes: an image's id is its content's, and a result is written once. So answers may be kept for ever by
whoever asked, and here only what is long in opening is kept, for a while.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tissuetalk.models.errors import (
    BadRequestError,
    InvalidArgumentError,
    UnknownMaskError,
    UnknownResultError,
    shown,
)
from tissuetalk.models.images import ImageSource
from tissuetalk.tools.answers.results import SegmentResult
from tissuetalk.tools.masks.layer import MaskLayer, OpenImage, layers_of
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.result_folder import ResultFolder
from tissuetalk.tools.view import tiles
from tissuetalk.tools.view.kept import Kept, Made

SOURCES, SOURCES_IDLE_S = 2, 30.0
"""Open images take memory that others may need for decoding."""
RESULTS, RESULTS_IDLE_S = 4, 120.0
MADE_BYTES = 48 * 2**20
MOST_POINTS = 5_000
"""Objects that are given for a plot; of more, every n-th."""


@dataclass(frozen=True)
class ShownTile:
    """What the viewer is given. media: its type; content None where there is nothing to draw."""

    content: bytes | None
    media: str


@dataclass(frozen=True)
class OpenResult:
    """A result whose masks are read again and again."""

    folder: ResultFolder
    result: SegmentResult
    open_image: OpenImage

    @cached_property
    def layers(self) -> dict[str, MaskLayer]:
        found = layers_of(self.folder, self.result.masks, self.open_image)
        return {layer.record.mask_id: layer for layer in found}

    @property
    def size(self) -> tuple[int, int]:
        return self.result.image.width, self.result.image.height


class Viewing:
    """Of one session; any number of threads may ask."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._sources: Kept[ImageSource] = Kept(SOURCES, SOURCES_IDLE_S, ImageSource.close)
        self._results: Kept[OpenResult] = Kept(RESULTS, RESULTS_IDLE_S, lambda result: None)
        self._made = Made(MADE_BYTES)

    def close(self) -> None:
        self._sources.close()
        self._results.close()

    def about_image(self, image: str) -> dict[str, Any]:
        """Size and scale of an image by path or image:// URI."""
        with self.session.open(image) as source:
            source.verify_unchanged()
            return {
                "image_id": source.image_id,
                "width": source.width,
                "height": source.height,
                "mpp": source.mpp,
                "mpp_source": "unknown" if source.mpp is None else "file",
                "tile_px": tiles.TILE_PX,
                "levels": tiles.levels_of(source.width, source.height),
            }

    def about_result(self, result_id: str) -> dict[str, Any]:
        """The stored answer, and of each mask up to which level its objects have outlines.

        The image is opened on the way, so that its tiles can be asked for by its id; ``image_problem`` says why it cannot be.
        """
        with self._result(result_id) as opened:
            size, wrong = opened.size, None
            try:
                with self._sources.held(opened.result.image.image_id, opened.open_image) as source:
                    source.verify_unchanged()
            except BadRequestError as error:
                wrong = str(error)
            return {
                "image_problem": wrong,
                "result": opened.result.model_dump(mode="json"),
                "tile_px": tiles.TILE_PX,
                "levels": tiles.levels_of(*size),
                "border_px": tiles.BORDER_PX,
                "outlines_to_level": {
                    name: tiles.last_outline_level(layer) for name, layer in opened.layers.items()
                },
            }

    def image_tile(self, image_id: str, z: int, x: int, y: int) -> ShownTile:
        """Raises UnknownImageError, ImageChangedError, InvalidArgumentError for a tile that does not exist."""
        with self._sources.held(image_id, lambda: self.session.open(f"image://{image_id}")) as source:
            key = (image_id, z, x, y)
            return ShownTile(self._made.get(key, lambda: tiles.image_tile(source, z, x, y)), "image/jpeg")

    def cover_tile(self, result_id: str, mask_id: str, z: int, x: int, y: int) -> ShownTile:
        """Which share of each pixel a mask covers. Raises UnknownResultError, UnknownMaskError, InvalidArgumentError."""
        with self._layer(result_id, mask_id) as (opened, layer):
            key = (result_id, mask_id, "cover", z, x, y)
            return ShownTile(
                self._made.get(key, lambda: tiles.cover_tile(layer, opened.size, z, x, y)), "image/png"
            )

    def object_tile(self, result_id: str, mask_id: str, z: int, x: int, y: int) -> ShownTile:
        """Outlines of objects. Raises UnknownResultError, UnknownMaskError, InvalidArgumentError."""
        with self._layer(result_id, mask_id) as (opened, layer):
            key = (result_id, mask_id, "objects", z, x, y)
            made = self._made.get(key, lambda: tiles.object_tile(layer, opened.size, z, x, y))
            return ShownTile(made, "application/octet-stream")

    def objects(self, result_id: str, mask_id: str, columns: Sequence[str] = ()) -> dict[str, Any]:
        """Columns of the object table for a plot, of at most ``MOST_POINTS`` objects, and the names of all columns."""
        with self._layer(result_id, mask_id) as (_, layer):
            with_numbers = [name for name in layer.columns if name not in ("geometry", "block")]
            if unknown := [name for name in columns if name not in with_numbers]:
                raise InvalidArgumentError(
                    f"there is no column {shown(unknown[0])}; there are: {', '.join(with_numbers)}."
                )
            every = max(1, -(-(layer.record.count or 1) // MOST_POINTS))
            wanted = list(dict.fromkeys(["id", "centroid_x", "centroid_y", *columns]))
            batches = list(layer.rows(wanted)) if layer.has_objects else []
            found: dict[str, Any] = {}
            for name in wanted:
                column = np.concatenate([np.zeros(0), *(batch[name] for batch in batches)])[::every]
                found[name] = [round(value, 4) if np.isfinite(value) else None for value in column.tolist()]
            return {"columns": with_numbers, "every": every, "rows": found}

    def object_row(
        self, result_id: str, mask_id: str, number: int, near: tuple[float, float]
    ) -> dict[str, Any]:
        """All numbers of one object. near: its centroid or a point in it, so that a slide's table is read in part."""
        # a table that is made now is kept with the result
        with self.session.reading(result_id), self._layer(result_id, mask_id) as (_, layer):
            names = [name for name in layer.columns if name not in ("geometry", "block")]
            for reach in (64.0, 1024.0, 1e9):
                x, y = near
                for batch in layer.rows(names, (x - reach, y - reach, x + reach, y + reach)):
                    (at,) = np.nonzero(batch["id"] == number)
                    if len(at):
                        row = {name: batch[name][at[0]].item() for name in names}
                        return {name: _plain(value) for name, value in row.items()}
        raise InvalidArgumentError(f"mask {shown(mask_id)} has no object {number}.")

    @contextmanager
    def _result(self, result_id: str) -> Iterator[OpenResult]:
        def opened() -> OpenResult:
            with self.session.reading(result_id) as stored:
                return OpenResult(stored.folder, stored.folder.result(), stored.open_image)

        with self._results.held(result_id, opened) as found:
            if found.folder.path.is_dir():
                yield found
                return
        self._results.forget(result_id)
        raise UnknownResultError(
            f"there is no result {shown(result_id)} any more; it was deleted, or removed to make room."
        )

    @contextmanager
    def _layer(self, result_id: str, mask_id: str) -> Iterator[tuple[OpenResult, MaskLayer]]:
        with self._result(result_id) as opened:
            if mask_id not in opened.layers:
                raise UnknownMaskError(f"this result has no mask {shown(mask_id)}.")
            yield opened, opened.layers[mask_id]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
