"""A small 3DHISTECH slide: ``slide.mrxs``, and beside it Slidedat.ini, Index.dat and data files.

Written after the layout that OpenSlide's documentation describes; every part can be replaced before it is written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hostile.bytes_of import bare_jpeg
from hostile.case import PATIENT

SLIDE_ID = "0123456789abcdef0123456789abcdef"
SIDE, ACROSS = 64, 4
VERSION = b"01.02"


def slidedat() -> dict[str, dict[str, str]]:
    """Two levels: 4 by 4 pictures, and 2 by 2 of half the scale."""
    level = {
        "OVERLAP_X": "0",
        "OVERLAP_Y": "0",
        "MICROMETER_PER_PIXEL_X": "0.25",
        "MICROMETER_PER_PIXEL_Y": "0.25",
        "IMAGE_FORMAT": "JPEG",
        "IMAGE_FILL_COLOR_BGR": "16777215",
        "DIGITIZER_WIDTH": str(SIDE),
        "DIGITIZER_HEIGHT": str(SIDE),
    }
    return {
        "GENERAL": {
            "SLIDE_ID": SLIDE_ID,
            "SLIDE_NAME": PATIENT,
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
            "HIER_0_COUNT": "2",
            "HIER_0_VAL_0_SECTION": "LEVEL_0",
            "HIER_0_VAL_1_SECTION": "LEVEL_1",
        },
        "DATAFILE": {"FILE_COUNT": "1", "FILE_0": "Data0000.dat"},
        "LEVEL_0": {**level, "IMAGE_CONCAT_FACTOR": "0"},
        "LEVEL_1": {**level, "IMAGE_CONCAT_FACTOR": "1"},
    }


@dataclass
class Mirax:
    """entries: of each level (number of the picture, offset, length, file). words: every 32-bit number of the index."""

    ini: dict[str, dict[str, str]] = field(default_factory=slidedat)
    entries: list[list[tuple[int, int, int, int]]] = field(default_factory=list)
    data: bytes = field(default_factory=lambda: bare_jpeg(SIDE, SIDE))
    version: bytes = VERSION
    identity: bytes = SLIDE_ID.encode()
    change: Callable[[bytearray], None] = lambda words: None
    cut: int | None = None
    text: bytes | None = None

    def __post_init__(self) -> None:
        if not self.entries:
            every = (0, len(self.data), 0)
            self.entries = [
                [(y * ACROSS + x, *every) for y in range(0, ACROSS, step) for x in range(0, ACROSS, step)]
                for step in (1, 2)
            ]

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

    def write(self, folder: Path) -> None:
        slide = folder / "slide"
        slide.mkdir()
        (folder / "slide.mrxs").write_bytes(bare_jpeg(96, 80))
        (slide / "Slidedat.ini").write_bytes(self.slidedat())
        (slide / "Index.dat").write_bytes(self.index())
        (slide / "Data0000.dat").write_bytes(self.data)
