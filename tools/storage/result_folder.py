"""A result on disk: the same layout in the workspace and where the command line writes.

result.json              what ``segment`` answered; links are relative to the folder
request.json             what was asked, enough to ask again
masks/<mask_id>.png      8-bit, 0 or 255, the segmented region in full-resolution pixels
instances/<mask_id>.png  16-bit labels, 0 background; only where the target has objects
overlay.png              outlines over the region
objects/<mask_id>.geojson, tables/<mask_id>.csv   derived from the above when first asked for
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import (
    ImageChangedError,
    ImageTooLargeError,
    UnknownMaskError,
    UnknownResultError,
)
from tissuetalk.models.images import ImageSource
from tissuetalk.models.reading import MOST_JSON_BYTES, content_of, json_in
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.answers.results import Mask, MaskResources, SegmentResult

MOST_OBJECTS = 65_535
"""What a 16-bit label picture can number."""
# becomes part of a path
_MASK_ID = re.compile(r"msk_[a-z0-9]+")
_FILE = re.compile(r"\w[\w-]*(/\w[\w-]*)*\.\w+", re.ASCII)


MOST_RESULT_BYTES = 64 * 2**20


def _require_inside(mask: Mask) -> None:
    """Raises ValueError where what becomes a path could lead out of the result's folder."""
    if not _MASK_ID.fullmatch(mask.mask_id):
        raise ValueError("it has a mask whose id is none")
    files = mask.resources
    for name in filter(None, (files.mask, files.instances, files.geojson, files.table)):
        if not _FILE.fullmatch(name):
            raise ValueError("it names a file outside its folder")


class ResultFolder:
    """Reads and writes one result. Cheap to make; holds nothing open."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def existing(cls, path: Path) -> ResultFolder:
        """The result in a folder. Raises UnknownResultError when there is none."""
        if not (path / "result.json").is_file():
            raise UnknownResultError(
                f"{path} holds no result.json; pass the folder given to `segment --out`."
            )
        return cls(path)

    def write_request(self, request: dict[str, Any]) -> None:
        write_whole(self.path / "request.json", json.dumps(request, indent=1, ensure_ascii=False))

    def request(self) -> dict[str, Any]:
        """What was asked, with the path of its image."""
        wrong = UnknownResultError(
            f"request.json of the result in {self.path.name} is missing or damaged; segment again."
        )
        try:
            content = json_in(content_of(self.path / "request.json", MOST_JSON_BYTES))
        except (OSError, ValueError) as error:
            raise wrong from error
        if not (isinstance(content, dict) and isinstance(content.get("image"), str)):
            raise wrong
        return content

    def write_result(self, result: SegmentResult) -> None:
        """What stands in a report goes back to whoever sent it, and is not written down."""
        write_whole(self.path / "result.json", result.without_sentences().model_dump_json(indent=1))

    def result(self) -> SegmentResult:
        """The answer as it was written. Names of files in it stay inside the folder, whoever wrote it."""
        try:
            content = content_of(self.path / "result.json", MOST_RESULT_BYTES)
            result = SegmentResult.model_validate_json(content)
            for mask in result.masks:
                _require_inside(mask)
            return result
        except (OSError, ValueError) as error:
            raise UnknownResultError(
                f"the result in {self.path.name} was written by another version or is damaged; segment again."
            ) from error

    def require_same_image(self, source: ImageSource) -> ImageSource:
        """The source, if it holds what was segmented; otherwise it is closed. Raises ImageChangedError."""
        with ExitStack() as unless_same:
            unless_same.callback(source.close)
            if source.image_id != self.result().image.image_id:
                raise ImageChangedError(
                    f"{source.name} has changed since it was segmented; segment it again."
                )
            unless_same.pop_all()
        return source

    def write_mask(
        self, mask_id: str, mask: NDArray[np.bool_], instances: NDArray[np.int32] | None
    ) -> MaskResources:
        """Files of one mask [H, W] and its labels [H, W]; the links are relative to the folder."""
        _write_png(self.path / "masks" / f"{mask_id}.png", mask.astype(np.uint8) * 255)
        if instances is not None:
            if int(instances.max(initial=0)) > MOST_OBJECTS:
                raise ImageTooLargeError(
                    f"more than {MOST_OBJECTS} objects in one region; pass a smaller region=[x0, y0, x1, y1]."
                )
            _write_png(self.path / "instances" / f"{mask_id}.png", instances.astype(np.uint16))
        return MaskResources(
            mask=f"masks/{mask_id}.png",
            instances=None if instances is None else f"instances/{mask_id}.png",
            geojson=f"objects/{mask_id}.geojson",
            table=f"tables/{mask_id}.csv",
        )

    def chosen(self, mask_ids: list[str] | None) -> list[Mask]:
        """The named masks, all of them by default. Raises UnknownMaskError."""
        masks = self.result().masks
        if not mask_ids:
            return masks
        by_id = {mask.mask_id: mask for mask in masks}
        unknown = [mask_id for mask_id in mask_ids if mask_id not in by_id]
        if unknown:
            raise UnknownMaskError(
                f"this result has no mask {unknown[0][:60]!r}; it has: {', '.join(by_id) or 'none'}."
            )
        return [by_id[mask_id] for mask_id in dict.fromkeys(mask_ids)]

    def mask(self, mask_id: str) -> NDArray[np.bool_]:
        """[H, W] of the segmented region."""
        return self._read("masks", mask_id) > 0

    def instances(self, mask_id: str) -> NDArray[np.int32] | None:
        """[H, W] labels, or None for a region."""
        if not (self.path / "instances" / f"{mask_id}.png").is_file():
            return None
        return self._read("instances", mask_id).astype(np.int32)

    def _read(self, kind: str, mask_id: str) -> NDArray[np.uint16]:
        # an id is never a path
        if _MASK_ID.fullmatch(mask_id) is None:
            raise UnknownMaskError(
                f"{mask_id[:60]!r} is not a mask id; ids look like msk_… and come from segment."
            )
        pixels = cv2.imread(str(self.path / kind / f"{mask_id}.png"), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise UnknownMaskError(f"the file of mask {mask_id!r} is missing; segment again.")
        return pixels.astype(np.uint16)


def _write_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    # level 1: masks are flat, more effort saves little and takes seconds on large regions
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done, "OpenCV encodes any 8- or 16-bit single-channel picture"
    write_whole(path, data.tobytes())
