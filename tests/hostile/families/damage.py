"""Random flips and cuts of good files: at most fifty, seeded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np

from hostile.bytes_of import bare_jpeg, tissue
from hostile.case import Case, image_case
from hostile.families.dicom import made
from hostile.families.slides import ndpi, scn, svs

DATA = Path(__file__).parents[2] / "data" / "images"
ANY = "ok|unreadable_image|image_too_large"


@cache
def _good() -> dict[str, bytes]:
    def saved(kind: str, **options: object) -> bytes:
        stream = io.BytesIO()
        tissue(200, 160).save(stream, kind, **options)
        return stream.getvalue()

    return {
        "png": saved("PNG"),
        "jpg": bare_jpeg(200, 160),
        "webp": saved("WEBP"),
        "bmp": saved("BMP"),
        "tif": saved("TIFF", compression="tiff_lzw"),
        "ome.tif": (DATA / "HE_example.ome.tif").read_bytes(),
        "svs": svs(),
        "ndpi": ndpi(),
        "scn": scn(),
        "dcm": made(),
    }


def _damaged(kind: str, seed: int, *, cut: bool) -> bytes:
    random = np.random.default_rng([seed, len(kind)])
    content = bytearray(_good()[kind])
    if cut:
        return bytes(content[: int(random.integers(1, len(content)))])
    for at in random.integers(0, min(len(content), 40_000), 8):
        content[at] = int(random.integers(0, 256))
    return bytes(content)


def damage_family() -> Iterator[Case]:
    for kind in ("png", "jpg", "webp", "bmp", "tif", "ome.tif", "svs", "ndpi", "scn", "dcm"):
        for seed in range(5):
            cut = seed == 4
            name = f"{kind}: {'cut' if cut else f'flips {seed}'}"
            yield image_case(
                "Random damage", name, partial(_damaged, kind, seed, cut=cut), ANY, ending=kind, seconds=10
            )
