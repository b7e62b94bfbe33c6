"""A small result with everything exports stumble over: touching objects, holes, a gap in the numbers, nothing found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from drawn import rectangles, save, stored
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.tools.export import export
from tissuetalk.tools.storage.result_folder import ResultFolder

ORIGIN_XY = (37, 21)
HEIGHT, WIDTH = 300, 420

NUCLEI, STROMA, MITOSES = (f"msk_{number:032x}" for number in (1, 2, 3))
"""Ids of the three masks: objects, a region, and one that was looked for and not found."""


def touching() -> NDArray[np.int32]:
    """Objects that share an edge or a corner, one with a hole, one on the border, and no number 3."""
    labels = rectangles((HEIGHT, WIDTH), [(5, 5, 20, 20), (20, 5, 35, 20), (0, 0, 0, 0), (35, 20, 60, 50)])
    labels[30:40, 40:50] = 0
    labels[HEIGHT - 7 :, WIDTH - 9 :] = 5
    labels[100, 100] = labels[101, 101] = 6
    labels[:, 200] = labels[:, 201] = 7
    return labels


def ragged(seed: int = 0) -> NDArray[np.bool_]:
    """A region with many parts, holes and pixels that meet only at a corner."""
    noise = np.random.default_rng(seed).random((HEIGHT, WIDTH))
    smooth = ndimage.gaussian_filter(noise, 1.0)
    mask: NDArray[np.bool_] = smooth > np.quantile(smooth, 0.6)
    return mask


def result(path: Path, mpp: float | None = 0.25) -> tuple[ResultFolder, Callable[[], ImageSource]]:
    """The result in a folder, and what opens the picture it is about."""
    colours = np.random.default_rng(1).integers(0, 256, (ORIGIN_XY[1] + HEIGHT, ORIGIN_XY[0] + WIDTH, 3))
    image = save(path / "picture.png", colours.astype(np.uint8))
    nothing = np.zeros((HEIGHT, WIDTH), np.int32)
    masks = {
        "nuclei": (touching() > 0, touching()),
        "stroma": (ragged(), None),
        "mitoses": (nothing > 0, nothing),
    }
    folder = stored(path / "result", masks, mpp=mpp, origin_xy=ORIGIN_XY)
    folder.write_request({"image": str(image)})
    return folder, lambda: open_image(image, name=image.name)


def exported(path: Path, format: str, name: str, mpp: float | None = 0.25) -> Path:
    """The result in one format, as a new file in the folder."""
    folder, opener = result(path, mpp)
    return export(folder, format, path / name, opener)


def nothing_found(path: Path) -> tuple[ResultFolder, Callable[[], ImageSource]]:
    """A result of one target that is not there."""
    image = save(path / "white.png", np.full((64, 64, 3), 255, np.uint8))
    nothing = np.zeros((64, 64), np.int32)
    folder = stored(path / "empty", {"mitoses": (nothing > 0, nothing)})
    folder.write_request({"image": str(image)})
    return folder, lambda: open_image(image, name=image.name)


def in_image(crop: NDArray[np.generic]) -> NDArray[np.generic]:
    """A mask of the region placed in the whole image."""
    whole = np.zeros((ORIGIN_XY[1] + HEIGHT, ORIGIN_XY[0] + WIDTH), crop.dtype)
    whole[ORIGIN_XY[1] :, ORIGIN_XY[0] :] = crop
    return whole
