"""How large an image may be before it is refused, and what a broken file may raise."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Checked against the header, before any pixel is allocated.

    file_bytes: of any file. decoded_pixels: of an image that must be decoded as a whole (no tiles, no pyramid).
    slide_side and slide_pixels: of an image that is read tile by tile. segment_pixels: of one tile or strip.
    output_pixels: of one region handed back. directories: TIFF directories that are looked at.
    """

    file_bytes: int = 64 * 2**30
    decoded_pixels: int = 400_000_000
    slide_side: int = 500_000
    slide_pixels: int = 100_000_000_000
    segment_pixels: int = 64_000_000
    output_pixels: int = 100_000_000
    directories: int = 256


DECODER_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    UserWarning,
    DeprecationWarning,
    struct.error,
    zlib.error,
)
"""What Pillow, tifffile and the codecs raise on damaged input; each is a refusal of that file, not a crash."""
