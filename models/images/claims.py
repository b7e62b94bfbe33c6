"""What the header of compressed data says it decodes to, read without its decoder: (width, height, samples per pixel)."""

from __future__ import annotations

import struct
from collections.abc import Callable

Claim = tuple[int, int, int]

_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SIZ = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream, and the marker that must follow


def jpeg(data: bytes) -> Claim | None:
    """The largest frame header anywhere before the first scan."""
    claims, at = [], 2
    while at + 10 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):  # not a marker, or a fill byte
            at += 1
            continue
        if data[at + 1] in _JPEG_FRAMES:
            height, width, samples = struct.unpack_from(">HHB", data, at + 5)
            claims.append((width, height, samples))
        if data[at + 1] == 0xDA:
            break
        at += 2 if 0xD0 <= data[at + 1] <= 0xD9 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return _largest(claims)


def jpeg_2000(data: bytes) -> Claim | None:
    """The largest of all codestreams in it, bare or in the boxes of a JP2 file."""
    claims, at = [], data.find(_SIZ)
    while at >= 0 and at + 42 <= len(data):
        right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
        (samples,) = struct.unpack_from(">H", data, at + 40)
        claims.append((max(right - left, 0), max(bottom - top, 0), samples))
        at = data.find(_SIZ, at + 4)
    return _largest(claims)


def webp(data: bytes) -> Claim | None:
    """Of the canvas, or of the only frame."""
    kind = data[12:16]
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    if kind == b"VP8X":
        return _little(data[24:27]) + 1, _little(data[27:30]) + 1, 4
    if kind == b"VP8L":
        bits = _little(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 4
    return (_little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF, 4) if kind == b"VP8 " else None


def png(data: bytes) -> Claim | None:
    """Of the header, always the first chunk."""
    if len(data) < 26:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height, 4


OF_TIFF: dict[int, Callable[[bytes], Claim | None]] = {
    **dict.fromkeys((6, 7, 34892, 33007), jpeg),
    **dict.fromkeys((33003, 33004, 33005, 34712), jpeg_2000),
    **dict.fromkeys((34927, 50001), webp),
    34933: png,
}
"""By the number of TIFF's Compression tag. All others decode into what the directory says, and not beyond."""


def _largest(claims: list[Claim]) -> Claim | None:
    return max(claims, key=lambda claim: claim[0] * claim[1] * claim[2], default=None)


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
