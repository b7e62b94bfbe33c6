"""A slide result on disk, read in pieces: label pyramids through zarr, objects through DuckDB.

Nothing here grows with the slide: DuckDB has a memory limit and spills to disk, rows come in batches, and labels are read
in windows. Layout: ``slide/slide.json``, ``slide/tissue.png``, ``slide/labels/<mask_id>.ome.zarr`` and
``slide/objects/<mask_id>.parquet``, next to the files of an ordinary result.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import BadRequestError, UnknownResultError
from tissuetalk.models.images import Box
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.masks.layer import Points, Raster
from tissuetalk.tools.masks.pyramid import Pyramid, missing
from tissuetalk.tools.measure.values import OpenImage, name_of
from tissuetalk.tools.storage.libraries import library
from tissuetalk.tools.storage.result_folder import ResultFolder

MEMORY_LIMIT = "512MB"
ROWS_PER_BATCH = 20_000

Batch = dict[str, NDArray[Any]]
"""Columns of equal length."""


class StoredSlide:
    """One slide result. Use as a context manager: it may hold a database open."""

    def __init__(self, folder: ResultFolder, open_image: OpenImage, mask_ids: Sequence[str] = ()) -> None:
        self.folder, self.open_image = folder, open_image
        self.result = folder.result()
        image = self.result.image
        self.region = Box.from_sequence(image.region)
        self.mpp = image.mpp if image.mpp_source in ("file", "given") else None
        self.layers = [SlideLayer(self, record) for record in folder.chosen(list(mask_ids))]

    @cached_property
    def about(self) -> dict[str, Any]:
        """slide.json."""
        try:
            content: dict[str, Any] = json.loads(
                (self.folder.path / "slide" / "slide.json").read_text("utf-8")
            )
        except (OSError, ValueError) as error:
            raise _damaged(self.folder) from error
        return content

    @cached_property
    def tissue(self) -> Raster:
        picture = cv2.imread(str(self.folder.path / "slide" / "tissue.png"), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise _damaged(self.folder)
        return Raster.over(picture > 0, self.region)

    @property
    def tissue_rule(self) -> str:
        return str(self.about.get("tissue_rule") or "the tissue mask of the run, slide/tissue.png")

    @cached_property
    def database(self) -> Any:
        """DuckDB in memory, limited; it never installs anything."""
        return library("duckdb").connect(
            ":memory:",
            config={
                "memory_limit": MEMORY_LIMIT,
                "temp_directory": str(Path(tempfile.gettempdir()) / f"tissuetalk-{uuid.uuid4().hex}"),
                "threads": 1,
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            },
        )

    def background(self, box: Box, width: int, height: int) -> NDArray[np.uint8]:
        """The slide's pixels; where the slide is gone or changed, the tissue mask in grey."""
        try:
            with self.open_image() as source:
                return source.read_region(box, width=width, height=height)
        except BadRequestError:
            middles_x = box.x0 + (np.arange(width) + 0.5) * box.width / width
            middles_y = box.y0 + (np.arange(height) + 0.5) * box.height / height
            grid = np.stack(np.meshgrid(middles_x, middles_y), axis=-1).reshape(-1, 2)
            grey = np.where(self.tissue.at(grid), 215, 255).astype(np.uint8).reshape(height, width, 1)
            return np.repeat(grey, 3, axis=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "database" in self.__dict__:
            self.database.close()


class SlideLayer:
    """One mask of a slide result."""

    def __init__(self, slide: StoredSlide, record: Mask) -> None:
        self.slide, self.record = slide, record
        self.name = name_of(record)
        self.has_objects = record.resources.instances is not None

    @property
    def parquet(self) -> Path:
        return self.slide.folder.path / "slide" / "objects" / f"{self.record.mask_id}.parquet"

    @cached_property
    def pyramid(self) -> Pyramid:
        return Pyramid.of(self.slide.folder.path, self.record)

    def rasters(self) -> Iterator[Raster]:
        return self.pyramid.rasters()

    def overview(self, most_px: int) -> Raster:
        return self.pyramid.overview(most_px)

    @cached_property
    def columns(self) -> list[str]:
        """Names in the object file; empty without one."""
        if not self.parquet.is_file():
            if self.has_objects:
                raise missing(self.record.mask_id)
            return []
        described = self.slide.database.execute(
            "select name from parquet_schema(?) where num_children is null", [str(self.parquet)]
        )
        return [name for (name,) in described.fetchall()]

    def query(self, columns: str, where: str = "true", values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a small answer. columns and where are SQL of ours; what varies goes into ``values``."""
        if not self.columns:
            return []
        sql = f"select {columns} from read_parquet(?) where {where}"
        rows: list[tuple[Any, ...]] = self.slide.database.execute(
            sql, [str(self.parquet), *values]
        ).fetchall()
        return rows

    def arrow_batches(
        self, columns: str, where: str = "true", values: Sequence[Any] = (), rows: int = ROWS_PER_BATCH
    ) -> Iterator[Any]:
        """Rows of a large answer in the order of the file, as Arrow record batches of some tens of thousands."""
        if not self.columns:
            return
        # a cursor of its own, so that other questions can be asked while these rows are being read
        with self.slide.database.cursor() as cursor:
            sql = f"select {columns} from read_parquet(?) where {where}"
            found = cursor.sql(sql, params=[str(self.parquet), *values])
            yield from (batch for batch in found.to_arrow_reader(rows) if batch.num_rows)

    def batches(self, columns: str, where: str = "true", values: Sequence[Any] = ()) -> Iterator[Batch]:
        """The same as columns of numbers."""
        for batch in self.arrow_batches(columns, where, values):
            yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}

    def count(self) -> int:
        if not self.has_objects:
            return 0
        ((number,),) = self.query("count(*)") or [(0,)]
        return int(number)

    def points(self, within: tuple[float, float, float, float] | None = None) -> Iterator[Points]:
        where, values = "true", ()  # type: tuple[str, tuple[float, ...]]
        if within is not None:
            where = "centroid_x >= ? and centroid_x < ? and centroid_y >= ? and centroid_y < ?"
            values = (within[0] - 0.5, within[2] - 0.5, within[1] - 0.5, within[3] - 0.5)
        for batch in self.batches("centroid_x, centroid_y", where, values):
            yield np.column_stack([batch["centroid_x"], batch["centroid_y"]]).astype(np.float64) + 0.5

    def numbers(self, column: str) -> Iterator[NDArray[np.float64]]:
        for batch in self.batches(f'"{column}"'):
            yield batch[column].astype(np.float64)


def _damaged(folder: ResultFolder) -> UnknownResultError:
    return UnknownResultError(
        f"the slide result in {folder.path.name} is incomplete or damaged; segment the slide again."
    )
