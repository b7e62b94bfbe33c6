"""A small 3DHISTECH slide: ``NAME.mrxs``, and beside it Slidedat.ini, Index.dat and data files.

Written after the layout that OpenSlide's documentation describes; every part can be replaced before it is written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from imagecodecs import jpeg8_encode

SLIDE_ID = "0123456789abcdef0123456789abcdef"
SIDE, ACROSS, LEVELS = 64, 4, 2
VERSION = b"01.02"
Entry = tuple[int, int, int, int]
"""Number of the picture, offset, length, file."""


def slidedat(
    name: str = "slide", *, side: int = SIDE, mpp: Sequence[float] = (0.25, 0.25), files: int = 1
) -> dict[str, dict[str, str]]:
    """Two levels: 4 by 4 pictures, and 2 by 2 of half the scale. mpp: of each."""
    levels = {
        f"LEVEL_{number}": {
            "OVERLAP_X": "0",
            "OVERLAP_Y": "0",
            "MICROMETER_PER_PIXEL_X": str(mpp[number]),
            "MICROMETER_PER_PIXEL_Y": str(mpp[number]),
            "IMAGE_FORMAT": "JPEG",
            "IMAGE_FILL_COLOR_BGR": "16777215",
            "DIGITIZER_WIDTH": str(side),
            "DIGITIZER_HEIGHT": str(side),
            "IMAGE_CONCAT_FACTOR": str(number),
        }
        for number in range(LEVELS)
    }
    return {
        "GENERAL": {
            "SLIDE_ID": SLIDE_ID,
            "SLIDE_NAME": name,
            "IMAGENUMBER_X": str(ACROSS),
            "IMAGENUMBER_Y": str(ACROSS),
            "OBJECTIVE_MAGNIFICATION": "20",
            "CameraImageDivisionsPerSide": "1",
        },
        "HIERARCHICAL": {
            "HIER_COUNT": "1",
            "NONHIER_COUNT": "0",
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": str(LEVELS),
            **{f"HIER_0_VAL_{number}_SECTION": f"LEVEL_{number}" for number in range(LEVELS)},
        },
        "DATAFILE": {
            "FILE_COUNT": str(files),
            **{f"FILE_{number}": f"Data{number:04}.dat" for number in range(files)},
        },
        **levels,
    }


def jpeg_of(colour: tuple[int, int, int], side: int = SIDE) -> bytes:
    return bytes(jpeg8_encode(np.full((side, side, 3), colour, np.uint8), level=95))


@dataclass
class Mirax:
    """data: a picture for each data file, which take turns. entries: of each level. words: every 32-bit number of the index."""

    ini: dict[str, dict[str, str]] = field(default_factory=slidedat)
    data: Sequence[bytes] = field(default_factory=lambda: [jpeg_of((200, 80, 160))])
    entries: Sequence[Sequence[Entry]] = ()
    version: bytes = VERSION
    identity: bytes = SLIDE_ID.encode()
    change: Callable[[bytearray], None] = lambda words: None
    cut: int | None = None
    text: bytes | None = None

    def __post_init__(self) -> None:
        if not self.entries:
            self.entries = [self._page(2**level) for level in range(LEVELS)]

    def _page(self, step: int) -> list[Entry]:
        places = [y * ACROSS + x for y in range(0, ACROSS, step) for x in range(0, ACROSS, step)]
        files = [number % len(self.data) for number in range(len(places))]
        return [(place, 0, len(self.data[file]), file) for place, file in zip(places, files, strict=True)]

    def index(self) -> bytes:
        """hier root, nonhier root, a pointer for each level, the head of each level's pages, the pages."""
        start = len(self.version) + len(self.identity)
        numbers = bytearray()
        pointers_at = start + 8
        heads_at = pointers_at + 4 * len(self.entries)
        pages_at = heads_at + 8 * len(self.entries)
        numbers += struct.pack("<ii", pointers_at, 0)
        numbers += b"".join(struct.pack("<i", heads_at + 8 * n) for n in range(len(self.entries)))
        pages = b""
        for page in self.entries:
            numbers += struct.pack("<ii", 0, pages_at + len(pages))
            pages += struct.pack("<ii", len(page), 0) + b"".join(struct.pack("<4i", *entry) for entry in page)
        numbers += pages
        self.change(numbers)
        content = self.version + self.identity + bytes(numbers)
        return content if self.cut is None else content[: self.cut]

    def slidedat(self) -> bytes:
        if self.text is not None:
            return self.text
        groups = (
            f"[{name}]\r\n" + "".join(f"{key} = {value}\r\n" for key, value in keys.items())
            for name, keys in self.ini.items()
        )
        return b"\xef\xbb\xbf" + "".join(groups).encode()

    def write(self, path: Path) -> Path:
        """path: of the file that is opened; the others lie in a folder of its name beside it."""
        folder = path.with_suffix("")
        folder.mkdir(parents=True)
        path.write_bytes(jpeg_of((255, 255, 255)))
        (folder / "Slidedat.ini").write_bytes(self.slidedat())
        (folder / "Index.dat").write_bytes(self.index())
        for number, picture in enumerate(self.data):
            (folder / f"Data{number:04}.dat").write_bytes(picture)
        return path


def draw_mirax(path: Path, colours: Sequence[tuple[int, int, int]] = ((200, 80, 160), (90, 60, 150))) -> Path:
    """512 x 512 px at 0.5 µm per px and a level of half of it; a data file for each colour, which take turns by tile."""
    ini = slidedat(side=128, mpp=(0.5, 1.0), files=len(colours))
    return Mirax(ini, [jpeg_of(colour, 128) for colour in colours]).write(path)
