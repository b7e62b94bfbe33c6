"""Pixels, cover and outlines of one square of an image, as a viewer draws them.

All three lie on one grid: at level z a tile covers ``TILE_PX * 2**z`` full-resolution pixels a side, from the image's corner.

An object tile holds the outlines of the objects whose centroid lies in it, little-endian:

    uint32 magic, objects N, rings R, points P; float32 step, x0, y0, 0
    uint32 [N] numbers, [N + 1] first ring of each object, [R + 1] first point of each ring
    int16  [P, 2] x, y in units of ``step`` full-resolution pixels from (x0, y0)
"""

from __future__ import annotations

import math
from typing import Any, Final

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.tools.masks.layer import MaskLayer, Window

TILE_PX: Final = 512
BORDER_PX: Final = 1
"""Around a tile of cover, so that edges are found without its neighbours."""
JPEG_QUALITY = 82
MAGIC: Final = 0x31_4F_54_54
"""``TTO1``."""
_MOST_READ_PX = 2048
_SAMPLES = 4
"""Labels a side that are looked at for one pixel of cover."""
_READABLE_PX = 5.0
"""An object's diameter on the screen from which its outline says more than its cover."""
_FINEST_STEP, _REACH = 0.25, 32_000


def levels_of(width: int, height: int) -> int:
    """How many levels there are: in the last one the whole image is one tile."""
    return 1 + max(0, math.ceil(math.log2(max(width, height) / TILE_PX)))


def tile_window(width: int, height: int, z: int, x: int, y: int) -> Window:
    """What a tile covers, beyond the image where it does. Raises InvalidArgumentError for one that does not exist."""
    if not 0 <= z < levels_of(width, height):
        raise InvalidArgumentError(f"there is no level {z}; there are 0 to {levels_of(width, height) - 1}.")
    side = TILE_PX * 2**z
    if not (0 <= x * side < width and 0 <= y * side < height):
        raise InvalidArgumentError(f"level {z} has no tile {x}, {y}; the image is {width} x {height} px.")
    return x * side, y * side, (x + 1) * side, (y + 1) * side


def image_tile(source: ImageSource, z: int, x: int, y: int) -> bytes:
    """JPEG; at the right and lower border as much as there is."""
    x0, y0, x1, y1 = tile_window(source.width, source.height, z, x, y)
    step = 2**z
    width = math.ceil((min(x1, source.width) - x0) / step)
    height = math.ceil((min(y1, source.height) - y0) / step)
    # read at the stored level below and shrunk by whole numbers, piece by piece: the reader's own shrinking is exact, but slow
    stored = max(down for down in source.levels if down <= step * 1.001)
    finer = step // 2 ** math.floor(math.log2(stored * 1.001))
    pixels = np.empty((height, width, 3), np.uint8)
    piece = max(1, _MOST_READ_PX // finer)
    for top in range(0, height, piece):
        for left in range(0, width, piece):
            part = pixels[top : top + piece, left : left + piece]
            grid = (x0 + left * step, step / finer), (y0 + top * step, step / finer)
            read = source.read_grid(*grid, width=part.shape[1] * finer, height=part.shape[0] * finer)
            part[:] = cv2.resize(read, part.shape[1::-1], interpolation=cv2.INTER_AREA) if finer > 1 else read
    return _encoded(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def cover_tile(layer: MaskLayer, size: tuple[int, int], z: int, x: int, y: int) -> bytes | None:
    """8-bit PNG with a border of ``BORDER_PX``: which share of each pixel the mask covers; None where there is none.

    size: of the image.
    """
    x0, y0, x1, y1 = tile_window(*size, z, x, y)
    step, side = 2**z, TILE_PX + 2 * BORDER_PX
    border = BORDER_PX * step
    box = Box(int(x0) - border, int(y0) - border, int(x1) + border, int(y1) + border)
    if box.intersection(layer.region) is None:
        return None
    finer = min(step, _SAMPLES)
    marked = layer.labels.sample(box, side * finer, side * finer) > 0
    if not marked.any():
        return None
    share = marked.astype(np.uint8) * np.uint8(255)
    if finer > 1:
        share = np.asarray(cv2.resize(share, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    return _encoded(".png", share, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def last_outline_level(layer: MaskLayer) -> int:
    """The coarsest level whose tiles hold outlines that can be told apart; -1 for a region."""
    count = layer.record.count
    if not layer.has_objects or not count:
        return -1
    diameter = 2 * math.sqrt(layer.record.area_px / count / math.pi)
    return max(0, math.floor(math.log2(max(diameter / _READABLE_PX, 1))))


def object_tile(layer: MaskLayer, size: tuple[int, int], z: int, x: int, y: int) -> bytes | None:
    """Outlines of the objects whose centroid lies in the tile; None where there is none.

    At level 0 they are exact, at others they are within half a pixel of that level.
    """
    window = tile_window(*size, z, x, y)
    if z > last_outline_level(layer):
        raise InvalidArgumentError(f"level {z} of this mask has no outlines; ask for its cover.")
    batches = [batch for batch in layer.rows(["id", "geometry"], window) if len(batch["id"])]
    if not batches:
        return None
    shapes = shapely.from_wkb(np.concatenate([batch["geometry"] for batch in batches]))
    numbers = np.concatenate([batch["id"] for batch in batches])
    if z:
        shapes = shapely.simplify(shapes, 2.0 ** (z - 1))
    return packed(numbers, shapes, (window[0], window[1]))


def packed(numbers: NDArray[Any], shapes: NDArray[Any], corner: tuple[float, float]) -> bytes:
    """An object tile; see the top of this file."""
    parts, of_part = shapely.get_parts(shapes, return_index=True)
    rings, of_ring = shapely.get_rings(parts, return_index=True)
    points, of_point = shapely.get_coordinates(rings, return_index=True)
    moved = points - corner
    step = max(_FINEST_STEP, float(np.abs(moved).max(initial=0)) / _REACH)
    header = np.array([MAGIC, len(numbers), len(rings), len(points)], "<u4").tobytes()
    header += np.array([step, *corner, 0], "<f4").tobytes()
    first_ring = np.searchsorted(of_part[of_ring], np.arange(len(numbers) + 1))
    first_point = np.searchsorted(of_point, np.arange(len(rings) + 1))
    starts = [each.astype("<u4").tobytes() for each in (numbers, first_ring, first_point)]
    return b"".join([header, *starts, np.rint(moved / step).astype("<i2").tobytes()])


def _encoded(kind: str, pixels: Any, options: list[int]) -> bytes:
    done, data = cv2.imencode(kind, pixels, options)
    assert done, "OpenCV encodes any 8-bit picture"
    return bytes(data.tobytes())
