"""Pictures and stored results with known geometry: what is measured on them is arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tissuetalk.tools.answers.results import ImageInfo, Mask, Provenance, SegmentResult
from tissuetalk.tools.storage.result_folder import ResultFolder

HAEMATOXYLIN = (80, 60, 140)
STROMA = (235, 190, 215)
GLASS = (255, 255, 255)


def discs(
    width: int,
    height: int,
    centres_xy: Sequence[tuple[int, int]],
    radius_px: float = 10.5,
    background: tuple[int, int, int] = GLASS,
) -> NDArray[np.uint8]:
    """[H, W, 3]: nuclei-coloured discs; a pixel belongs to a disc when its centre lies in it."""
    picture = np.full((height, width, 3), background, np.uint8)
    y, x = np.mgrid[:height, :width]
    for centre_x, centre_y in centres_xy:
        picture[(x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius_px**2] = HAEMATOXYLIN
    return picture


def lattice(count: int, step: int = 40) -> list[tuple[int, int]]:
    """Centres of ``count`` discs on a grid of six columns."""
    return [(30 + step * (number % 6), 30 + step * (number // 6)) for number in range(count)]


def save(path: Path, picture: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def disc_image(path: Path, count: int) -> Path:
    """A 260 x 260 px picture of so many nuclei, at most 36."""
    return save(path, discs(260, 260, lattice(count)))


def rectangles(shape: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]]) -> NDArray[np.int32]:
    """[H, W] labels 1..N, one per half-open box [x0, y0, x1, y1]."""
    labels = np.zeros(shape, np.int32)
    for number, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        labels[y0:y1, x0:x1] = number
    return labels


def stored(
    path: Path,
    masks: dict[str, tuple[NDArray[np.bool_], NDArray[np.int32] | None]],
    *,
    mpp: float | None = 0.5,
    origin_xy: tuple[int, int] = (0, 0),
) -> ResultFolder:
    """A result as segment would have written it, with these masks by name. mpp None: nobody knows the scale."""
    path.mkdir(parents=True)
    folder = ResultFolder(path)
    height, width = next(iter(masks.values()))[0].shape
    region = [origin_xy[0], origin_xy[1], origin_xy[0] + width, origin_xy[1] + height]
    scale = {"mpp": mpp or 0.5, "mpp_source": "assumed" if mpp is None else "given"}
    records = [
        _record(folder, number, name, mask, instances, region, scale)
        for number, (name, (mask, instances)) in enumerate(masks.items(), start=1)
    ]
    image = ImageInfo(image_id="img_" + "0" * 32, width=region[2], height=region[3], region=region, **scale)
    folder.write_result(
        SegmentResult(
            result_id="res_" + "0" * 32,
            image=image,
            masks=records,
            not_segmented=[],
            warnings=[],
            overlay="overlay.png",
            measures=[],
            notes=[],
            job_id=None,
        )
    )
    return folder


def _record(folder, number, name, mask, instances, region, scale) -> Mask:
    mask_id = f"msk_{number:032x}"
    area_px = int(mask.sum())
    known = scale["mpp_source"] == "given"
    return Mask(
        mask_id=mask_id,
        label=None,
        free_form=name,
        target=name,
        prompt=name,
        evidence=name,
        assertion="present",
        found=bool(area_px),
        presence=0.9,
        reliability=None,
        area_px=area_px,
        area_um2=area_px * scale["mpp"] ** 2 if known else None,
        area_fraction=area_px / mask.size,
        count=None if instances is None else int(instances.max()),
        bbox=None,
        relation=None,
        verdict="found",
        plain="",
        alternatives=[],
        colour="#ffd400",
        resources=folder.write_mask(mask_id, mask, instances),
        provenance=Provenance(
            words=name,
            label=None,
            prompt=name,
            model="drawn",
            weights_sha256="0" * 64,
            model_mpp=0.5,
            tile_px=64,
            margin_px=0,
            region=region,
            points=[],
            boxes=[],
            relation=None,
            image_sha256="0" * 64,
            version="0",
            **scale,
        ),
    )
