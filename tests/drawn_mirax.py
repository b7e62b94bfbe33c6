"""A 3DHISTECH slide drawn from colours: the index, and every tile as a JPEG in one of several data files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from imagecodecs import jpeg8_encode

TILE_PX, ACROSS, LEVELS = 128, 4, 2
SLIDE_ID = "0123456789ABCDEF"
SECTION = """[LAYER_0_LEVEL_{level}_SECTION]
OVERLAP_X = 0
OVERLAP_Y = 0
MICROMETER_PER_PIXEL_X = {mpp}
MICROMETER_PER_PIXEL_Y = {mpp}
IMAGE_FORMAT = JPEG
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = {tile}
DIGITIZER_HEIGHT = {tile}
IMAGE_CONCAT_FACTOR = {concat}
"""


def draw_mirax(
    path: Path, colours: tuple[tuple[int, int, int], ...] = ((200, 80, 160), (90, 60, 150))
) -> Path:
    """512 x 512 px at 0.5 µm per px and a level of half of it; a data file for each colour, which take turns by tile."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    path.write_bytes(_tile((255, 255, 255)))
    tiles = [_tile(colour) for colour in colours]
    for number, tile in enumerate(tiles):
        (folder / f"Data{number:04}.dat").write_bytes(tile)
    (folder / "Slidedat.ini").write_text(index_text(len(colours)), encoding="utf-8")
    (folder / "Index.dat").write_bytes(_index([len(tile) for tile in tiles]))
    return path


def index_text(files: int) -> str:
    named = "\n".join(f"FILE_{number} = Data{number:04}.dat" for number in range(files))
    levels = "\n".join(f"HIER_0_VAL_{n}_SECTION = LAYER_0_LEVEL_{n}_SECTION" for n in range(LEVELS))
    sections = "\n".join(
        SECTION.format(level=level, mpp=0.5 * 2**level, tile=TILE_PX, concat=min(level, 1))
        for level in range(LEVELS)
    )
    return (
        f"[GENERAL]\nSLIDE_ID = {SLIDE_ID}\nIMAGENUMBER_X = {ACROSS}\nIMAGENUMBER_Y = {ACROSS}\n"
        "OBJECTIVE_MAGNIFICATION = 20\nCURRENT_SLIDE_VERSION = 1.9\n"
        f"[HIERARCHICAL]\nHIER_COUNT = 1\nNONHIER_COUNT = 0\nINDEXFILE = Index.dat\n"
        f"HIER_0_NAME = Slide zoom level\nHIER_0_COUNT = {LEVELS}\n{levels}\n"
        f"[DATAFILE]\nFILE_COUNT = {files}\n{named}\n{sections}"
    )


def _tile(colour: tuple[int, int, int]) -> bytes:
    pixels = np.full((TILE_PX, TILE_PX, 3), colour, np.uint8)
    return bytes(jpeg8_encode(pixels, level=95))


def _index(sizes: list[int]) -> bytes:
    """Version, slide id, where the table of levels lies; each level a page of (tile, offset, length, file)."""
    head = b"01.02" + SLIDE_ID.encode()
    table = len(head) + 8
    at = table + 4 * LEVELS
    pointers, pages = b"", b""
    for level in range(LEVELS):
        step = 2**level
        spots = [(x, y) for y in range(0, ACROSS, step) for x in range(0, ACROSS, step)]
        pointers += struct.pack("<i", at + len(pages))
        entries = b"".join(
            struct.pack("<4i", y * ACROSS + x, 0, sizes[n % len(sizes)], n % len(sizes))
            for n, (x, y) in enumerate(spots)
        )
        begin = at + len(pages) + 8
        pages += struct.pack("<2i", 0, begin) + struct.pack("<2i", len(spots), 0) + entries
    return head + struct.pack("<2i", table, 0) + pointers + pages
