"""Pyramidal slides of any size, drawn from real tissue: written tile by tile, so memory does not grow with the slide.

Fragments of tissue lie on glass like the cores of a biopsy. Their texture is the inside of a real H&E core
(``data/images/HE_example.ome.tif``), mirrored so that it goes on without a seam. The same drawing always gives the
same bytes. Large slides are kept in a cache folder outside the repository.

    python -m tests.drawn_slides SIDE_PX OUT.svs [--fragments N] [--fragment-mm2 F] [--mpp F]
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import tifffile
from imagecodecs import jpeg8_encode
from numpy.typing import NDArray

REAL_TISSUE = Path(__file__).parent / "data" / "images" / "HE_example.ome.tif"
REAL_MPP = 0.5
CORE_XYXY = (240, 300, 1136, 1196)
"""The largest square inside the round core whose side is a multiple of 128 px."""
GLASS_RGB = (243, 241, 243)
TILE_PX = 512
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Drawing:
    """fragments: pieces of tissue, each ``fragment_mm2`` large. mpp None: a file that does not say its scale.

    kind: ``svs`` is what OpenSlide takes for an Aperio slide, ``tiff`` an ordinary pyramidal tiled TIFF.
    step: each level is smaller by this factor, down to at most ``smallest_px`` a side.
    """

    side_px: int
    fragments: int = 1
    fragment_mm2: float = 1.0
    mpp: float = 0.25
    kind: Literal["svs", "tiff"] = "svs"
    says_mpp: bool = True
    step: int = 4
    smallest_px: int = 2000
    seed: int = 0

    @property
    def tissue_mm2(self) -> float:
        return self.fragments * self.fragment_mm2

    @property
    def file_name(self) -> str:
        """Other drawings, and other versions of this file, have other names."""
        code = hashlib.sha256(Path(__file__).read_bytes() + repr(self).encode()).hexdigest()[:10]
        return f"drawn-{self.side_px}px-{self.tissue_mm2:g}mm2-{code}.{self.kind}"


BIOPSY = Drawing(side_px=10_000, fragment_mm2=0.625)
"""10,000² px, 10 % tissue."""
ONE_MM2 = Drawing(side_px=12_649, fragment_mm2=1.0)
RESECTION = Drawing(side_px=40_000, fragments=10, fragment_mm2=1.0)
"""40,000² px, 10 % tissue in ten pieces like the one of ONE_MM2."""


@dataclass(frozen=True)
class Fragment:
    """One piece with a wavy border, in full-resolution pixels."""

    x: float
    y: float
    radius_px: float
    waves: tuple[tuple[int, float, float], ...]

    @property
    def reach_px(self) -> float:
        return self.radius_px * (1 + sum(abs(height) for _, height, _ in self.waves))

    def cover(self, x: NDArray[np.float32], y: NDArray[np.float32], pixel: float) -> NDArray[np.float32]:
        """[H, W] 0..1: how much of each pixel, ``pixel`` wide, is tissue. x: [W], y: [H] pixel centres."""
        dx, dy = x[None, :] - self.x, y[:, None] - self.y
        angle = np.arctan2(dy, dx)
        border = np.full(angle.shape, 1.0, np.float32)
        for count, height, phase in self.waves:
            border += np.float32(height) * np.cos(count * angle + phase)
        inside = (self.radius_px * border - np.hypot(dx, dy)) / np.float32(pixel) + 0.5
        covered: NDArray[np.float32] = np.clip(inside, 0, 1)
        return covered


def fragments_of(drawing: Drawing) -> list[Fragment]:
    """On a square lattice, moved at random as far as they do not touch."""
    random = np.random.default_rng(drawing.seed)
    across = max(1, math.ceil(math.sqrt(drawing.fragments)))
    room = drawing.side_px / across
    placed = []
    for number in range(drawing.fragments):
        waves = tuple(
            (count, float(random.uniform(0.02, 0.06)), float(random.uniform(0, 2 * math.pi)))
            for count in (2, 3, 5, 9)
        )
        area_px = drawing.fragment_mm2 * 1e6 / drawing.mpp**2
        wavy = 1 + sum(height**2 for _, height, _ in waves) / 2
        radius = math.sqrt(area_px / (math.pi * wavy))
        piece = Fragment(0, 0, radius, waves)
        play = max(0.0, room / 2 - piece.reach_px) * 0.9
        x, y = ((index + 0.5) * room + random.uniform(-play, play) for index in divmod(number, across)[::-1])
        placed.append(Fragment(x, y, radius, waves))
    return placed


@cache
def _texture(mpp: float, down: int) -> NDArray[np.uint8]:
    """[2N, 2N, 3]: real tissue at ``mpp`` and averaged ``down`` times, mirrored both ways: it repeats seamlessly."""
    x0, y0, x1, y1 = CORE_XYXY
    core = tifffile.imread(REAL_TISSUE)[y0:y1, x0:x1, :3]
    full = round((x1 - x0) * REAL_MPP / mpp / 128) * 128
    enlarged = cv2.resize(core, (full, full), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(enlarged, (max(1, full // down),) * 2, interpolation=cv2.INTER_AREA)
    row = np.concatenate([small, small[:, ::-1]], axis=1)
    mirrored: NDArray[np.uint8] = np.concatenate([row, row[::-1]], axis=0)
    return mirrored


@cache
def _glass() -> NDArray[np.uint8]:
    """[TILE, TILE, 3] with a camera's noise."""
    noise = np.random.default_rng(1).normal(0, 1.2, (TILE_PX, TILE_PX, 3))
    glass: NDArray[np.uint8] = np.clip(noise + GLASS_RGB, 0, 255).astype(np.uint8)
    return glass


def draw_tile(drawing: Drawing, pieces: list[Fragment], down: int, left: int, top: int) -> NDArray[np.uint8]:
    """One tile of the level ``down`` times smaller than the slide; left, top: pixels of that level."""
    x = ((np.arange(left, left + TILE_PX) + 0.5) * down).astype(np.float32)
    y = ((np.arange(top, top + TILE_PX) + 0.5) * down).astype(np.float32)
    tile = _glass()
    texture = _texture(drawing.mpp, down)
    for piece in pieces:
        if not _near(piece, down, left, top):
            continue
        rows = np.arange(top, top + TILE_PX) % len(texture)
        columns = np.arange(left, left + TILE_PX) % len(texture)
        tissue = texture[rows[:, None], columns[None, :]]
        share = piece.cover(x, y, down)[..., None]
        tile = np.rint(tissue * share + tile * (1 - share)).astype(np.uint8)
    return tile


def _near(piece: Fragment, down: int, left: int, top: int) -> bool:
    side = TILE_PX * down
    nearest_x = min(max(piece.x, left * down), left * down + side)
    nearest_y = min(max(piece.y, top * down), top * down + side)
    return math.hypot(piece.x - nearest_x, piece.y - nearest_y) <= piece.reach_px + down


def _encoded(drawing: Drawing, pieces: list[Fragment], down: int, side: int) -> Iterator[bytes]:
    """JPEG tiles of one level, row by row; glass is encoded once."""
    glass = _jpeg(_glass())
    for top in range(0, side, TILE_PX):
        for left in range(0, side, TILE_PX):
            if any(_near(piece, down, left, top) for piece in pieces):
                yield _jpeg(draw_tile(drawing, pieces, down, left, top))
            else:
                yield glass


def _jpeg(tile: NDArray[np.uint8]) -> bytes:
    return bytes(
        jpeg8_encode(tile, level=JPEG_QUALITY, colorspace="rgb", outcolorspace="ycbcr", subsampling=(2, 2))
    )


def levels_of(drawing: Drawing) -> list[int]:
    """Downsample of every level."""
    levels = [1]
    while drawing.side_px / levels[-1] > drawing.smallest_px and len(levels) < 6:
        levels.append(levels[-1] * drawing.step)
    return levels


def draw(drawing: Drawing, path: Path) -> Path:
    """Write the slide. Memory: one tile; disk: about 0.1 byte per pixel with 10 % tissue."""
    pieces = fragments_of(drawing)
    per_cm = 1e4 / drawing.mpp if drawing.says_mpp else 1
    with tifffile.TiffWriter(path) as tiff:
        for down in levels_of(drawing):
            side = math.ceil(drawing.side_px / down)
            tiff.write(
                _encoded(drawing, pieces, down, side),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(2, 2),
                resolution=(per_cm / down, per_cm / down),
                resolutionunit="CENTIMETER" if drawing.says_mpp else "NONE",
                subfiletype=1 if drawing.kind == "tiff" and down > 1 else 0,
                description=_aperio(drawing) if drawing.kind == "svs" else None,
                metadata=None,
                software=False,
            )
    return path


def _aperio(drawing: Drawing) -> str:
    said = f"|AppMag = {round(10 / drawing.mpp)}|MPP = {drawing.mpp:.4f}" if drawing.says_mpp else ""
    return f"Aperio Image Library v12\r\n{drawing.side_px}x{drawing.side_px} JPEG/RGB Q={JPEG_QUALITY}{said}"


def cached(drawing: Drawing) -> Path:
    """The slide in the cache folder (``TISSUETALK_DRAWN_SLIDES``, else below the temporary folder), drawn if missing."""
    folder = (
        os.environ.get("TISSUETALK_DRAWN_SLIDES") or Path(tempfile.gettempdir()) / "tissuetalk-drawn-slides"
    )
    path = Path(folder) / drawing.file_name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.partial")
        draw(drawing, unfinished).replace(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a slide from real tissue.")
    parser.add_argument("side_px", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fragments", type=int, default=1)
    parser.add_argument("--fragment-mm2", type=float, default=1.0)
    parser.add_argument("--mpp", type=float, default=0.25)
    asked = parser.parse_args()
    drawing = Drawing(asked.side_px, asked.fragments, asked.fragment_mm2, asked.mpp)
    print(draw(drawing, asked.out))


if __name__ == "__main__":
    main()
